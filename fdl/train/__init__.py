"""Training: many steps in one compiled program, many trainings at once, and no run lost.

| file                              | what                                                                              |
|-----------------------------------|-----------------------------------------------------------------------------------|
| fit.py                            | `fit`: the door, and what happens around the calls of the loop                     |
| step.py, loop.py, shuffle.py      | one step; the compiled loop over steps; the order of the examples                  |
| run.py, source.py, guard.py       | a run between two calls; where its batches come from; where it stops being finite  |
| keeper.py, checkpoint/            | when a run is saved, and what is written                                           |
| sweep.py, grid.py, team.py, heat.py, halving.py | many members at once                                                 |
| placement.py, precision.py        | meshes; 16 bits                                                                    |
| early_stopping.py, watching.py, progress.py, event.py, writers.py, result.py | what is decided, shown, told and returned |
| evaluate.py, find_learning_rate.py, runtime.py | beside a training                                                     |
"""

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
