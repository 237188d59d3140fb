"""Early stopping: a run ends when a figure has not improved for so many epochs, and returns its best epoch.

Source: L. Prechelt, "Early stopping - but when?", 1998.
"""

import dataclasses
import math
from typing import Any

from fdl.errors import refuse, refuse_type, require_bool, require_count, require_number, shown

_HIGHER_IS_BETTER = ("accuracy", "auc", "precision", "recall", "f1")


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Stop after `patience` epochs without an improvement of more than `min_delta`.

    monitor: a figure of the history. mode: "min" or "max"; by default "max" for names that end in accuracy, auc, precision,
    recall or f1. restore_best: return the parameters and the state of the best epoch rather than those of the last.

        >>> fdl.train.EarlyStopping(5, monitor="valid_accuracy").patience  # for fit(early_stopping=...)
        5
    """

    patience: int
    monitor: str = "valid_loss"
    min_delta: float = 0.0
    mode: str | None = None
    restore_best: bool = True

    def __post_init__(self) -> None:
        require_count("train.EarlyStopping", "patience", self.patience)
        remedy = "it is the least change that counts as an improvement"
        require_number("train.EarlyStopping", "min_delta", self.min_delta, 0, math.inf, remedy=remedy)
        require_bool("train.EarlyStopping", "restore_best", self.restore_best)
        if self.mode not in (None, "min", "max"):
            refuse("train.EarlyStopping", f'mode is {self.mode!r}, wanted "min", "max" or None')

    @property
    def monitored(self) -> str:
        """As the message of a run that cannot be continued shows it."""
        return f"the {'lowest' if self.sign == 1 else 'highest'} {self.monitor}"

    @property
    def sign(self) -> int:
        """1 where smaller is better, -1 where larger is."""
        mode = self.mode or ("max" if self.monitor.endswith(_HIGHER_IS_BETTER) else "min")
        return 1 if mode == "min" else -1


def checked_early_stopping(where: str, given: Any) -> EarlyStopping | None:
    """A number stands for the patience."""
    if given is None or isinstance(given, EarlyStopping):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return EarlyStopping(given)
    refuse_type(where, f"early_stopping is {shown(given)}, wanted a patience in epochs or a train.EarlyStopping")


@dataclasses.dataclass
class Best:
    """The best epoch so far, as numbers; `fit` keeps its parameters beside it."""

    rule: EarlyStopping
    value: float = math.inf  # times the rule's sign
    epoch: int = 0
    waited: int = 0

    def update(self, where: str, epoch: int, figures: dict[str, float]) -> bool:
        """Whether this epoch is the best so far. NaN never is."""
        if self.rule.monitor not in figures:
            refuse(where, f"early_stopping monitors {self.rule.monitor!r}, the figures are {sorted(figures)}")
        value = self.rule.sign * figures[self.rule.monitor]
        better = value < self.value - self.rule.min_delta if math.isfinite(self.value) else value < self.value
        if better:
            self.value, self.epoch, self.waited = value, epoch, 0
        else:
            self.waited += 1
        return better

    @property
    def exhausted(self) -> bool:
        return self.waited >= self.rule.patience
