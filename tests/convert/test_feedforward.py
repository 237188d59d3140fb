"""Weights of dense, convolution, embedding and normalization between layouts: fdl's own results from each library's arrays."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.convert import feedforward
from fdl.errors import InputError, InputTypeError
from tests.convert.cells import drawn

TABLES = {
    "dense": (feedforward.DENSE, {"w": (5, 3), "b": (3,)}),
    "conv": (feedforward.CONV, {"w": (2, 4, 5, 3), "b": (3,)}),
    "embedding": (feedforward.EMBEDDING, {"w": (7, 3)}),
    "layer_norm": (feedforward.NORM, {"scale": (5, 3), "shift": (5, 3)}),
    "group_norm": (feedforward.NORM, {"scale": (3,), "shift": (3,)}),
    "rms_norm": (feedforward.NORM, {"scale": (3,)}),
}
# as the libraries have them; what is not here is as in fdl
SHAPES = {
    ("dense", "torch"): {"weight": (3, 5), "bias": (3,)},
    ("dense", "equinox"): {"weight": (3, 5), "bias": (3,)},
    ("dense", "keras"): [(5, 3), (3,)],
    ("dense", "flax"): {"kernel": (5, 3), "bias": (3,)},
    ("conv", "torch"): {"weight": (3, 5, 2, 4), "bias": (3,)},
    ("conv", "equinox"): {"weight": (3, 5, 2, 4), "bias": (3, 1, 1)},
    ("conv", "keras"): [(2, 4, 5, 3), (3,)],
    ("embedding", "keras"): [(7, 3)],
    ("embedding", "nnx"): {"embedding": (7, 3)},
    ("layer_norm", "torch"): {"weight": (5, 3), "bias": (5, 3)},
    ("group_norm", "flax"): {"scale": (3,), "bias": (3,)},
    ("rms_norm", "keras"): [(3,)],
    ("rms_norm", "equinox"): {"weight": (3,)},
}


@pytest.mark.parametrize("layer", TABLES)
def test_every_pair_there_and_back(layer):
    table, shapes = TABLES[layer]
    convert = getattr(fdl.convert, layer)
    for params in (drawn(shapes), drawn(dict(list(shapes.items())[:1]))):  # with and without a bias
        for source in table:
            own = convert(params, "fdl", source)
            if len(params) == len(shapes) and (layer, source) in SHAPES:
                assert jax.tree.map(np.shape, own) == SHAPES[layer, source]
            for target in table:
                there = convert(own, source, target)
                np.testing.assert_equal(convert(there, target, "fdl"), params)
                assert not any(np.shares_memory(a, b) for a in jax.tree.leaves(there) for b in jax.tree.leaves(own))


def test_the_axes_of_a_kernel():
    """A matrix times x, and a kernel cell by cell, in PyTorch's order of axes."""
    weight, bias, x = drawn([(3, 5), (3,), (2, 5)])
    ours = jax.tree.map(jnp.asarray, fdl.convert.dense({"weight": weight, "bias": bias}))
    np.testing.assert_allclose(fdl.ops.dense(ours, jnp.asarray(x)), x @ weight.T + bias, rtol=1e-13)
    weight, x = drawn([(3, 5, 2, 4), (1, 2, 4, 5)])
    ours = jax.tree.map(jnp.asarray, fdl.convert.conv({"weight": weight}))
    whole = fdl.ops.conv(ours, jnp.asarray(x), padding="VALID")[0, 0, 0]
    np.testing.assert_allclose(whole, np.einsum("hwi,oihw->o", x[0], weight), rtol=1e-13)


STATISTICS = {"scale": (3,), "shift": (3,), "mean": (3,), "var": (3,)}


def test_batch_norm_in_use_is_the_same_function():
    scale, shift, mean, var = (1 + 0.1 * a for a in drawn([(3,)] * 4))
    torch = {
        "weight": scale,
        "bias": shift,
        "running_mean": mean,
        "running_var": var,
        "num_batches_tracked": np.array(7),
    }
    x = drawn((2, 3), seed=1)
    want = scale * (x - mean) / np.sqrt(var + 1e-5) + shift
    ours = jax.tree.map(jnp.asarray, fdl.convert.batch_norm(torch))
    y = fdl.batch_norm().apply(ours["params"], ours["state"], jnp.asarray(x))[0]
    np.testing.assert_allclose(y, want, rtol=1e-13)
    # half of what the averages weigh has been seen
    half = {"params": ours["params"], "state": {name: s / 2 for name, s in ours["state"].items()}}
    for name in ("torch", "keras", "flax", "nnx"):
        there = fdl.convert.batch_norm(half, "fdl", name)
        back = fdl.convert.batch_norm(there, name, "fdl")
        np.testing.assert_equal(back, jax.tree.map(np.asarray, ours))
    assert [a.tolist() for a in fdl.convert.batch_norm(half, "fdl", "keras")] == [
        a.tolist() for a in (scale, shift, mean, var)
    ]
    np.testing.assert_equal(fdl.convert.batch_norm(half, "fdl", "fdl"), jax.tree.map(np.asarray, half))
    unseen = fdl.convert.batch_norm({"state": {n: 0 * s for n, s in ours["state"].items()}}, "fdl", "torch")
    np.testing.assert_equal(unseen, {"running_mean": np.zeros(3), "running_var": np.ones(3)})
    assert set(fdl.convert.batch_norm(ours, "fdl", "flax")) == {"params", "batch_stats"}


untyped: Any = fdl.convert.dense
ONES, KERNEL, COUNTS = np.ones(3), np.ones((3, 5, 2, 4)), np.ones(3, int)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (InputError, "convert.dense: source is 'torch_cell', wanted one of fdl", lambda: untyped({}, "torch_cell")),
        (InputError, "target is 'equinox', wanted one of", lambda: fdl.convert.batch_norm({}, "fdl", "equinox")),
        (InputTypeError, "weights is float64", lambda: untyped(np.ones((3, 5)))),
        (InputError, r"weights has \['bias'\], wanted \['weight', 'bias'\], or \['weight'\]", lambda: untyped({"bias": np.ones(3)})),
        (InputError, r"bias has shape \[5\], wanted \[3\]", lambda: untyped({"weight": np.ones((3, 5)), "bias": np.ones(5)})),
        (InputError, r"weight has shape \[3, 5\], wanted \[O, I, \*K\]", lambda: fdl.convert.conv({"weight": np.ones((3, 5))})),
        (InputError, r"bias has shape \[3\], wanted \[3, 1, 1\]", lambda: fdl.convert.conv({"weight": KERNEL, "bias": ONES}, "equinox")),
        (InputError, r"shift has shape \[3\], wanted", lambda: fdl.convert.layer_norm({"scale": KERNEL, "shift": ONES}, "fdl")),
        (InputError, r"weights has 2 arrays, wanted \['gamma'\]", lambda: fdl.convert.rms_norm([ONES] * 2, "keras")),
        (InputTypeError, "running_mean is int64", lambda: fdl.convert.batch_norm({"running_mean": COUNTS, "running_var": ONES})),
    ],
)  # fmt: skip
def test_errors_at_the_door(error, message, call):
    with pytest.raises(error, match=message):
        call()
