"""Convolution: every formulation against the equation, the equation against lax and PyTorch, symmetries, 16 bits, refusals."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from benchmarks._conv_proof import configurations, differences
from fdl.errors import InputError, InputTypeError
from fdl.layers.conv import choice, formulations, op, winograd
from fdl.layers.conv.geometry import geometry

IMAGE, KERNEL = (2, 9, 7, 32), (3, 3, 32, 32)  # what Winograd takes


def arrays(*shapes, dtype=jnp.float64, seed=7):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32).astype(dtype) for shape in shapes]


@functools.partial(jax.jit, static_argnums=0)
def both_ways(f, params, x, dy):
    """Value and gradients."""
    y, pull = jax.vjp(f, params, x)
    return y, *pull(dy)


def assert_close(got, want, rtol):
    """Relative to the largest entry of each array."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize("configuration", configurations(12), ids=str)
def test_every_formulation_equals_the_equation_in_float64(configuration):
    found = differences(configuration)
    assert {"y op", "y patches", "y shifted", "dw op", "dw patches", "dx op", "dx scattered"} <= set(found)
    assert max(found.values()) < 1e-10, found


def test_the_configurations_are_of_every_kind():
    kinds = [(c.rank, c.groups > 1, max(c.strides) > 1, max(c.dilation) > 1) for c in configurations(12)]
    assert {rank for rank, *_ in kinds} == {1, 2, 3}
    assert all(any(kind[i] for kind in kinds) and not all(kind[i] for kind in kinds) for i in (1, 2, 3))
    assert any(c.groups == c.inputs > 1 for c in configurations(12)), "depthwise"
    assert any(c.kernel == (3, 3) and c.strides == c.dilation == (1, 1) and c.groups == 1 for c in configurations(12))


def test_a_wrong_formulation_is_seen(monkeypatch):
    wrong = lambda x, w, g, accumulate: right(x, w, g, accumulate) * jnp.asarray(1 + 1e-9)
    right = formulations.patches_forward
    monkeypatch.setattr(formulations, "patches_forward", wrong)
    found = differences(configurations(1)[0])
    assert found["y patches"] > 1e-10 > found["y shifted"]


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((2, 0), (1, 3))], ids=str)
def test_the_equation_is_the_convolution_of_lax(padding):
    x, w = arrays((3, 8, 7, 4), (4, 3, 2, 6))
    options = {"strides": (2, 1), "dilation": (1, 2), "groups": 2}
    want = jax.lax.conv_general_dilated(
        x, w, (2, 1), padding, rhs_dilation=(1, 2), dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
    )
    assert_close(op.equation({"w": w}, x, padding=padding, **options), want, 1e-13)


def test_the_equation_is_the_convolution_of_pytorch():
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    import torch  # pyright: ignore[reportMissingImports]

    x, w, b = arrays((3, 8, 7, 4), (3, 3, 2, 6), (6,))
    numbers = lambda a, *axes: torch.from_numpy(np.array(a).transpose(axes))
    want = torch.nn.functional.conv2d(
        numbers(x, 0, 3, 1, 2), numbers(w, 3, 2, 0, 1), numbers(b, 0), stride=2, padding=1, groups=2
    )
    got = op.equation({"w": w, "b": b}, x, strides=2, padding=1, groups=2)
    assert_close(got, want.numpy().transpose(0, 2, 3, 1), 1e-13)


def test_what_runs_for_which_shape():
    def chosen(x, w, **options):
        o = {"strides": 1, "padding": "SAME", "dilation": 1, "groups": 1} | options
        g = geometry("test", jnp.zeros(x), jnp.zeros(w), **o)
        return choice.by_winograd(g, x[-1], w[-1]), choice.by_width(g, w[-2]), choice.forward_part(g, *w[-2:])[0]

    assert chosen((8, 8, 8, 32), (3, 3, 32, 32))[:2] == (True, False)
    for strange in ({"strides": 2}, {"dilation": 2}, {"groups": 2}):
        assert not chosen((8, 8, 8, 32), (3, 3, 16 if "groups" in strange else 32, 32), **strange)[0]
    assert not chosen((8, 2, 2, 32), (3, 3, 32, 32))[0], "tiles of mostly padding"
    assert chosen((8, 8, 8, 1), (5, 5, 1, 6)) == (False, True, formulations.shifted_forward)
    assert chosen((8, 8, 8, 3), (3, 3, 3, 32)) == (False, True, formulations.patches_forward)
    assert chosen((8, 8, 8, 64), (5, 5, 64, 64)) == (False, False, formulations.library_forward)
    assert chosen((8, 8, 8, 3), (3, 3, 3, 32), strides=(2, 1), dilation=(2, 1))[1]
    for strange in ({"strides": (1, 2)}, {"dilation": (1, 2)}, {"groups": 3}):
        assert not chosen((8, 8, 8, 3), (3, 3, 1 if "groups" in strange else 3, 33), **strange)[1]
    assert not chosen((8, 8, 8, 3), (3, 1, 3, 32))[1], "no neighbours"


WIDE = [  # x, w and options; odd and even outputs, fewer than a tile, padding of either side, 1 to 3 dimensions
    ((2, 9, 3), (4, 3, 5), {"padding": "VALID"}),
    ((2, 2, 1), (2, 1, 3), {"padding": "VALID"}),
    ((2, 7, 8, 2), (3, 2, 2, 3), {"padding": ((2, 0), (0, 3)), "strides": (2, 1), "dilation": (2, 1)}),
    ((3, 5, 7, 1), (5, 5, 1, 6), {"padding": "SAME"}),
    ((1, 3, 4, 6, 2), (2, 2, 3, 2, 3), {"padding": "SAME", "strides": (1, 2, 1)}),
]


@pytest.mark.parametrize("xs, ws, options", WIDE, ids=str)
def test_several_outputs_at_a_time(xs, ws, options):
    g = geometry("test", jnp.zeros(xs), jnp.zeros(ws), **{"strides": 1, "dilation": 1, "groups": 1, **options})
    assert formulations.widens(g)
    x, w, b, dy = arrays(xs, ws, ws[-1:], (xs[0], *g.outputs, ws[-1]))
    f64, plain = x.dtype, formulations.patches_forward(x, w, g, x.dtype)

    @functools.partial(jax.jit, static_argnums=0)
    def found(width, x, w, b, dy):
        cells = formulations.wide_forward(formulations.cells_forward, width)
        wide = functools.partial(formulations.wide_patches, x, w, geometry=g, accumulate=f64, width=width)
        return (
            wide(b=b),
            wide(b=None),
            cells(x, w, g, f64),
            formulations.wide_dw(x, dy, g, f64, width),
        )

    want = (plain + b.reshape((1,) * (g.rank + 1) + (-1,)), plain, plain, formulations.patches_dw(x, dy, g, f64))
    for width in (2, 3, 4):
        assert_close(found(width, x, w, b, dy), want, 1e-13)
    for wrong in ((x.at[..., -1, 0].multiply(1.001), w, b, dy), (x, w, 1.001 * b, dy), (x, w, b, 1.001 * dy)):
        with pytest.raises(AssertionError):
            assert_close(found(2, *wrong), want, 1e-6)


def test_few_channels_are_within_8_eps_in_float32_and_16_bits_rounded_once():
    """26 numbers a patch of the last: some products add the one or two that are left over from a block less carefully."""
    for xs, ws in (((16, 20, 20, 1), (5, 5, 1, 6)), ((16, 20, 20, 3), (3, 3, 3, 32)), ((64, 100, 1), (25, 1, 20))):
        x, w, b, dy = arrays(xs, ws, ws[-1:], (*xs[:-1], ws[-1]), dtype=jnp.float32)
        params = {"w": w / np.float32(np.sqrt(np.prod(ws[:-1]))), "b": b}
        want = both_ways(op.equation, *jax.tree.map(lambda a: a.astype(jnp.float64), (params, x, dy)))
        assert_close(both_ways(op, params, x, dy), want, 8 * float(jnp.finfo(jnp.float32).eps))
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (params, x, dy))
    want = both_ways(op.equation, *jax.tree.map(lambda a: a.astype(jnp.float64), half))
    assert_close(both_ways(op, *half), want, 0.6 * float(jnp.finfo(jnp.bfloat16).eps))


def test_few_channels_for_any_number_of_examples(monkeypatch):
    """In chunks that divide it, or exported for a symbol, the same numbers."""
    x, w, b, dy = arrays((6, 5, 7, 3), (3, 3, 3, 4), (4,), (6, 5, 7, 4), dtype=jnp.float32)
    params = {"w": w, "b": b}
    run = lambda params, x, dy: both_ways(op, params, x, dy)
    want = run(params, x, dy)
    examples = jax.export.symbolic_shape("n")
    shape = lambda a: jax.ShapeDtypeStruct((*examples, *a.shape[1:]), a.dtype)
    exported = jax.export.export(jax.jit(run), platforms=["cpu"])(params, shape(x), shape(dy))
    assert_close(exported.call(params, x, dy), want, 1e-6)
    monkeypatch.setattr(choice, "WHOLE", 4 * 7000)
    jax.clear_caches()
    assert_close(run(params, x, dy), want, 1e-6)


def test_dw_of_a_few_channels_in_the_cache_is_shifted_products():
    g = geometry("test", jnp.zeros((2, 8, 8, 8)), jnp.zeros((5, 5, 8, 16)), 1, "VALID", 1, 1)
    assert choice.dw_part(g, 8, choice.CACHE) == (formulations.shifted_dw, 0)
    assert choice.dw_part(g, 8, choice.CACHE + 1)[0] is choice.dw_part(g, 7, 0)[0] is formulations.patches_dw
    x, w, dy = arrays((2, 8, 8, 8), (5, 5, 8, 16), (2, 4, 4, 16))
    got = choice.cpu_dw(x, dy, g, dy.dtype)
    assert_close(got, jax.vjp(lambda w: op.equation({"w": w}, x, padding="VALID"), w)[1](dy)[0], 1e-12)


def test_a_strided_dx_by_phases_unless_most_of_their_products_are_with_zeros(monkeypatch):
    used = []
    for name in ("scattered_dx", "cells_forward", "library_forward"):
        run = getattr(formulations, name)
        monkeypatch.setattr(formulations, name, lambda *a, name=name, run=run: (used.append(name), run(*a))[1])

    def dx(size, channels, strides):
        x, w, dy = arrays((2, 12, 12, channels), (size, size, channels, 32), (2, 12 // strides, 12 // strides, 32))
        g = geometry("test", x, w, strides, "SAME", 1, 1)
        return choice.cpu_dx(dy, w, g, dy.dtype), jax.vjp(lambda x: op.equation({"w": w}, x, strides=strides), x)[1](
            dy
        )[0]

    for size, channels, strides in ((4, 32, 2), (3, 32, 2), (7, 3, 2)):
        got, want = dx(size, channels, strides)
        assert_close(got, want, 1e-12)
    # a loop over chunks traces its part more than once
    assert list(dict.fromkeys(used)) == ["library_forward", "scattered_dx", "cells_forward"]


def test_on_cpu_every_convolution_of_lax_is_a_forward_one():
    """Its gradients (a batch axis for channels, lhs_dilation, reversal) take seconds inside a loop there; also to second order."""
    plain = "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"

    def convolutions(program, platform):
        """(all, plain ones) in the program for that platform."""
        text = jax.export.export(jax.jit(program), platforms=[platform])(params, x).mlir_module()
        lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
        strange = ("lhs_dilate = [2", "reverse = [true", "reverse = [1")
        return len(lines), sum(plain in line and not any(s in line for s in strange) for line in lines)

    x, w = arrays((2, 6, 6, 32), (3, 3, 32, 64), dtype=jnp.float32)
    params = {"w": w}
    loss = lambda params, x: jnp.sum(jnp.sin(op(params, x, strides=2)))
    gradient = lambda params, x: jax.grad(loss, (0, 1))(params, x)
    second = lambda params, x: jax.grad(lambda *a: jnp.sum(jnp.cos(gradient(*a)[1])))(params, x)
    for program in (loss, gradient, second):
        every, forward = convolutions(program, "cpu")
        assert every == forward > 0
    assert convolutions(loss, "cuda") == (1, 1)
    every, forward = convolutions(gradient, "cuda")
    assert every == 3 and forward < 3


def test_winograd_is_within_32_eps_and_its_matrices_are_exact():
    """The plain product in float32 has up to 7; the usual points 0, 1, -1, 2, -2 have 70 at 128 channels."""
    x, w, dy = arrays((4, 8, 8, 128), (3, 3, 128, 64), (4, 8, 8, 64), dtype=jnp.float32)
    params = {"w": w / np.float32(34)}
    got = both_ways(op, params, x, dy)
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, x, dy))
    g = geometry("test", x, w, 1, "SAME", 1, 1)
    assert choice.by_winograd(g, 128, 64)
    library = lambda p, x: jax.lax.conv_general_dilated(
        x, p["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    want, eps = both_ways(library, *wide), float(jnp.finfo(jnp.float32).eps)
    assert_close(got, want, 32 * eps)
    with pytest.raises(AssertionError):
        assert_close(got, want, 8 * eps)
    assert_close(both_ways(op.bind(winograd=False), params, x, dy), want, 8 * eps)

    a, g, b = winograd.matrices()
    taps, signal = np.random.default_rng(0).standard_normal((2, 6))
    assert_close(a.T @ ((g @ taps[:3]) * (b.T @ signal)), np.correlate(signal, taps[:3], "valid"), 1e-14)


def test_winograd_to_second_order_and_under_vmap_and_scan():
    x, w, dy = arrays(IMAGE, KERNEL, IMAGE)
    params = {"w": w}

    def second(f):
        gradient = lambda params, x: jax.vjp(f, params, x)[1](jnp.sin(f(params, x)))
        return jax.vjp(gradient, params, x)[1](({"w": w}, dy))

    got, want = jax.jit(lambda: (second(op), second(op.equation)))()
    assert_close(got, want, 1e-9)

    stacked = jnp.stack([x, 2 * x + 1])
    pull = lambda x: jax.vjp(op, params, x)[1](dy)
    mapped, scanned = jax.jit(
        lambda xs: (jax.vmap(pull)(xs), jax.lax.scan(lambda c, x: (c, pull(x)), 0, xs)[1])
    )(stacked)  # fmt: skip
    assert_close(mapped, scanned, 1e-12)


def test_hessian_vector_products_forward_over_reverse():
    """The `lax` forward on CPU has a tangent made of products."""
    x, w, tangent = arrays((2, 5, 5, 32), (3, 3, 32, 2), (2, 5, 5, 32), seed=3)
    g = geometry("test", x, w, 2, "SAME", 1, 1)
    assert choice.forward_part(g, 32, 2)[0] is formulations.library_forward

    def product(f):
        loss = lambda x: jnp.sum(jnp.sin(f({"w": w}, x, strides=2)))
        return jax.jvp(jax.grad(loss), (x,), (tangent,))[1]

    got, want = jax.jit(lambda: (product(op), product(op.equation)))()
    assert_close(got, want, 1e-10)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=["float16", "bfloat16"])
def test_16_bits_are_accumulated_in_float32_and_rounded_once(dtype):
    x, w, b, dy = arrays((2, 7, 6, 40), (3, 3, 40, 32), (32,), (2, 7, 6, 32), dtype=dtype)
    params = {"w": w, "b": b}
    got = both_ways(op, params, x, dy)
    assert all(a.dtype == dtype for a in jax.tree.leaves(got))
    want = both_ways(op.equation, *jax.tree.map(lambda a: a.astype(jnp.float64), (params, x, dy)))
    assert_close(got, want, 0.6 * float(jnp.finfo(dtype).eps))


def test_translation_equivariance():
    """A shifted input has a shifted output wherever no edge is seen; with stride s, by every s-th cell."""
    x, w = arrays((1, 12, 12, 2), (3, 3, 2, 3))
    params, shifted = {"w": w}, jnp.roll(x, (2, 4), (1, 2))
    for strides in (1, 2):
        y, z = op(params, x, strides=strides), op(params, shifted, strides=strides)
        d, e = 2 // strides, 4 // strides
        inner = np.s_[:, 1 + d : -1, 1 + e : -1]
        assert_close(z[inner], jnp.roll(y, (d, e), (1, 2))[inner], 1e-12)


def test_cells_that_no_output_sees_get_no_error():
    x, w = arrays((1, 6, 1), (2, 1, 1))
    dx = jax.grad(lambda x: op({"w": w}, x, strides=3, padding="VALID").sum())(x)
    assert np.flatnonzero(dx).tolist() == [0, 1, 3, 4]


def test_bad_arguments_are_refused_by_name():
    x, w = jnp.ones((2, 5, 5, 4)), jnp.ones((3, 3, 4, 6))
    for params, given, options, error, words in [
        ({"w": w}, x, {"groups": 3}, InputError, ["groups is 3", "divisor", "4", "6"]),
        ({"w": w}, x, {"groups": 2}, InputError, ["channels 4", "weights want 8"]),
        ({"w": w}, x[0], {}, InputError, ["[5, 5, 4]", "rank 4", "[N, H, W, C]"]),
        ({"w": w[0, 0]}, x, {}, InputError, ["w has shape [4, 6]"]),
        ({"w": w}, x, {"padding": "same"}, InputError, ["'same'", '"SAME"']),
        ({"w": w}, x, {"padding": ((1, 1),)}, InputError, ["padding", "2 pairs"]),
        ({"w": w}, x, {"padding": -1}, InputError, ["at least 0"]),
        ({"w": w}, x, {"strides": 0}, InputError, ["strides is 0", "at least 1"]),
        ({"w": w}, x, {"strides": (1, 1, 1)}, InputError, ["strides", "2 spatial axes"]),
        ({"w": w}, x, {"dilation": 1.5}, InputTypeError, ["dilation", "whole"]),
        ({"w": w}, x, {"dilation": 3, "padding": "VALID"}, InputError, ["no output", "[7, 7]", "[5, 5]"]),
        ({"w": w, "b": jnp.ones(5)}, x, {}, InputError, ["b has shape [5]", "[6]"]),
        ({"w": w, "b": None}, x, {}, InputTypeError, ["b is NoneType"]),
        ({"w": w[..., :0]}, x, {}, InputError, ["w has shape [3, 3, 4, 0]"]),
        ({"w": w[:0]}, x, {}, InputError, ["w has shape [0, 3, 4, 6]"]),
        ({"w": w[None, None]}, x[None, None], {}, InputError, ["w has shape", "1, 2 or 3"]),
        ({"w": w}, x.astype(jnp.float32), {}, InputTypeError, ["float32", "float64"]),
        ({"w": w}, x.astype(jnp.int32), {}, InputTypeError, ["x", "int32"]),
        ({"kernel": w}, x, {}, InputError, ["kernel", '"w"']),
    ]:
        with pytest.raises(error) as caught:
            op(params, given, **options)
        for word in ["conv", *words]:
            assert word in str(caught.value)
    for build in (
        lambda: fdl.conv(4, 3),  # pyright: ignore[reportArgumentType]
        lambda: fdl.conv(4, (3, 3, 3, 3)),
        lambda: fdl.conv(0, (3,)),
        lambda: fdl.conv(4, (3,), groups=0),
        lambda: fdl.conv(None, (3,)),  # pyright: ignore[reportArgumentType]
        lambda: fdl.conv(4, (3,), padding="FULL"),
        lambda: fdl.conv(4, (3, 3), padding=np.ones(2, int)),
        lambda: fdl.conv(4, (3,)).init(jax.random.key(0), (5, 5, 2)),
        lambda: fdl.conv(4, (3, 3), padding="VALID").init(jax.random.key(0), (2, 5, 2)),
        lambda: fdl.depthwise_conv((3,), multiplier=0),
    ):
        with pytest.raises((InputError, InputTypeError), match="conv"):
            build()


def test_the_layers(getkey):
    model = fdl.serial(
        fdl.conv(6, (3, 3), strides=2), fdl.depthwise_conv((3, 3), multiplier=2), fdl.separable_conv(5, (3, 3))
    )
    params, _ = model.init(getkey(), (8, 7, 2))
    shapes = jax.tree.map(lambda a: a.shape, params)
    assert shapes["conv_0"] == {"w": (3, 3, 2, 6), "b": (6,)}
    assert shapes["depthwise_conv_1"] == {"w": (3, 3, 1, 12), "b": (12,)}
    assert shapes["serial_2"] == {"depthwise": {"w": (3, 3, 1, 12)}, "pointwise": {"w": (1, 1, 12, 5), "b": (5,)}}
    assert model.apply(params, {}, jnp.ones((2, 8, 7, 2), jnp.float32))[0].shape == (2, 4, 4, 5)
    assert fdl.conv(4, (3,)) == fdl.conv(4, (3,), strides=(1,)) != fdl.conv(4, (3,), strides=2)


def test_initialisers_see_the_whole_fan(getkey):
    """Glorot's bound is sqrt(6 / (fan in + fan out)), He's variance 2 / fan in, with fans over the receptive field."""
    w = fdl.conv(64, (3, 5), groups=2).init(getkey(), (9, 9, 32))[0]["w"]
    bound = np.sqrt(6 / (15 * 16 + 15 * 64))
    assert 0.98 * bound < np.abs(w).max() <= bound
    he = fdl.conv(64, (3, 5), w_init=jax.nn.initializers.he_normal()).init(getkey(), (9, 9, 32))[0]["w"]
    assert abs(float(jnp.var(he)) * (15 * 32) / 2 - 1) < 0.05


@pytest.mark.parametrize("layer", [fdl.conv(3, (3,)), fdl.conv_transpose(3, (3,))], ids=repr)
def test_masked_steps_are_padding(layer):
    model = fdl.serial(fdl.dense(4), layer)  # the bias of dense fills the masked steps
    params, state = model.init(jax.random.key(0), (6, 2), dtype=jnp.float64)
    params = jax.tree.map(lambda p: p + 0.5, params)
    x, dy = arrays((2, 6, 2), (2, 6, 3))
    mask = jnp.asarray([[True] * 6, [True] * 4 + [False] * 2])
    counts = mask[..., None]
    run = lambda params, x: jnp.where(counts, model.apply(params, state, x, mask=mask)[0], 0)
    by_hand = lambda params, x: jnp.where(counts, model.equation(params, state, x, mask=mask)[0], 0)
    assert_close(both_ways(run, params, x, dy), both_ways(by_hand, params, x, dy), 1e-12)
    own = fdl.ops.conv if layer.name == "conv" else fdl.ops.conv_transpose
    hidden = jnp.where(counts, fdl.ops.dense(params["dense_0"], x), 0)
    assert_close(run(params, x), jnp.where(counts, own(params[f"{layer.name}_1"], hidden), 0), 1e-12)
    _, _, residuals = model.forward(params, state, x, mask=mask)
    dparams, dx = model.backward(residuals, jnp.where(counts, dy, 0))
    assert_close((dparams, dx), both_ways(by_hand, params, x, dy)[1:], 1e-12)
    with pytest.raises(InputError, match="got a mask of steps"):
        narrow = fdl.conv(3, (3,), padding="VALID")
        narrow.apply(narrow.init(jax.random.key(0), (6, 2))[0], {}, x.astype(jnp.float32), mask=mask)


def test_options_may_be_nested_lists():
    x, w = arrays((1, 4, 4, 2), (3, 3, 2, 2))
    as_lists, as_tuples = ([[1, 1], [0, 1]], ((1, 1), (0, 1)))
    np.testing.assert_array_equal(
        fdl.ops.conv({"w": w}, x, padding=as_lists), fdl.ops.conv({"w": w}, x, padding=as_tuples)
    )
