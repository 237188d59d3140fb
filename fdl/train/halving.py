"""Successive halving: the worse members of a sweep are stopped early. Source: Jamieson & Talwalkar 2016."""

import dataclasses
import math

import numpy as np

from fdl.errors import refuse, require_count


@dataclasses.dataclass(frozen=True)
class Halving:
    """Successive halving: after so many epochs, and again after every so many, only the better share goes on.

    keep: which share. monitor: the figure that decides, by default the validation loss, or the loss without `valid`; the smaller
    the better, but for names that end in accuracy. Members that differ in what shapes their program (see `fdl.train.grid`) are trained
    group after group, and each group is halved by itself.

        >>> fdl.train.Halving(2).keep  # for sweep(halving=...): every two epochs the better half goes on
        0.5
    """

    every: int
    keep: float = 0.5
    monitor: str | None = None

    def __post_init__(self) -> None:
        require_count("train.Halving", "every", self.every)
        if not isinstance(self.keep, int | float) or not 0 < self.keep < 1:
            refuse("train.Halving", f"keep is {self.keep!r}, wanted a share between 0 and 1")

    def survivors(self, histories: dict[str, np.ndarray], alive: np.ndarray, epoch: int) -> list[int]:
        """The places of the members that go on, in their order."""
        monitor = self.monitor or ("valid_loss" if "valid_loss" in histories else "loss")
        if monitor not in histories:
            refuse("train.sweep", f"halving monitors {monitor!r}, the figures are {sorted(histories)}")
        values = histories[monitor][alive, epoch] * (-1 if monitor.endswith("accuracy") else 1)
        order = np.argsort(np.where(np.isnan(values), np.inf, values), kind="stable")
        return sorted(int(place) for place in order[: max(1, math.ceil(len(alive) * self.keep))])
