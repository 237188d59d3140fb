"""The limits table of a loss of (pred, target) as a test: all its named rows in one call."""

import jax
import jax.numpy as jnp
import numpy as np

INF, NAN = np.inf, np.nan


def assert_rows(loss, rows, *, target_dtype=jnp.float32, rtol=1e-6, **options):
    """rows: {name: (pred, target, value, dpred) or (..., dtarget)}, scalars or vectors of one length; None is not compared.

    The cotangents are random and of both signs. A gradient that is alive has to be alive here, however small: entries are
    compared to `rtol` of themselves, down to the smallest normal number.
    """
    columns = [list(column) for column in zip(*((*row, None)[:5] for row in rows.values()), strict=True)]
    pred, target = jnp.asarray(columns[0], jnp.float32), jnp.asarray(columns[1], target_dtype)
    if pred.ndim == 1:
        pred, target = pred[:, None], target[:, None]
    signs = (-1.0) ** np.arange(len(rows))
    dvalues = (signs * np.random.default_rng(len(rows)).uniform(0.5, 2.0, len(rows))).astype(np.float32)

    @jax.jit
    def both(pred, target, dvalues):
        values, pull = jax.vjp(lambda pred, target: loss(pred, target, **options), pred, target)
        return values, pull(dvalues)

    values, gradients = both(pred, target, jnp.asarray(dvalues))
    gradients = gradients[: 2 if target_dtype == jnp.float32 else 1]
    for i, (name, want) in enumerate(zip(rows, zip(*columns[2:], strict=True), strict=True)):
        got = [values[i], *(np.asarray(x[i]).squeeze() / dvalues[i] for x in gradients)]
        for what, a, b in zip(("value", "dpred", "dtarget"), got, want, strict=False):
            if b is not None:
                np.testing.assert_allclose(a, b, rtol=rtol, atol=2e-38, err_msg=f"{name}: {what}")
