"""Training: the hot loop, evaluation, progress, checkpoints."""

from fdl.train.checkpoint import Checkpoint, CheckpointError, Saved, checkpoints, restore
from fdl.train.early_stopping import EarlyStopping
from fdl.train.evaluate import accuracy, evaluate
from fdl.train.event import Event
from fdl.train.find_learning_rate import LearningRates, find_learning_rate
from fdl.train.fit import Result, fit
from fdl.train.guard import Divergence
from fdl.train.halving import Halving
from fdl.train.sweep import Sweep, sweep

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Divergence",
    "EarlyStopping",
    "Event",
    "Halving",
    "LearningRates",
    "Result",
    "Saved",
    "Sweep",
    "accuracy",
    "checkpoints",
    "evaluate",
    "find_learning_rate",
    "fit",
    "restore",
    "sweep",
]
