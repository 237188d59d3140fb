"""`fit(doctor=n)`: every n-th step is taken by `fdl.doctor.examine_step`, which charts the batch on the way.

The examined step computes the same gradient and the same update; only what is cheap beside a step is charted (percentiles of a small
sample; no gradient noise, singular values or leaks between examples, for which `fdl.doctor.examine` is there). The charts stay on
the device until the call of the loop ends.
"""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fdl.backprop import value_and_grad
from fdl.train.loop import Probe
from fdl.train.step import Carry

SAMPLE = 128  # entries for percentiles: sorting 1024 of them took longer than a step of a small network
KEPT = 256  # charts, evenly spaced, that a run hands on
JUDGED = 64  # of them, evenly spaced, that the findings at the end look at
RECENT = 16  # charts that the finding shown on the way looks at


def probe_of(recipe: Any, every: int) -> Probe:
    """The probe of a run's recipe."""
    import optax

    from fdl.doctor.examine import examine_step

    examine: Any = examine_step
    asks_for_more = isinstance(recipe.optimizer, optax.GradientTransformationExtraArgs)
    gradients = value_and_grad(recipe.model, recipe.loss, recipe.penalty)

    def step(carry: Carry, x, target, mask, weights, key, previous):
        noise = jax.random.fold_in(key, carry.step) if recipe.model.stochastic else None
        batch = (carry.state, x, target, noise, mask, weights)
        optimizer = _Stepper(recipe, (lambda params: gradients(params, *batch)[0][0]) if asks_for_more else None)
        chart, (value, state), grads, (updates, opt_state) = examine(
            *(recipe.model, recipe.loss, carry.params, carry.state, x, target, noise, optimizer, carry.opt_state),
            **{"mask": mask, "weights": weights, "step": carry.step, "previous": previous},
            **{"sample": SAMPLE, "noise": None, "spectrum": 0, "leak": False},
        )
        if recipe.penalty is not None:
            value = value + recipe.penalty(carry.params).astype(value.dtype)
        params: Any = optax.apply_updates(carry.params, updates)
        return Carry(params, state, opt_state, carry.step + 1), value, chart, grads

    return Probe(every, step)


class _Stepper:
    """An optimizer that sees the gradient of loss and penalty together and, if it asks for more, what `make_step` gives it."""

    def __init__(self, recipe: Any, value_fn: Callable | None):
        self._optimizer, self._penalty, self._value_fn = recipe.optimizer, recipe.penalty, value_fn

    def update(self, grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        if self._penalty is not None:
            cost, kept = self._penalty.recorded(params)
            (dparams,) = self._penalty.backward(kept, jax.numpy.ones_like(cost))
            grads = jax.tree.map(jax.numpy.add, grads, dparams)
        if self._value_fn is None:
            return self._optimizer.update(grads, state, params)
        return self._optimizer.update(
            grads, state, params, value=self._value_fn(params), grad=grads, value_fn=self._value_fn
        )


class Watch:
    """The charts of a run so far, thinned out where they become many, and what they say.

    charts: stacked, of numpy arrays; None before the first.
    """

    def __init__(self, every: int):
        self.every = every
        self.charts: Any = None
        self._stride = 1  # every so many-th examined step is kept

    def add(self, seen: Any, first: int, last: int) -> None:
        """What the probe saw in the steps first .. last-1."""
        count = len(range(first + -first % self.every, last, self.every))
        new = jax.tree.map(lambda a: np.asarray(a)[:count], seen)
        if self.charts is None or not len(self.charts.step):
            self.charts = new
        else:
            self.charts = jax.tree.map(lambda *a: np.concatenate(a), self.charts, new)
        self._thin_out()
        while len(self.charts.step) > KEPT:
            self._stride *= 2
            self._thin_out()

    def _thin_out(self) -> None:
        self._keep(self.charts.step % (self.every * self._stride) == 0)

    def _keep(self, which: Any) -> None:
        if not which.all():
            self.charts = jax.tree.map(lambda a: a[which], self.charts)

    def record(self, folder: Any, epochs: list[dict[str, float]]) -> None:
        """The charts so far, beside the checkpoint: a run that is killed, or goes on another day, keeps them."""
        from fdl.doctor.record import save

        if self.charts is not None and len(self.charts.step):
            names = dict.fromkeys(name for row in epochs for name in row)
            save(folder, self.charts, {name: [row[name] for row in epochs if name in row] for name in names})

    def recall(self, folder: Any, step: int) -> None:
        """The charts that the folder's record has of the steps before this one; none if it has no record that can be read."""
        from fdl.doctor.record import load
        from fdl.errors import DataError

        try:
            charts = load(folder).charts
        except DataError as error:
            warnings.warn(f"train.fit: the earlier charts are lost: {error}", RuntimeWarning, stacklevel=4)
            return
        self.charts = charts
        self._keep((charts.step >= 0) & (charts.step < step) & (charts.step % self.every == 0))

    def forget_from(self, step: int) -> None:
        """The run went back to this step."""
        if self.charts is not None:
            self._keep(self.charts.step < step)

    def worst(self) -> str:
        """The first finding of the last few charts: its code, and its layer if it has one."""
        from fdl.doctor.diagnose import diagnose

        if self.charts is None or not len(self.charts.step):
            return ""
        first = diagnose(jax.tree.map(lambda a: a[-RECENT:], self.charts))[0]
        return f"{first.code} in {first.layer}" if first.layer else first.code

    def series(self, per_epoch: int, epochs: int) -> dict[str, np.ndarray]:
        """[epochs] each, the mean over an epoch's charts, NaN where there is none: error_ratio, the size of the error at the first
        layer with weights over that at the last; update_ratio, the median over weights of ||update|| / ||weight||; saturated, the
        share of flat entries in the worst layer; dead, the share of units that are kept from learning."""
        from fdl.doctor.chart import ALIVE

        charts = self.charts
        if charts is None or not len(charts.step):
            return {}
        weights = ~np.isnan(charts.weight_spread[0])
        owners = {
            name.rpartition("/")[0] for name, is_weight in zip(charts.parameters, weights, strict=True) if is_weight
        }
        weighted = [place for place, name in enumerate(charts.names) if name in owners] or [0]
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of layers that have no such number
            found = {
                "error_ratio": charts.error[:, weighted[0]] / charts.error[:, weighted[-1]],
                "update_ratio": np.nanmedian(charts.update_ratio[:, weights], axis=1),
                "saturated": np.nanmax(charts.saturated, axis=1),
            }
            if charts.units:
                units = np.concatenate(list(charts.units.values()), axis=1)
                found["dead"] = np.mean(units != ALIVE, axis=1)
            place = charts.step // per_epoch
            means = {name: [np.nanmean(v[place == e]) for e in range(epochs)] for name, v in found.items()}
        return {name: np.asarray(values, np.float64) for name, values in means.items()}

    def findings(self, history: dict[str, Any]) -> tuple[Any, ...]:
        from fdl.doctor.diagnose import diagnose

        if self.charts is None or not len(self.charts.step):
            return ()
        apart = -(-len(self.charts.step) // JUDGED)
        return tuple(diagnose(jax.tree.map(lambda a: a[::apart], self.charts), history))
