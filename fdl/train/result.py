"""What a training returns."""

import dataclasses
from typing import Any

import numpy as np

from fdl.layer import Params, State
from fdl.train.guard import Divergence
from fdl.train.run import Run


@dataclasses.dataclass(frozen=True)
class Result:
    """What `fit` returns. history: one entry per epoch, {"loss", "valid_loss", "valid_accuracy", ...} as numpy arrays.

    divergence: None, or where the run stopped being finite; params, state and opt_state are then the last finite ones.
    best_epoch: from 1, where early stopping returned an earlier epoch's parameters. charts, findings: of `fit(doctor=n)`.

        >>> x, y = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
        >>> mse, sgd = fdl.losses.mean_squared_error, optax.sgd(0.1)
        >>> result = fdl.train.fit(fdl.dense(2), mse, sgd, (x, y), key=jax.random.key(0), epochs=3, progress=False)
        >>> result.params["w"].shape, sorted(result.history)
        ((3, 2), ['loss'])
    """

    params: Params
    state: State
    history: dict[str, np.ndarray]
    opt_state: Any
    steps: int
    divergence: Divergence | None = None
    best_epoch: int | None = None
    charts: Any = dataclasses.field(default=None, repr=False)
    findings: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        numbers = {name: values for name, values in self.history.items() if len(values) and values.dtype.kind == "f"}
        last = "".join(f", {name} {values[-1]:.4g}" for name, values in numbers.items())
        return f"Result(steps={self.steps}{last}{f', diverged: {self.divergence}' if self.divergence else ''})"


def result_of(run: Run, unfinished: dict[str, Any] | None, restore_best: bool) -> Result:
    """unfinished: the figures of a last epoch that did not end."""
    params, state, opt_state, _ = run.placement.local(run.carry)
    if run.marks is not None:
        opt_state = opt_state.inner
    best_epoch = None
    if restore_best and run.best is not None and run.best.epoch:
        (params, state), best_epoch = run.placement.local(run.best_arrays), run.best.epoch
    rows = [dict(row) for row in run.epochs]
    if run.divergence is not None:
        rows.append({"loss": run.bad_loss})
    elif unfinished is not None:
        rows.append(unfinished)
    names = list(dict.fromkeys(name for row in rows for name in row))
    history = {name: np.asarray([row[name] for row in rows if name in row]) for name in names}
    charts, findings = None, ()
    if run.watch is not None:
        charts, findings = run.watch.charts, run.watch.findings(history)
        history |= run.watch.series(run.source.per_epoch, len(rows))
    return Result(params, state, history, opt_state, run.position, run.divergence, best_epoch, charts, findings)
