"""Training: `fit` runs epochs as compiled scans and returns what it learned and how it went."""

import dataclasses
import functools
import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.backprop import require_loss, require_model, require_penalty
from fdl.errors import refuse, refuse_type, require_array, require_count, require_key, shown
from fdl.layer import Layer, Params, State
from fdl.op import Op
from fdl.train.evaluate import Metric, checked_data, checked_metrics, evaluate
from fdl.train.loop import MOST_EPOCHS, Carry, batches_in, epochs_program
from fdl.train.progress import Progress


@dataclasses.dataclass(frozen=True)
class Result:
    """What `fit` returns. history: one entry per epoch, {"loss", "valid_loss", "valid_accuracy", ...} as numpy arrays."""

    params: Params
    state: State
    history: dict[str, np.ndarray]
    opt_state: Any
    steps: int

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in self.history.items() if len(values))
        return f"Result(steps={self.steps}, {last})"


def fit(
    model: Layer,
    loss: Op | Callable,
    optimizer: Any,
    data: tuple[Any, Any],
    *,
    key: Any,
    valid: tuple[Any, Any] | None = None,
    epochs: int = 10,
    batch_size: int = 128,
    steps: int | None = None,
    penalty: Op | None = None,
    weights: Any = None,
    gradient: str = "manual",
    metrics: tuple[str | Metric, ...] | None = None,
    params: Params | None = None,
    state: State | None = None,
    progress: bool = True,
) -> Result:
    """Trains a model; every epoch is one `lax.scan` inside `jit`, shuffled on the device, and one call runs many epochs.

    data, valid: (x, target) with examples first. optimizer: an optax transformation. key: `jax.random.key(0)`; it decides
    the initial parameters, the order of the examples and every random draw. steps: train for so many instead of `epochs`.
    The last partial batch of an epoch is padded and masked: every example counts once, with equal weight in its batch.
    weights: [N], one per example; what weighs 0 contributes exactly 0. gradient: "manual", or "autodiff" for `jax.grad` of
    the plain equations, which overflow where textbook formulas do (exp of logits above 88 in float32).
    metrics: see `evaluate`; measured on `valid`.
    params, state: where to start, instead of `model.init(key, ...)`.

    The loss in the history is the mean over the epoch, while the parameters move; a loss that is not finite ends the run
    with a warning. Errors: InputError or InputTypeError for data that hold NaN or infinities, unequal numbers of examples,
    a plain function as loss with "manual", sizes below 1.
    """
    require_model("train.fit", model)
    require_loss("train.fit", loss, gradient)
    require_key("train.fit", key, "pass key=jax.random.key(0)")
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        refuse_type(
            "train.fit", f"optimizer is {shown(optimizer)}, wanted an optax transformation such as optax.sgd(0.1)"
        )
    require_penalty("train.fit", penalty)
    x, target = checked_data("train.fit", data)
    if weights is not None:
        require_array("train.fit", "weights", weights)
        if weights.ndim == 0 or weights.shape[0] != x.shape[0]:
            refuse("train.fit", f"weights is {shown(weights)} and x is {shown(x)}: wanted one weight per example")
        weights = jnp.asarray(weights)
    _require_finite("train.fit", x, target, weights)
    if valid is not None:
        valid = checked_data("train.fit(valid)", valid)
        _require_finite("train.fit(valid)", *valid, None)
    measured = tuple(metric for _, metric in checked_metrics("train.fit", metrics, target))
    for name, number in (("epochs", epochs), ("batch_size", batch_size), ("steps", 1 if steps is None else steps)):
        require_count("train.fit", name, number)
    batch_size = min(batch_size, x.shape[0])
    init_key, train_key = jax.random.split(key)
    if params is None:
        spec = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        params, state = model.init(init_key, spec)
    # the loop donates what it starts from: the caller's arrays stay the caller's
    params, state = jax.tree.map(jnp.copy, (params, state or {}))
    carry = Carry(params, state, optimizer.init(params), jnp.zeros((), jnp.int32))

    per_epoch = batches_in(x.shape[0], batch_size)
    total = epochs * per_epoch if steps is None else steps
    program = functools.cache(functools.partial(epochs_program, model, loss, optimizer, penalty, gradient, batch_size))
    history: dict[str, list[float]] = {}
    epoch = done = 0
    pace = _Pace(1 if valid is not None else MOST_EPOCHS)
    with Progress(progress, total) as bar:
        while done < total:
            whole = (total - done) // per_epoch
            now = per_epoch if whole else total - done
            carry, losses, ran = program(now)(
                carry, x, target, weights, train_key, epoch, min(max(whole, 1), pace.epochs)
            )
            losses = np.asarray(losses)[: int(ran)]
            figures = {"loss": losses}
            if valid is not None:
                of_valid = evaluate(model, loss, carry.params, carry.state, valid, metrics=measured)
                figures |= {f"valid_{name}": [figure] for name, figure in of_valid.items()}
            for name, values in figures.items():
                history.setdefault(name, []).extend(map(float, values))
            epoch, done = epoch + len(losses), done + now * len(losses)
            bar.update(epoch, now * len(losses), {name: values[-1] for name, values in history.items()})
            pace.update()
            if not math.isfinite(losses[-1]):
                warnings.warn(
                    f"train.fit: the loss became {losses[-1]} in epoch {epoch} (by step {done}); stopped. Lower the "
                    f"learning rate, or look for a label outside the classes{_OVERFLOW if gradient == 'autodiff' else ''}",
                    RuntimeWarning,
                    stacklevel=2,
                )
                break
    curves = {name: np.asarray(values) for name, values in history.items()}
    return Result(carry.params, carry.state, curves, carry.opt_state, done)


_OVERFLOW = ', or ask for gradient="manual": the plain equations overflow at large logits'


class _Pace:
    """How many epochs to ask of the next call: twice as many until a call takes `_MOMENT`, so that its start costs little
    beside it and the progress display still moves."""

    _MOMENT = 0.1  # seconds

    def __init__(self, most: int):
        self.epochs = 1
        self._most = most
        self._since: float | None = None  # the first call compiles, and tells nothing

    def update(self) -> None:
        """To be called after every call."""
        now = time.perf_counter()
        if self._since is not None and now - self._since < self._MOMENT:
            self.epochs = min(2 * self.epochs, self._most)
        self._since = now


def _require_finite(where: str, x: Any, target: Any, weights: Any) -> None:
    """NaN and infinities in the data are refused before the first step, unless their example weighs 0."""
    for name, array in (("x", x), ("target", target), ("weights", weights)):
        if array is None or not jnp.issubdtype(array.dtype, jnp.inexact):
            continue
        bad, first = _not_finite(array, None if name == "weights" else weights)
        if bad:
            refuse(
                where,
                f"{name} holds NaN or infinity in {int(bad)} example(s), first in {name}[{int(first)}]; "
                "clean the data, or give these examples the weight 0 in training",
            )


@jax.jit
def _not_finite(array, weights):
    """(number, first) of the examples that are not finite and weigh something."""
    bad = ~jnp.isfinite(array).reshape(array.shape[0], -1).all(axis=1)
    if weights is not None:
        bad &= weights.reshape(array.shape[0], -1).any(axis=1)
    return bad.sum(), jnp.argmax(bad)
