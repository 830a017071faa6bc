"""From photos to a phone in one command: `python -m train.pipeline photos.csv --out phone`."""
