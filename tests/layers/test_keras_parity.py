"""Convolution, pooling and normalization on the same weights as Keras: values and every gradient, and the conventions that differ."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras", reason='Keras is not installed: pip install "fdl[bench]"')
if keras.backend.backend() != "jax":
    pytest.skip(f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=jax", allow_module_level=True)
K = keras.layers


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def close(got: Any, want: Any, rtol: float = 2e-5) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        b = np.asarray(b)
        np.testing.assert_allclose(np.asarray(a), b, rtol=0, atol=rtol * max(1, np.abs(b).max()))


def agree(ours: Any, theirs: Any, weights: list, x: Any, training: bool = False) -> None:
    """ours(weights, x) against a Keras layer with these trainable weights."""
    if not theirs.built:
        theirs.build(x.shape)
    assert [tuple(v.shape) for v in theirs.trainable_variables] == [w.shape for w in weights]
    mode = {"training": True} if training else {}
    kept = [v.value for v in theirs.non_trainable_variables]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        of_them = lambda weights, x: theirs.stateless_call(weights, kept, x, **mode)[0]
        want, want_pull = jax.vjp(of_them, weights, x)
        (dy,) = arrays(want.shape, seed=1)
        want_grads = want_pull(dy)
    got, pull = jax.vjp(ours, weights, x)
    close((got, pull(dy)), (want, want_grads))


CONVOLUTIONS = [
    ("Conv1D", (2, 9, 4), (3,), {"strides": 2, "padding": "same"}),
    ("Conv1D", (2, 9, 4), (2,), {"dilation_rate": 3, "groups": 2}),
    ("Conv2D", (2, 8, 7, 4), (3, 4), {"strides": (2, 1), "padding": "same"}),
    ("Conv2D", (2, 8, 7, 4), (3, 3), {"strides": 2, "padding": "same", "groups": 2}),
    ("Conv3D", (1, 4, 5, 6, 2), (2, 3, 2), {"strides": (1, 2, 2)}),
    ("Conv1DTranspose", (2, 5, 4), (3,), {"strides": 2, "padding": "same"}),
    ("Conv2DTranspose", (2, 4, 5, 4), (3, 2), {"strides": (2, 3), "padding": "same"}),
    ("Conv2DTranspose", (2, 4, 5, 4), (3, 4), {"strides": 2, "padding": "valid"}),
]


@pytest.mark.parametrize(("name", "shape", "kernel", "options"), CONVOLUTIONS)
def test_convolutions(name, shape, kernel, options):
    ours: dict[str, Any] = {n.replace("_rate", ""): v.upper() if n == "padding" else v for n, v in options.items()}
    ours.setdefault("padding", "VALID")
    transposed = name.endswith("Transpose")
    op = fdl.ops.conv_transpose if transposed else fdl.ops.conv
    inputs = shape[-1] // options.get("groups", 1)
    w, b, x = arrays((*kernel, 6, inputs) if transposed else (*kernel, inputs, 6), (6,), shape)
    params = lambda weights: {"w": jnp.swapaxes(weights[0], -1, -2) if transposed else weights[0], "b": weights[1]}
    agree(lambda weights, x: op(params(weights), x, **ours), getattr(K, name)(6, kernel, **options), [w, b], x)


@pytest.mark.parametrize(("strides", "padding"), [(1, "same"), (2, "same"), (2, "valid")])
def test_depthwise_and_separable(strides, padding):
    w, pointwise, b, many, x = arrays((3, 2, 4, 2), (1, 1, 8, 5), (5,), (8,), (2, 8, 7, 4))
    options = {"strides": strides, "padding": padding, "depth_multiplier": 2}
    each = lambda w: w.reshape(3, 2, 1, 8)  # channel by channel, its kernels one after the other
    layer = fdl.depthwise_conv((3, 2), strides, padding.upper(), multiplier=2)
    agree(
        lambda v, x: layer.apply({"w": each(v[0]), "b": v[1]}, {}, x)[0], K.DepthwiseConv2D((3, 2), **options), [w, many], x
    )  # fmt: skip
    separable = fdl.separable_conv(5, (3, 2), strides, padding.upper(), multiplier=2)
    agree(
        lambda v, x: separable.apply({"depthwise": {"w": each(v[0])}, "pointwise": {"w": v[1], "b": v[2]}}, {}, x)[0],
        K.SeparableConv2D(5, (3, 2), **options),
        [w, pointwise, b],
        x,
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pools(rank):
    (x,) = arrays((2, 7, 6, 5)[: rank + 1] + (3,))
    for name, op in (("Max", fdl.ops.max_pool), ("Average", fdl.ops.avg_pool)):
        for padding in ("same", "valid"):
            theirs = getattr(K, f"{name}Pooling{rank}D")(3, 2, padding)
            agree(lambda _, x, o=op, p=padding: o(x, window=3, strides=2, padding=p.upper()), theirs, [], x)
        ours = fdl.ops.global_max_pool if name == "Max" else fdl.ops.global_avg_pool
        agree(lambda _, x, ours=ours: ours(x), getattr(K, f"Global{name}Pooling{rank}D")(), [], x)


def test_batch_norm_and_its_running_statistics():
    """Their eps is 1e-3 by default and their momentum ours; their variance is biased, and begins at 1, of which a share stays."""
    scale, shift, x = arrays((3,), (3,), (6, 4, 3))
    agree(
        lambda v, x: fdl.ops.batch_norm({"scale": v[0], "shift": v[1]}, x, eps=1e-3)[0],
        K.BatchNormalization(),
        [scale, shift],
        x,
        training=True,
    )
    theirs, layer = K.BatchNormalization(momentum=0.8), fdl.batch_norm(momentum=0.8, eps=1e-3)
    theirs.build((6, 3))
    params, state = layer.init(jax.random.key(0), (3,))
    batches = [2 + 3 * x for x in arrays(*[(6, 3)] * 3)]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for batch in batches:
            theirs(batch, training=True)
    for batch in batches:
        _, state = layer.apply(params, state, batch, train=True)
    close(state["mean"], theirs.moving_mean.value)
    close(state["var"] * 5 / 6 + 0.8**3, theirs.moving_variance.value)
    agree(
        lambda v, x: fdl.ops.batch_norm_inference(
            {"scale": v[0], "shift": v[1]}, x, theirs.moving_mean.value, theirs.moving_variance.value, eps=1e-3
        ),
        theirs,
        [scale, shift],
        batches[0],
    )


def test_normalizations_within_an_example():
    scale, shift, x = arrays((6,), (6,), (3, 4, 5, 6))
    of = lambda v: {"scale": v[0], "shift": v[1]}
    eps = {"epsilon": 1e-3}
    agree(lambda v, x: fdl.ops.layer_norm(of(v), x, eps=1e-3), K.LayerNormalization(**eps), [scale, shift], x)
    for groups in (1, 2, 6):
        theirs = K.GroupNormalization(groups, **eps)
        agree(lambda v, x, g=groups: fdl.ops.group_norm(of(v), x, groups=g, eps=1e-3), theirs, [scale, shift], x)
    # their instance normalization is the one of as many groups as channels
    agree(lambda v, x: fdl.ops.instance_norm(of(v), x, eps=1e-3), K.GroupNormalization(-1, **eps), [scale, shift], x)
    agree(lambda v, x: fdl.ops.rms_norm({"scale": v[0]}, x, eps=1e-3), K.RMSNormalization(**eps), [scale], x)


def test_the_comparison_sees_another_eps():
    scale, x = arrays((6,), (3, 6))
    with pytest.raises(AssertionError):
        agree(lambda v, x: fdl.ops.rms_norm({"scale": v[0]}, x, eps=0.1), K.RMSNormalization(), [scale], x)
