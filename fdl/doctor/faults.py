"""What must not happen: values that are not finite, and examples that reach each other; and how far batch statistics have drifted."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fdl.doctor.batch import counted_only
from fdl.doctor.signals import squared
from fdl.doctor.watch import Notes, Seen
from fdl.layers.batch_norm.layer import statistics
from fdl.op import accumulator

COUPLING = ("batch_norm", "whiten")  # layers that mix examples by design


def first_not_finite(found: list[tuple[str, Any]], squares: Any) -> tuple[tuple[str, ...], Any]:
    """(places, index): the first of (place, array) that holds NaN or infinity, counted from 1; 0 if none does.

    The order is that of the computation, so what stands before the first is finite: it was born there. squares: a number that
    is not finite if any array is not; while it is, nobody looks.
    """
    floats = [(place, a) for place, a in found if a is not None and jnp.issubdtype(a.dtype, jnp.floating)]
    places = ("", *(place for place, _ in floats))

    def look(arrays):
        bad = jnp.stack([~jnp.all(jnp.isfinite(a)) for a in arrays])
        return jnp.where(jnp.any(bad), 1 + jnp.argmax(bad), 0).astype(jnp.int32)

    arrays = [a for _, a in floats]
    return places, jax.lax.cond(jnp.isfinite(squares), lambda _: jnp.zeros((), jnp.int32), look, arrays)


def leak(notes: Notes, error: Callable, backward: Callable) -> dict[str, Any]:
    """{layer: share of the first example's error that arrives at other examples, born in it}.

    error(): what the loss of example 0 alone sends into the model; backward(dy): through the model, into the notes.
    Of a layer that only hands on what came in mixed, the share is 0.
    """
    backward(error())
    shares = {}
    for name, one in notes.layers.items():
        dtype = accumulator(one.dy.dtype)
        if one.dx is None:
            shares[name] = jnp.full((), jnp.nan, dtype)
            continue
        arrived, total = _of_others(one.dx), squared(one.dx)
        born = (_of_others(one.dy) == 0) & (total > 0)
        shares[name] = jnp.where(
            born, arrived / jnp.where(total > 0, total, jnp.ones_like(total)), jnp.zeros_like(total)
        )
    return shares


def _of_others(error: Any) -> Any:
    return squared(error[1:])


def drift(seen: Seen) -> tuple[Any, Any]:
    """(distance, entries): how far the batch's statistics are from the running ones, and of how many entries they are means.

    The distance is the root mean square over features of the means' difference in running deviations, and of the logarithm of
    the ratio of deviations; NaN for layers without running statistics.
    """
    dtype = accumulator(seen.y.dtype)
    if not {"mean", "var", "weight"} <= set(seen.state):
        return jnp.full((), jnp.nan, dtype), jnp.full((), jnp.nan, dtype)
    mean, var = statistics(seen.state)
    axes = tuple(range(seen.x.ndim - mean.ndim))
    x, mask = seen.x.astype(dtype), seen.walk.mask
    where = None if mask is None else counted_only(mask, jnp.ones(x.shape, bool), False)
    entries = x.size / mean.size if where is None else jnp.sum(where) / mean.size
    batch_mean, batch_var = jnp.mean(x, axis=axes, where=where), jnp.var(x, axis=axes, where=where)
    small = 1e-5
    moved = (batch_mean - mean) ** 2 / (var + small) + (jnp.log((batch_var + small) / (var + small)) / 2) ** 2
    return jnp.sqrt(jnp.mean(moved)), jnp.asarray(entries, dtype)
