"""The training of one group of a sweep's members, from the first step to the last: their histories, and who goes on."""

import math
from collections.abc import Callable

import numpy as np

from fdl.train.halving import Halving
from fdl.train.loop import batches_in, examples_in
from fdl.train.result import Result
from fdl.train.run import Pace
from fdl.train.step import Carry
from fdl.train.team import Team


class Heat:
    """position: steps taken. histories: {figure: [M, epochs]}, NaN where a member was not trained."""

    def __init__(
        self, team: Team, examples: int, batch_size: int, total: int, validates: bool, halving: Halving | None
    ):
        self._team, self._total, self._validates, self._halving = team, total, validates, halving
        self._examples, self._batch_size = examples, batch_size
        self._per_epoch = batches_in(examples, batch_size)
        size = len(team)
        self.position = 0
        self.histories: dict[str, np.ndarray] = {}
        self._alive = np.arange(size)
        self._trained = np.zeros(size, int)  # epochs
        self._stopped: dict[int, Carry] = {}
        self._sums, self._weight = np.zeros(size), 0.0

    @property
    def epoch(self) -> int:
        """How many were begun."""
        return math.ceil(self.position / self._per_epoch)

    def run(self, report: Callable[["Heat"], None]) -> None:
        by_epoch = self._validates or self._halving is not None
        pace = Pace(min(self._per_epoch, 64))
        while self.position < self._total:
            last = min(self._total, self.position + min(pace.steps, self._team.most))
            if by_epoch:
                last = min(last, (self.position // self._per_epoch + 1) * self._per_epoch)
            losses = self._team.advance(self.position, last)  # [M, steps]
            pace.update(last - self.position)
            self._count(losses)
            self.position = last
            self._trained[self._alive] = self.epoch
            ended = last % self._per_epoch == 0 or last == self._total
            if self._validates and ended:
                for name, values in self._team.figures().items():
                    self._note(f"valid_{name}", self.epoch - 1, values)
            report(self)
            if ended and self._halving is not None and last < self._total and self.epoch % self._halving.every == 0:
                self._halve(self._halving)

    def _count(self, losses: np.ndarray) -> None:
        """Adds the steps to their epochs."""
        position = self.position
        while losses.shape[1]:
            here = min(losses.shape[1], self._per_epoch - position % self._per_epoch)
            counts = examples_in(self._examples, self._batch_size, position, position + here).astype(np.float64)
            with np.errstate(invalid="ignore", over="ignore"):
                self._sums[self._alive] += losses[:, :here].astype(np.float64) @ counts
            self._weight += counts.sum()
            position, losses = position + here, losses[:, here:]
            if position % self._per_epoch == 0 or position == self._total:
                self._note("loss", (position - 1) // self._per_epoch, self._sums[self._alive] / self._weight)
                self._sums[:], self._weight = 0.0, 0.0

    def _note(self, name: str, epoch: int, values: np.ndarray) -> None:
        shape = (len(self._trained), math.ceil(self._total / self._per_epoch))
        self.histories.setdefault(name, np.full(shape, np.nan))[self._alive, epoch] = values

    def _halve(self, halving: Halving) -> None:
        places = halving.survivors(self.histories, self._alive, self.epoch - 1)
        carries = self._team.results()
        for place in set(range(len(self._alive))) - set(places):
            self._stopped[int(self._alive[place])] = carries[place]
        self._team.keep(places)
        self._alive = self._alive[places]

    def best_figures(self) -> dict[str, float]:
        """The best of every figure in the last epoch that ended."""
        found = {}
        for name, values in self.histories.items():
            there = values[:, self.epoch - 1]
            there = there[~np.isnan(there)]
            if len(there):
                found[f"best {name}"] = float(there.max() if name.endswith("accuracy") else there.min())
        return found

    def results(self) -> list[Result]:
        """Every member as `fit` would have returned it."""
        carries = self._stopped | dict(zip(map(int, self._alive), self._team.results(), strict=True))
        found = []
        for number, epochs in enumerate(self._trained):
            params, state, opt_state, step = carries[number]
            history = {name: values[number, :epochs] for name, values in self.histories.items()}
            found.append(Result(params, state, history, opt_state, int(step)))
        return found
