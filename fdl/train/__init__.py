"""Training: the hot loop, evaluation, progress, checkpoints."""

from fdl.train.checkpoint import Checkpoint, CheckpointError, Saved, checkpoints, restore
from fdl.train.early_stopping import EarlyStopping
from fdl.train.evaluate import accuracy, evaluate
from fdl.train.event import Event
from fdl.train.find_learning_rate import LearningRates, find_learning_rate
from fdl.train.fit import fit
from fdl.train.guard import Divergence
from fdl.train.halving import Halving
from fdl.train.result import Result
from fdl.train.runtime import Tuning, tune_runtime
from fdl.train.sweep import Sweep, sweep
from fdl.train.writers import csv_writer, jsonl_writer, tensorboard_writer

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
    "Tuning",
    "accuracy",
    "checkpoints",
    "csv_writer",
    "evaluate",
    "find_learning_rate",
    "fit",
    "jsonl_writer",
    "restore",
    "sweep",
    "tensorboard_writer",
    "tune_runtime",
]
