"""How kind is a hold-out? A classifier of `fine` on frozen features, asked about photos held out in three ways.

    PYTHONPATH=. python docs/results/grocery_holdout.py GroceryStoreDataset/dataset docs/results/grocery_holdout.jsonl

The features are those of the packaged EfficientNet-lite0 at 128 pixels; the classifier is a linear layer with a fixed
weight decay. The shares that are drawn have the size of the published val, with five seeds.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from data.images.transform import resize_image
from data.shards.groups import join_units
from data.shards.photo_links import near_duplicate_links
from data.shards.splits import assign_splits
from data.sources import Record, Source, open_source
from models.backbones import create_backbone
from models.preprocessing import Normalise

_SIZE = 128
_SEEDS = 5
_TASK = 2  # fine


def main() -> None:
    folder, lines = sys.argv[1:]
    source = open_source(f"grocery:{folder}")
    records = source.records
    features = dict(zip((record.key for record in records), _features(source), strict=True))
    published = {name: [record for record in records if record.split == name] for name in ("train", "val")}
    fraction = len(published["val"]) / len(records)
    links = near_duplicate_links(source, records, workers=2)
    unit = join_units(len(records), links)
    rows = {"published": [_accuracy(features, published["train"], published["val"])]}
    for name, units in (("drawn", None), ("drawn, near-duplicates together", unit)):
        rows[name] = []
        for seed in range(_SEEDS):
            parts = assign_splits(
                [record._replace(split="") for record in records],
                source.tasks,
                split=None,
                fraction=fraction,
                seed=seed,
                unit=units,
            ).parts
            rows[name].append(_accuracy(features, parts["train"], parts["val"]))
    sizes = np.bincount(unit)
    with Path(lines).open("w") as file:
        for name, top1 in rows.items():
            line = {"unit": name, "top1": [round(100 * value, 2) for value in top1], "photos": len(published["val"])}
            print(f"{name}: fine {100 * np.mean(top1):.1f} % (spread {100 * np.std(top1):.1f}, {len(top1)} draws)")
            file.write(json.dumps(line) + "\n")
    print(f"{sizes[sizes > 1].sum()} of {len(records)} photos have a near-duplicate, in {(sizes > 1).sum()} groups")


def _features(source: Source) -> np.ndarray:
    """float32 [n, features]."""
    backbone = create_backbone("efficientnet_lite0_packaged", pretrained=True, drop_path_rate=0.0)
    network = backbone.module.eval()
    normalise = Normalise(backbone.preprocessing.mean, backbone.preprocessing.std)
    found = []
    with torch.inference_mode():
        for first in range(0, len(source.records), 64):
            part = source.records[first : first + 64]
            images = np.stack([resize_image(source.image_bytes(record), height=_SIZE, width=_SIZE) for record in part])
            maps = network(normalise(torch.from_numpy(images)))
            found.append((maps.mean(dim=(2, 3)) if maps.ndim == 4 else maps).numpy())
    return np.concatenate(found)


def _accuracy(features: dict[str, np.ndarray], train: list[Record], val: list[Record]) -> float:
    """Top-1 on val of a linear classifier that is fitted to train."""

    def tensors(part: list[Record]) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = torch.from_numpy(np.stack([features[record.key] for record in part]))
        return torch.nn.functional.normalize(inputs, dim=1), torch.tensor([record.labels[_TASK] for record in part])

    inputs, labels = tensors(train)
    weights = torch.zeros(int(labels.max()) + 1, inputs.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = 20 * inputs @ weights[:, :-1].T + weights[:, -1]
        value = torch.nn.functional.cross_entropy(logits, labels) + 1e-4 * weights.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    asked, expected = tensors(val)
    answers = (20 * asked @ weights[:, :-1].T + weights[:, -1]).argmax(dim=1)
    return float((answers == expected).double().mean())


if __name__ == "__main__":
    main()
