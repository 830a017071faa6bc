"""The list of distinct samples that could not be used, agreed by all ranks, and the limit at which the run stops.

bad_samples.add(records, step=17)  # rank 0 writes bad_samples.jsonl
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data.bad_samples import most_allowed
from data.errors import DataError
from data.loading.batch import BadRecord
from train.distributed.comm import Comm
from train.tracking.jsonl import JsonLines, read_lines

_SHOWN = 20


class BadSampleLog:
    """Counts a sample once, however often it is met. Every rank holds the same list.

    path: where rank 0 writes, None for nowhere; num_samples: of the training index.
    """

    def __init__(self, path: Path | None, comm: Comm, *, num_samples: int, max_share: float) -> None:
        self.limit = most_allowed(num_samples, max_share)
        self.path, self._comm = path, comm
        self._seen = {
            (line["split"], line["shard"], line["key"]): line["reason"] for line in (read_lines(path) if path else [])
        }
        self._lines = JsonLines(path, sync=True) if path is not None and comm.rank == 0 else None
        self._unsaid: Counter[str] = Counter()  # split -> new samples that the console has not heard of

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, records: Sequence[Sequence[str]], *, step: int) -> None:
        """records: (split, shard, key, reason) of all ranks. Raises DataError with the list above the limit."""
        for split, shard, key, reason in records:
            if (split, shard, key) in self._seen:
                continue
            self._seen[(split, shard, key)] = reason
            self._unsaid[split] += 1
            if self._lines is not None:
                self._lines.write({"step": step, "split": split, "shard": shard, "key": key, "reason": reason})
        if len(self._seen) > self.limit:
            listed = "\n".join(
                f"  {split}/{shard} {key}: {reason}"
                for (split, shard, key), reason in list(self._seen.items())[:_SHOWN]
            )
            raise DataError(
                f"{len(self._seen)} bad samples are more than the {self.limit} that data.max_bad_share allows "
                f"(all of them: {self.path}):\n{listed}"
            )

    def add_of_all_ranks(self, split: str, records: Sequence[BadRecord], *, step: int) -> None:
        """records: of this rank. All ranks call it at the same step and tell each other theirs. Raises DataError."""
        mine = [[split, record.shard, record.key, record.reason] for record in records]
        ranks = self._comm.allgather_object(mine, name=f"bad.{split}")
        self.add([record for rank in ranks for record in rank], step=step)

    def print_new(self, when: str) -> None:
        """Rank 0 says what is new since the last time, if anything is."""
        counted = ", ".join(f"{count} of {split}" for split, count in sorted(self._unsaid.items()))
        self._unsaid.clear()
        if counted and self._comm.rank == 0:
            print(
                f"{when} samples that cannot be used: {counted} new, {len(self)} in all, listed in {self.path}",
                flush=True,
            )
