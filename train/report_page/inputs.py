"""What the folders of a report hold: runs, pruned models, exports.

inputs = read_inputs([Path("runs/student"), Path("exported")]); inputs.runs
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data.files import settle_if_allowed
from models.errors import ModelError
from models.formats.manifest import EXPORT_NAME
from models.prune_record import PRUNE_NAME
from train.report_page.export_and_prune_records import SavedRecord, read_record
from train.report_page.run_record import RunRecord, is_run, read_run


@dataclass
class ReportInputs:
    """No two folders have the same name. warnings: what could not be read, in words."""

    runs: list[RunRecord] = field(default_factory=list)
    prunes: list[SavedRecord] = field(default_factory=list)
    exports: list[SavedRecord] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Of all folders; one that holds a plan and an export is named twice."""
        return [one.name for one in self.runs] + [one.name for one in (*self.prunes, *self.exports)]


def read_inputs(folders: Sequence[Path]) -> ReportInputs:
    """Run folders, folders with a prune.json and folders with an export.json, in the order given; the folder that a
    run started from is looked at for its prune.json, too. ModelError for a folder that is none of these."""
    found = ReportInputs()
    for folder in folders:
        settle_if_allowed(folder)
        files = [name for name in (PRUNE_NAME, EXPORT_NAME) if (folder / name).exists()]
        if not folder.is_dir() or not (files or is_run(folder)):
            raise ModelError(
                f"{folder}: neither a run (config.yaml, metrics.jsonl) nor a folder with {PRUNE_NAME} or {EXPORT_NAME}"
            )
        for name in files:
            _add_saved(found, folder, name)
        if is_run(folder) and not _holds(found.runs, folder):
            run = read_run(folder)
            found.runs.append(run)
            origin = Path((run.config.get("model") or {}).get("artifact") or folder)
            if (origin / PRUNE_NAME).exists():
                _add_saved(found, origin, PRUNE_NAME)
    _tell_apart(found)
    return found


def _add_saved(found: ReportInputs, folder: Path, name: str) -> None:
    target = found.prunes if name == PRUNE_NAME else found.exports
    if _holds(target, folder):
        return
    try:
        target.append(read_record(folder, name))
    except ModelError as error:
        found.warnings.append(f"{error}.")


def _holds(target: Sequence[RunRecord | SavedRecord], folder: Path) -> bool:
    return any(one.path.resolve() == folder.resolve() for one in target)


def _tell_apart(found: ReportInputs) -> None:
    """Folders of the same name go by their paths."""
    folders: dict[str, set[Path]] = {}
    named = [(one.name, one.path) for one in found.runs]
    for name, path in named + [(one.name, one.path) for one in (*found.prunes, *found.exports)]:
        folders.setdefault(name, set()).add(path.resolve())
    found.runs = [replace(one, name=str(one.path)) if len(folders[one.name]) > 1 else one for one in found.runs]
    found.prunes, found.exports = (
        [replace(one, name=str(one.path)) if len(folders[one.name]) > 1 else one for one in target]
        for target in (found.prunes, found.exports)
    )
