"""Training: the hot loop, evaluation, progress."""

from fdl.train.evaluate import accuracy, evaluate
from fdl.train.fit import Result, fit

__all__ = ["Result", "accuracy", "evaluate", "fit"]
