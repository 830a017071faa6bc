"""Stages of a pipeline: each has a folder, is done once, and is taken as it is as long as what it was made from stays.

workshop = Workshop(Path("phone"), until=None)
teacher = workshop.stage("teacher", what="fine-tune", inputs={"seed": 0}, work=lambda: {"accuracy": 0.8})

What a stage found out is written, with a fingerprint of its inputs, before anything uses it. A stage that was begun
with the same inputs goes on where its command left off; one whose inputs changed is moved to `previous/` and done anew.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from data.files import write_atomically
from data.sealed_json import BrokenSeal, open_sealed, seal
from launch.exit_codes import ExitCode
from train.errors import ConfigError
from train.pipeline.progress import StageProgress
from train.tracking.tracker import readable_seconds

RECORDS = ".pipeline"  # in the output folder
PREVIOUS = "previous"
LOGS = "logs"
_TAIL = 15  # lines of a command's log that are shown when it fails
_PATIENCE = 120.0  # seconds that a command has to save and end after a signal
_REPOSITORY = Path(__file__).resolve().parents[2]
_DIE_WITH_PARENT = _REPOSITORY / "launch" / "agent" / "die_with_parent.py"


class StageFailed(Exception):
    """A command of a stage ended with another code than 0."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class StoppedEarly(Exception):
    """The stage that --until names is done."""


class Workshop:
    """The output folder and what is known of its stages."""

    def __init__(self, out: Path, *, until: str | None = None, tell: Callable[[str], None] = print) -> None:
        self.out = out
        self._until = until
        self.tell = tell

    def stage(
        self, name: str, *, what: str, inputs: Mapping[str, Any], work: Callable[[], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The outputs of a stage, from its record or by `work`, which leaves its files at `out/name`.

        what: for people. inputs: all that the result depends on, as JSON. Files that the outputs name under "files"
        (path below `out` -> SHA-256) have to be there unchanged. ConfigError where `out/name` is another's."""
        fingerprint = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        record = self._read(name)
        begun = self._read(name, "begun")
        if record and record["inputs"] == fingerprint and self._is_whole(record["outputs"]):
            self.tell(f"{name}: done before ({what})")
        else:
            self._make_room(name, fingerprint, record or begun)
            begin = time.monotonic()
            self.tell(f"{name}: {what}")
            outputs = dict(work())
            seconds = time.monotonic() - begin
            record = {"inputs": fingerprint, "outputs": outputs, "seconds": round(seconds, 1), "what": what}
            self._write(name, "json", record)
            self.tell(f"{name}: done in {readable_seconds(seconds)}")
        if self._until == name:
            raise StoppedEarly(name)
        outputs = record["outputs"]
        assert isinstance(outputs, dict)
        return outputs

    def run(self, stage: str, command: Sequence[str], *, progress: StageProgress | None = None) -> None:
        """Run a command of ours as a child of this process; what it prints goes to `logs/STAGE.log`. StageFailed names
        the log. A signal is passed on, and the child, which saves and ends, is waited for."""
        log = self.out / LOGS / f"{stage.replace('/', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            file.write(f"$ {' '.join(command)}\n".encode("utf-8", "surrogateescape"))
            file.flush()
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_DIE_WITH_PARENT), str(os.getpid()), *command],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=child_environment(),
            )
        with _PassedOn(child) as passed, progress or StageProgress(stage) as bar:
            code = bar.wait(child)
        if passed.received:
            raise StageFailed(f"{stage}: stopped by a signal; the same command continues", ExitCode.PREEMPTED)
        if code:
            tail = log.read_text(errors="replace").splitlines()[-_TAIL:]
            shown = "\n".join(f"    {line}" for line in tail)
            raise StageFailed(f"{stage} ended with {code}; its whole log is {log}\n{shown}", code if code > 0 else 1)

    def digest(self, *names: str) -> dict[str, str]:
        """Path below `out` -> SHA-256, for the outputs of a stage."""
        return {name: hashlib.sha256((self.out / name).read_bytes()).hexdigest() for name in names}

    def _is_whole(self, outputs: Mapping[str, Any]) -> bool:
        """Whether the files that a stage left are there as it left them."""
        files = outputs.get("files", {})
        return all((self.out / name).is_file() for name in files) and self.digest(*files) == files

    def _make_room(self, name: str, fingerprint: str, known: Mapping[str, Any] | None) -> None:
        place = self.out / name
        if known is None and place.exists() and (place.is_file() or any(place.iterdir())):
            raise ConfigError(
                f"{place}: holds something that this pipeline did not make; choose another --out, or move it away"
            )
        if known is not None and known["inputs"] != fingerprint and place.exists():
            aside = self.out / PREVIOUS / name
            if aside.is_dir():
                shutil.rmtree(aside)
            aside.parent.mkdir(parents=True, exist_ok=True)
            place.rename(aside)
            self.tell(f"{name}: what it is made from has changed; the one of before is {aside}")
        self._path(name, "json").unlink(missing_ok=True)
        self._write(name, "begun", {"inputs": fingerprint})

    def _path(self, name: str, kind: str) -> Path:
        return self.out / RECORDS / f"{name.replace('/', '-')}.{kind}"

    def _read(self, name: str, kind: str = "json") -> dict[str, Any] | None:
        path = self._path(name, kind)
        try:
            content: dict[str, Any] = open_sealed(path.read_bytes(), name=str(path))
        except FileNotFoundError:
            return None
        except (BrokenSeal, ValueError) as error:
            raise ConfigError(f"{path}: is damaged ({error}); delete it, and its stage is done again") from error
        return content

    def _write(self, name: str, kind: str, content: Mapping[str, Any]) -> None:
        path = self._path(name, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, seal(content))


class _PassedOn:
    """While the block runs, a signal to this process goes to the child; one that does not end is killed."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._before: dict[int, Any] = {}
        self.received: int | None = None

    def __enter__(self) -> "_PassedOn":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            self._before[number] = signal.signal(number, self._pass_on)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self.received is None and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
        self.received = number


def python(module: str, *arguments: object) -> list[str]:
    """A command of ours in this interpreter. -P: a package of the working folder that is called as ours is not it."""
    return [sys.executable, "-P", "-m", module, *map(str, arguments)]


def child_environment() -> dict[str, str]:
    """In which our packages are found from any folder."""
    path = os.pathsep.join(filter(None, (str(_REPOSITORY), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path}
