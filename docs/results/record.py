"""A finished unit of an experiment as one JSON line: what came out, and which photos it has right.

    PYTHONPATH=. python docs/results/record.py LINES.jsonl UNIT MODEL DATA

The line holds all that a paired comparison needs (paired.py), so that neither the model nor the photos have to be kept.
The model is asked in fp32.
"""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import torch

from data.index import load_index
from models.artifact import load_artifact_meta
from train.report_page.predictions import collect_predictions


def main() -> None:
    lines, unit, model, data = sys.argv[1:]
    index = load_index(data)
    answers, refused = collect_predictions({unit: Path(model)}, data, most=index.num_samples, workers=1)
    if refused:
        sys.exit(f"{model}: {refused[unit]}")
    meta = load_artifact_meta(model)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    line = {
        "unit": unit,
        "top1": {task: round(100 * share, 2) for task, share in answers[unit].top1.items()},
        "photos": answers[unit].num_images,
        "data": index.fingerprint,
        "step": meta.provenance.get("step"),
        "weights": meta.sha256,
        "commit": commit.stdout.strip(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
        "right": {task: np.packbits(one.correct).tobytes().hex() for task, one in answers[unit].tasks.items()},
        "labelled": {task: len(one.true) for task, one in answers[unit].tasks.items()},
    }
    with Path(lines).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
