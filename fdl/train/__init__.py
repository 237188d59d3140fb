"""Training: the hot loop, evaluation, progress, checkpoints."""

from fdl.train.checkpoint import Checkpoint, CheckpointError, Saved, checkpoints, restore
from fdl.train.early_stopping import EarlyStopping
from fdl.train.evaluate import accuracy, evaluate
from fdl.train.event import Event
from fdl.train.fit import Result, fit
from fdl.train.guard import Divergence

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Divergence",
    "EarlyStopping",
    "Event",
    "Result",
    "Saved",
    "accuracy",
    "checkpoints",
    "evaluate",
    "fit",
    "restore",
]
