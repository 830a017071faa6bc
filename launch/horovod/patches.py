"""What has to change in the published Horovod source so that it compiles against current torch and reports stuck ranks.

apply_patches(source_folder, gpu=False)
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from launch.horovod.compatibility import HorovodError, installed_version


class Patch(NamedTuple):
    """One text replacement in the unpacked source; `cpu_only` ones are left out of GPU builds."""

    file: str
    old: str
    new: str
    cpu_only: bool = False


PATCHES = (
    # torch's headers demand C++20, and Gloo must be compiled to the same standard to link.
    Patch("CMakeLists.txt", "set(CMAKE_CXX_STANDARD 14)", "set(CMAKE_CXX_STANDARD 20)"),
    Patch("horovod/torch/CMakeLists.txt", "set(CMAKE_CXX_STANDARD 14)", "set(CMAKE_CXX_STANDARD 20)"),
    # Without this a CUDA compiler that merely lies around turns a CPU build into a failing CUDA one.
    Patch("cmake/Modules/FindPytorch.cmake", "(CUDA_HOME is not None)", "False", cpu_only=True),
    # `reserve` leaves the vector empty, so under Gloo the stall check never names a rank and never ends a job.
    Patch("horovod/common/gloo/gloo_controller.cc", "global_ranks_.reserve(size_)", "global_ranks_.resize(size_)"),
    # Gloo's receiving thread asks for new events again and again while another thread sends on the same connection, and
    # takes the core from it: of the time that this thread spent in a step on two ranks, half was this loop.
    Patch(
        "third_party/gloo/gloo/transport/tcp/pair.cc",
        "lock(m_, std::try_to_lock);\n  if (!lock) {\n",
        "lock(m_, std::try_to_lock);\n  if (!lock) {\n    usleep(50);\n",
    ),
    # The connections that carry the sums belong to a "process set", which forgets the interface that was asked for and
    # takes the address of the host's own name. Where that is a loopback address, as on Debian, hosts never meet.
    Patch(
        "horovod/common/gloo/gloo_context.cc",
        "device_attr.iface = gloo_iface_;\n  device_attr.ai_family = AF_UNSPEC;\n"
        "  auto dev = CreateDevice(device_attr);\n\n  global_ctx = global_context.ctx;",
        "device_attr.iface = global_context.gloo_iface_;\n  device_attr.ai_family = AF_UNSPEC;\n"
        "  auto dev = CreateDevice(device_attr);\n\n  gloo_iface_ = global_context.gloo_iface_;\n"
        "  global_ctx = global_context.ctx;",
    ),
    # Whoever reaches the rendezvous could answer for a rank, or read where the ranks listen: `launch.worker` gives its
    # ranks a secret and asks for it. horovodrun gives none, and its own server does not ask.
    Patch("horovod/common/gloo/http_store.cc", "#include <cstring>\n", "#include <cstdlib>\n#include <cstring>\n"),
    Patch(
        "horovod/common/gloo/http_store.cc",
        "      http::Response response = request.send(method, body);\n",
        '      const char* secret = std::getenv("HOROVOD_GLOO_RENDEZVOUS_SECRET");\n'
        "      std::vector<std::string> headers;\n"
        "      if (secret != nullptr) {\n"
        '        headers.push_back(std::string("Authorization: Bearer ") + secret);\n'
        "      }\n"
        "      http::Response response = request.send(method, body, headers);\n",
    ),
    # A rank that ended has said why; the launcher's own traceback would bury its words.
    Patch(
        "horovod/runner/launch.py",
        "    _run(args)\n\n\nif __name__ == '__main__':\n",
        "    try:\n        _run(args)\n    except RuntimeError as error:\n"
        "        sys.exit('horovodrun: ' + str(error).strip())\n\n\nif __name__ == '__main__':\n",
    ),
    # distutils left the standard library with Python 3.12.
    Patch(
        "horovod/runner/js_run.py",
        "from distutils.spawn import find_executable",
        "from shutil import which as find_executable",
    ),
)

COMMON_FLAGS = {
    "HOROVOD_WITH_PYTORCH": "1",
    "HOROVOD_WITHOUT_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITHOUT_MPI": "1",
    "HOROVOD_WITH_GLOO": "1",
    "CMAKE_POLICY_VERSION_MINIMUM": "3.5",  # CMake 4 refuses Gloo's older minimum otherwise
}
GPU_FLAGS = {"HOROVOD_GPU_OPERATIONS": "NCCL", "HOROVOD_NCCL_LINK": "SHARED"}


def patch_level() -> str:
    """Eight hex digits that change whenever the patches or the build flags do."""
    text = repr((PATCHES, sorted(COMMON_FLAGS.items()), sorted(GPU_FLAGS.items())))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def check_horovod_is_patched() -> None:
    """Raise HorovodError unless the installed Horovod was built with these patches; without some of them ranks that
    `launch.worker` starts do not meet."""
    version, fix = installed_version(), "run `make setup` (or `python -m launch.horovod_build`)"
    if version is None:
        raise HorovodError(f"Horovod is not installed: {fix}")
    if not version.endswith(f".p{patch_level()}"):
        raise HorovodError(f"Horovod {version} was built with other patches than these ({patch_level()}): {fix}")


def apply_patches(source: Path, *, gpu: bool) -> None:
    """Edit the unpacked source tree in place; HorovodError when a patch no longer fits."""
    for patch in PATCHES:
        if patch.cpu_only and gpu:
            continue
        path = source / patch.file
        text = path.read_text()
        if patch.old not in text:
            raise HorovodError(f"{patch.file}: '{patch.old}' not found, so the patch does not fit this Horovod source")
        path.write_text(text.replace(patch.old, patch.new))
