"""A limits table as a test: value and gradients at its inputs, eager and compiled; and second derivatives at single points."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

INF, NAN = np.inf, np.nan


def assert_limits(loss, *rows, rtol=1e-6, names=None):
    """rows: (the arguments of one example, its loss, a gradient or None per argument); a number stands for one output.

    float32, cotangents of both signs. Entries are compared to `rtol` of themselves or, if smaller than that, of the largest
    of their array; a loss of None is not compared.
    """
    columns = [np.stack([_one(row[0][i]) for row in rows]) for i in range(len(rows[0][0]))]
    args = tuple(map(jnp.asarray, columns))
    signs = (-1.0) ** np.arange(len(rows))
    dvalues = (signs * np.random.default_rng(len(rows)).uniform(0.5, 1.0, len(rows))).astype(np.float32)  # 3e38: finite
    for call in (loss, jax.jit(loss)):
        values, pull = jax.vjp(call, *args)
        gradients = [dx if dx.dtype == jax.dtypes.float0 else _shares(dx, dvalues) for dx in pull(jnp.asarray(dvalues))]
        for i, (given, value, wanted) in enumerate(rows):
            about = f"{loss} at {names[i] if names else given}"
            if value is not None:
                np.testing.assert_allclose(values[i], np.float32(value), rtol=rtol, err_msg=about)
            for x, dx, want in zip(args, gradients, wanted, strict=True):
                if want is None:
                    continue
                assert dx.dtype == x.dtype == jnp.float32 and dx.shape == x.shape
                want = np.broadcast_to(_one(want), x.shape[1:])
                largest = np.abs(want[np.isfinite(want)]).max(initial=0)
                np.testing.assert_allclose(dx[i], want, rtol=rtol, atol=rtol * largest, err_msg=about)


def assert_rows(loss, rows, *, target_dtype=jnp.float32, rtol=1e-6, **options):
    """The same of a loss of (pred, target). rows: {name: (pred, target, value, dpred) or (..., dtarget)}."""
    labels = jnp.issubdtype(target_dtype, jnp.integer)
    limits = []
    for pred, target, value, *gradients in rows.values():
        dpred, dtarget = (*gradients, None)[:2]
        limits.append(((pred, jnp.asarray(target, target_dtype) if labels else target), value, (dpred, dtarget)))
    assert_limits(functools.partial(loss, **options), *limits, rtol=rtol, names=list(rows))


def _shares(dx, dvalues):
    """What each unit of a row's cotangent has become."""
    return np.asarray(dx) / dvalues.reshape(-1, *[1] * (dx.ndim - 1))


def _one(x):
    """An argument of one example: numbers are its outputs in float32, arrays are left as they are."""
    if isinstance(x, jax.Array):
        return np.asarray(x)
    with np.errstate(over="ignore"):
        return np.atleast_1d(np.asarray(x, np.float64).astype(np.float32))


def second_derivatives(loss, preds, targets):
    """By pred, one per pair of numbers, in float64."""
    preds, targets = (jnp.asarray(x, jnp.float64)[:, None] for x in (preds, targets))
    slope = jax.grad(lambda preds: loss(preds, targets).sum())
    return np.asarray(jax.jvp(slope, (preds,), (jnp.ones_like(preds),))[1])[:, 0]
