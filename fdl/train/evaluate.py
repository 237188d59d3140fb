"""A model's loss and metrics on a data set, in batches, without training."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fdl.backprop import require_loss, require_model
from fdl.errors import refuse, refuse_type, require_array, require_count, shown
from fdl.layer import Layer
from fdl.losses.mean import mean
from fdl.losses.softmax_cross_entropy_with_integer_labels import indices
from fdl.op import Op

Metric = Callable[[Any, Any], Any]


def accuracy(pred: Any, target: Any) -> jax.Array:
    """1 where the largest output is the label (or the largest entry of a target distribution), else 0: one per example.

    NaN where an output is NaN, or the label no class.

        >>> fdl.train.accuracy(jnp.float32([[2, 1], [0, 3]]), jnp.int32([0, 0]))
        Array([1., 0.], dtype=float32)
    """
    labels = target if jnp.issubdtype(target.dtype, jnp.integer) else jnp.argmax(target, axis=-1)
    right = (jnp.argmax(pred, axis=-1).astype(labels.dtype) == labels).astype(jnp.float32)
    unknown = jnp.isnan(pred).any(axis=-1) | (labels < 0) | (indices(labels) >= pred.shape[-1])
    return jnp.where(unknown, jnp.full_like(right, jnp.nan), right)


_METRICS: dict[str, Metric] = {"accuracy": accuracy}


def evaluate(
    model: Layer,
    loss: Op | Callable,
    params: Any,
    state: Any,
    data: tuple[Any, Any],
    *,
    metrics: tuple[str | Metric, ...] | None = None,
    batch_size: int = 1024,
) -> dict[str, jax.Array]:
    """{"loss": mean loss, metric: mean, ...} of the model in use (train=False).

    metrics: names ("accuracy") or functions (pred, target) -> one value per example; by default accuracy where the target
    is integer labels, else none. Errors: InputError for unequal numbers of examples, an empty set, an unknown metric.

        >>> model, loss = fdl.dense(2), fdl.losses.softmax_cross_entropy_with_integer_labels
        >>> params, state = model.init(jax.random.key(0), (3,))
        >>> data = np.ones((4, 3), np.float32), np.asarray([0, 1, 0, 1], np.int32)
        >>> float(fdl.train.evaluate(model, loss, params, state, data)["accuracy"])
        0.5
    """
    require_model("train.evaluate", model)
    require_loss("train.evaluate", loss, "autodiff")
    x, target = checked_data("train.evaluate", data)
    require_count("train.evaluate", "batch_size", batch_size)
    return _program(model, loss, checked_metrics("train.evaluate", metrics, target), batch_size)(
        params, state, x, target
    )


@functools.lru_cache(maxsize=64)
def _program(model: Layer, loss: Op | Callable, metrics: tuple[tuple[str, Metric], ...], batch_size: int) -> Callable:
    return jax.jit(measure(model, loss, metrics, batch_size))


def measure(model: Layer, loss: Op | Callable, metrics: tuple[tuple[str, Metric], ...], batch_size: int) -> Callable:
    """(params, state, x, target) -> figures, not compiled."""

    def batch(params, state, x, target):
        pred, _ = model.apply(params, state, x)
        found = {"loss": loss(pred, target), **{name: metric(pred, target) for name, metric in metrics}}
        for name, values in found.items():
            if jnp.shape(values)[:1] != x.shape[:1]:
                refuse(
                    "train.evaluate",
                    f"{name} is {shown(jnp.asarray(values))} for {x.shape[0]} examples, wanted one value for each",
                )
        return found

    def figures(params, state, x, target):
        full, rest = divmod(x.shape[0], batch_size)
        parts = []
        if full:
            head = jax.tree.map(lambda a: a[: full * batch_size].reshape(full, batch_size, *a.shape[1:]), (x, target))
            parts.append(jax.lax.map(lambda arrays: batch(params, state, *arrays), head))
        if rest:
            parts.append(batch(params, state, x[full * batch_size :], target[full * batch_size :]))
        joined = jax.tree.map(lambda *values: jnp.concatenate([value.reshape(-1) for value in values]), *parts)
        return {name: mean.forward(value)[0] for name, value in joined.items()}

    return figures


def checked_data(where: str, data: Any) -> tuple[jax.Array, jax.Array]:
    if not isinstance(data, tuple | list) or len(data) != 2:
        refuse_type(where, f"data is {shown(data)}, wanted a pair (x, target)")
    for name, array in zip(("x", "target"), data, strict=True):
        require_array(where, name, array)
    x, target = data
    if x.ndim == 0 or target.ndim == 0 or x.shape[0] != target.shape[0]:
        refuse(where, f"x is {shown(x)} and target is {shown(target)}: wanted the same number of examples")
    if x.shape[0] == 0:
        refuse(where, f"x is {shown(x)}: no examples")
    return _on_device(where, "x", x), _on_device(where, "target", target)


def _on_device(where: str, name: str, array: Any) -> jax.Array:
    if array.dtype != bool and not jnp.issubdtype(array.dtype, jnp.number):
        refuse_type(where, f"{name} is {shown(array)}, wanted numbers")
    narrow = jax.dtypes.canonicalize_dtype(array.dtype)
    is_cut = jnp.issubdtype(array.dtype, jnp.integer) and narrow != array.dtype
    if is_cut and (array.min() < jnp.iinfo(narrow).min or array.max() > jnp.iinfo(narrow).max):
        refuse(
            where,
            f"{name} is {shown(array)} with numbers that {narrow} cannot hold; enable jax_enable_x64, or renumber",
        )
    return jnp.asarray(array)


def checked_metrics(where: str, metrics: Any, target: Any) -> tuple[tuple[str, Metric], ...]:
    if metrics is None:
        metrics = ("accuracy",) if jnp.issubdtype(target.dtype, jnp.integer) else ()
    if isinstance(metrics, str) or callable(metrics):
        metrics = (metrics,)
    if not isinstance(metrics, tuple | list):
        refuse_type(where, f"metrics is {shown(metrics)}, wanted a tuple of names and functions")
    named = []
    for metric in metrics:
        if isinstance(metric, str) and metric in _METRICS:
            named.append((metric, _METRICS[metric]))
        elif callable(metric):
            named.append((getattr(metric, "__name__", type(metric).__name__), metric))
        else:
            refuse(
                where,
                f"unknown metric {metric!r}; there are {list(_METRICS)}, or pass a function (pred, target) -> values",
            )
    names = ["loss", *(name for name, _ in named)]
    for name in names:
        if names.count(name) > 1:
            refuse(where, f"two figures are called {name!r}; give the metric's function another __name__")
    return tuple(named)
