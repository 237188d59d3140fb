"""The comparison with a library itself: outputs and every gradient, on the same weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fdl
from tests.convert.cells import D, I, N, T, close, drawn

STATES = {"gru": ("h",), "lstm": ("h", "c"), "rnn": ("h",)}


def convert(cell: str, *args: Any, **options: Any) -> Any:
    return getattr(fdl.convert, cell)(*args, **options)


def redrawn(weights: Any, dtype: Any) -> Any:
    """Random weights, biases too, in the shapes that a library made."""
    return drawn(jax.tree.map(np.shape, weights), dtype=dtype)


def ours(cell: str, params: Any, x: Any, state: tuple) -> Any:
    """(y, the last state) of fdl's op."""
    options = {"variant": "reset_after" if "b_s" in params else "full"} if cell == "gru" else {}
    y, final = getattr(fdl.ops, cell)(params, x, dict(zip(STATES[cell], state, strict=True)), **options)
    return y, tuple(final[name] for name in STATES[cell])


def assert_alike(cell: str, layout: str, theirs: Any, weights: Any, rtol: float = 1e-12) -> None:
    """theirs(weights, x, state) -> (y, the last state), differentiable by JAX; a state is (h,) or (h, c)."""
    dtype = jax.tree.leaves(weights)[0].dtype
    params = convert(cell, weights, layout, "fdl")
    states = [(N, D)] * len(STATES[cell])
    x, state = drawn((N, T, I), 1, dtype), tuple(drawn(states, 2, dtype))
    dout = drawn((N, T, D), 3, dtype), tuple(drawn(states, 4, dtype))
    as_numpy = lambda tree: jax.tree.map(np.asarray, tree)
    out, pull = jax.vjp(theirs, weights, x, state)
    dweights, *others = as_numpy(pull(jax.tree.map(jnp.asarray, dout)))
    own = jax.tree.map(jnp.asarray, (params, x, state))
    got, pull = jax.vjp(lambda *moving: ours(cell, *moving), *own)
    got_dparams, *got_others = as_numpy(pull(jax.tree.map(jnp.asarray, dout)))
    close((got, *got_others), (out, *others), rtol)
    close(convert(cell, got_dparams, "fdl", layout, gradients=True), dweights, rtol)
    if layout != "nnx" or cell != "gru":
        close(convert(cell, dweights, layout, "fdl", gradients=True), got_dparams, rtol)
