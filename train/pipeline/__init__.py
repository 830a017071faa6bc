"""From photos to a phone in one command: `python -m train.pipeline photos.csv --out phone`.

train.suspects, which trains a config once for each fold, takes the stages of that from here.
"""

from train.pipeline.folds import Fold, FoldPlan, check_plan, train_folds
from train.pipeline.workshop import StageFailed

__all__ = ["Fold", "FoldPlan", "StageFailed", "check_plan", "train_folds"]
