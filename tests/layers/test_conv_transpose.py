"""Transposed convolution: the adjoint of convolution, its conventions against lax and PyTorch, sizes, refusals.

Its derivatives: tests/benchmarks/test_layer_proof.py.
"""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.errors import InputError, InputTypeError
from fdl.layers.conv import op as conv
from fdl.layers.conv_transpose import conv_transpose, op


def arrays(*shapes, dtype=jnp.float64):
    rng = np.random.default_rng(7)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32).astype(dtype) for shape in shapes]


def assert_close(got, want, rtol):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


def test_it_is_the_adjoint_of_the_convolution():
    """<C z, x> = <z, C^T x>, with the kernel's channels exchanged."""
    x, z, w = arrays((2, 3, 4, 5), (2, 6, 8, 4), (3, 3, 5, 4))
    forward = conv({"w": jnp.swapaxes(w, 2, 3)}, z, strides=2)
    back = op({"w": w}, x, strides=2)
    assert_close(jnp.vdot(forward, x), jnp.vdot(z, back), 1e-12)


def test_strides_of_1_are_a_convolution_with_the_flipped_kernel():
    x, w = arrays((2, 6, 5, 3), (3, 3, 3, 2))
    assert_close(op({"w": w}, x), conv({"w": w[::-1, ::-1]}, x), 1e-12)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("size", "stride"), [(3, 2), (2, 3), (4, 2)])
def test_the_conventions_of_lax(padding, size, stride):
    x, w = arrays((2, 4, 5, 3), (size, size, 3, 2))
    want = jax.lax.conv_transpose(x, jnp.swapaxes(w, 2, 3), (stride, stride), padding, transpose_kernel=True)
    assert_close(op.equation({"w": w}, x, strides=stride, padding=padding), want, 1e-12)


def test_the_conventions_of_pytorch():
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    import torch  # pyright: ignore[reportMissingImports]

    x, w = arrays((2, 4, 5, 4), (3, 3, 4, 3))
    numbers = lambda a, *axes: torch.from_numpy(np.array(a).transpose(axes))
    want = torch.nn.functional.conv_transpose2d(
        numbers(x, 0, 3, 1, 2), numbers(w, 2, 3, 0, 1), stride=2, padding=1, output_padding=1
    )
    got = op.equation({"w": w}, x, strides=2, padding=((1, 0), (1, 0)))
    assert_close(got, want.numpy().transpose(0, 2, 3, 1), 1e-12)


def test_sizes_and_the_layer(getkey):
    for strides, padding, want in [(2, "SAME", 10), (2, "VALID", 11), (4, "VALID", 20), (2, 1, 9), (2, ((1, 0),), 10)]:
        layer = conv_transpose(4, (3,), strides, padding)
        params, _ = layer.init(getkey(), (5, 2))
        assert params["w"].shape == (3, 2, 4) and params["b"].shape == (4,)
        assert layer.apply(params, {}, jnp.ones((1, 5, 2), jnp.float32))[0].shape == (1, want, 4)
    # cells that no stamp reaches hold the bias alone
    y = op({"w": jnp.ones((1, 1, 1)), "b": jnp.full(1, 0.5)}, jnp.ones((1, 3, 1)), strides=2)
    assert y[0, :, 0].tolist() == [1.5, 0.5, 1.5, 0.5, 1.5, 0.5]


def test_there_and_back_keeps_the_shape(getkey):
    model = fdl.serial(fdl.conv(3, (4, 4), 2), fdl.conv_transpose(2, (4, 4), 2))
    params, _ = model.init(getkey(), (8, 6, 2))
    assert model.apply(params, {}, jnp.ones((1, 8, 6, 2), jnp.float32))[0].shape == (1, 8, 6, 2)


def test_bad_arguments_are_refused_by_name():
    x, w = jnp.ones((2, 3, 4)), jnp.ones((2, 4, 6))
    for params, options, error, words in [
        ({"w": w}, {"groups": 3}, InputError, ["groups is 3", "divisor"]),
        ({"w": w}, {"padding": "full"}, InputError, ["'full'", '"SAME"']),
        ({"w": w}, {"padding": 3}, InputError, ["no output", "less padding"]),
        ({"w": w}, {"padding": ((0, -1),)}, InputError, ["padding", "-1"]),
        ({"w": w}, {"padding": ((0, -2),), "strides": 2}, InputError, ["at least -1 after"]),
        ({"w": w}, {"padding": ((-1, 0),), "strides": 2}, InputError, ["at least 0 before"]),
        ({"w": w}, {"strides": 0}, InputError, ["strides is 0"]),
        ({"w": w.astype(jnp.float32)}, {}, InputTypeError, ["float32", "float64"]),
    ]:
        with pytest.raises(error) as caught:
            op(params, x, **options)
        for word in ["conv_transpose", *words]:
            assert word in str(caught.value)
    with pytest.raises(InputTypeError, match="conv_transpose"):
        conv_transpose(4, 3)  # pyright: ignore[reportArgumentType]
    for strides in (0, "2", None, ()):
        with pytest.raises((InputError, InputTypeError), match="conv_transpose: strides is"):
            conv_transpose(4, (3,), strides)
    with pytest.raises(InputError, match="conv_transpose: features is None"):
        conv_transpose(None, (3,))  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="padding after of at least -1, 0"):
        op({"w": jnp.ones((1, 1, 4, 6))}, jnp.ones((2, 3, 3, 4)), strides=(2, 1), padding=((0, 0), (0, -1)))
