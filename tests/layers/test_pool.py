"""Pooling: against loops over windows, at ties and extremes, with masks, and at the door."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import fdl
from fdl.errors import InputError, InputTypeError

rng = np.random.default_rng(0)


def arrays(*shape, dtype=np.float64):
    return jnp.asarray(rng.standard_normal(shape), dtype)


def close(a, b, rtol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(1, np.abs(b).max())), a, b)


def by_loops(kind, x, dy, window, strides, pads, count_padding=False):
    """(y, dx) window by window, from the definition; dy None: only y."""
    x = np.asarray(x)
    places = x.shape[1:-1]
    outputs = [(n + lo + hi - w) // s + 1 for n, w, s, (lo, hi) in zip(places, window, strides, pads, strict=True)]
    y, dx = np.zeros((len(x), *outputs, x.shape[-1])), np.zeros_like(x)
    for n, c in itertools.product(range(len(x)), range(x.shape[-1])):
        for o in itertools.product(*map(range, outputs)):
            start = [s * i - lo for s, i, (lo, _) in zip(strides, o, pads, strict=True)]
            seen = itertools.product(*(range(at, at + w) for at, w in zip(start, window, strict=True)))
            inside = [p for p in seen if all(0 <= i < size for i, size in zip(p, places, strict=True))]
            values = [x[(n, *p, c)] for p in inside]
            here = (n, *o, c)
            if kind == "max":
                first = int(np.argmax(values))  # the first; of NaN too
                y[here] = values[first]
                shares = [float(k == first) for k in range(len(inside))]
            else:
                m = np.prod(window) if count_padding else len(inside)
                y[here], shares = sum(values) / m, [1 / m] * len(inside)
            for p, share in zip(inside, shares, strict=True):
                dx[(n, *p, c)] += 0 if dy is None else share * dy[here]
    return y, dx


def same_pads(places, window, strides):
    totals = [max(0, (-(-n // s) - 1) * s + w - n) for n, w, s in zip(places, window, strides, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def drawn(seed):
    """A random configuration: the shape of x, window, strides, padding, and that padding in pairs."""
    draw = np.random.default_rng(seed)
    rank = (1, 2, 2, 3)[seed % 4]
    integers = lambda low, high: tuple(int(i) for i in draw.integers(low, high, rank))
    places, window, strides = integers(4, 8), integers(1, 5), integers(1, 4)
    if seed % 3 == 0:  # windows side by side
        strides = window
    padding = ("VALID", "SAME", tuple((int(draw.integers(w)), int(draw.integers(w))) for w in window))[seed % 5 % 3]
    no_pads = ((0, 0),) * rank
    pads = {"VALID": no_pads, "SAME": same_pads(places, window, strides)}.get(padding, padding)
    return (2, *places, 2), window, strides, padding, pads


@pytest.mark.parametrize("seed", range(12))
def test_random_configurations(seed):
    """Values and cotangents are those of the loops, with many ties; and of the equation, second derivatives too."""
    shape, window, strides, padding, pads = drawn(seed)
    options = {"window": window, "strides": strides, "padding": padding}
    count_padding = seed % 2 == 0
    averages = fdl.ops.avg_pool.bind(count_padding=count_padding)
    ops = {"max": fdl.ops.max_pool.bind(**options), "avg": averages.bind(**options)}
    tied = jnp.asarray(rng.integers(-2, 3, shape), jnp.float64)
    x = jnp.asarray(rng.permutation(np.linspace(-2, 2, tied.size)).reshape(shape))
    dy = arrays(*jax.eval_shape(ops["max"], x).shape)
    direction = arrays(*shape)

    def of(function, x, dy):
        y, pull = jax.vjp(function, x)
        slope = jax.grad(lambda x: jnp.vdot(dy, function(x) + 0.1 * function(x) ** 2))
        return y, pull(dy)[0], jax.grad(lambda x: jnp.vdot(slope(x), direction))(x)

    @jax.jit
    def all_of_them(x, tied, dy):
        found = {}
        for kind, op in ops.items():
            out, residuals = op.forward(tied)
            found[kind] = of(op, x, dy), of(op.equation, x, dy), (out, op.backward(residuals, dy)[0])
        return found

    for kind, (got, want, at_ties) in all_of_them(x, tied, dy).items():
        close(got, want, 512 * np.finfo(np.float64).eps)
        close(at_ties, by_loops(kind, tied, np.asarray(dy), window, strides, pads, count_padding))


def test_a_window_of_more_places_than_a_byte_counts():
    x = jnp.asarray(rng.integers(0, 3, (1, 300, 1)), jnp.float64)
    dy = arrays(1, 9, 1)

    @jax.jit
    def both(x, dy):
        y, residuals = fdl.ops.max_pool.forward(x, window=260, strides=5)
        return y, fdl.ops.max_pool.backward(residuals, dy)[0]

    close(both(x, dy), by_loops("max", x, np.asarray(dy), (260,), (5,), ((0, 0),)))


def test_strides_are_those_of_the_window_and_a_number_is_for_every_axis():
    x = arrays(2, 4, 6, 3)
    for op in (fdl.ops.max_pool, fdl.ops.avg_pool):
        close(op(x), op(x, window=2, strides=2, padding="VALID"), 0)
    y, _ = fdl.max_pool(2).apply({}, {}, x)
    close(y, fdl.ops.max_pool(x), 0)
    y, _ = fdl.avg_pool((2, 3), padding="SAME", count_padding=True).apply({}, {}, x)
    close(y, fdl.ops.avg_pool(x, window=(2, 3), padding="SAME", count_padding=True), 0)
    assert fdl.max_pool([2, 2], padding=[[1, 0], [0, 1]]) == fdl.max_pool((2, 2), padding=((1, 0), (0, 1)))


def test_it_agrees_with_torch():
    torch = pytest.importorskip("torch")
    tied = jnp.asarray(rng.integers(0, 2, (2, 6, 7, 3)), jnp.float64)
    for name, theirs, options in (
        ("max_pool", torch.nn.functional.max_pool2d, {}),
        ("avg_pool", torch.nn.functional.avg_pool2d, {"count_include_pad": False}),
    ):
        for x in (arrays(2, 6, 7, 3), tied):
            y, pull = jax.vjp(lambda x, name=name: getattr(fdl.ops, name)(x, window=3, strides=2, padding=1), x)
            leaf = torch.from_numpy(np.array(x)).permute(0, 3, 1, 2).requires_grad_()
            out = theirs(leaf, 3, 2, 1, **options)
            dy = arrays(*y.shape)
            (dx,) = torch.autograd.grad(out, leaf, torch.from_numpy(np.array(dy)).permute(0, 3, 1, 2))
            close((y, pull(dy)[0]), tuple(a.detach().permute(0, 2, 3, 1).numpy() for a in (out, dx)))


# ---- limits


def max_and_gradient(x, dy=None, **options):
    y, pull = jax.vjp(lambda x: fdl.ops.max_pool(x, **options), x)
    dy = jnp.arange(1.0, 1 + y.size).reshape(y.shape) if dy is None else dy
    return np.asarray(y).ravel().tolist(), np.asarray(pull(dy)[0]).ravel().tolist()


def sequence(*values):
    return jnp.asarray(values, jnp.float64).reshape(1, -1, 1)


INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("values", "options", "y", "dx"),
    [
        ((5, 5, 5), {"window": 3}, [5], [1, 0, 0]),
        ((0.0, -0.0, 0.0), {"window": 3}, [0], [1, 0, 0]),
        ((1, NAN, 3, NAN), {"window": 4}, [NAN], [0, 1, 0, 0]),
        ((1, NAN, 3, 9), {"window": 2, "strides": 1}, [NAN, NAN, 9], [0, 3, 0, 3]),
        ((NAN, INF), {"window": 2}, [NAN], [1, 0]),
        ((-INF, -INF, -INF), {"window": 3}, [-INF], [1, 0, 0]),
        ((-INF, -INF, -INF, -INF), {"window": 3, "strides": 2, "padding": ((1, 1),)}, [-INF, -INF], [1, 2, 0, 0]),
        ((-INF, -INF), {"window": 3, "strides": 1, "padding": "SAME"}, [-INF, -INF], [3, 0]),
        ((-INF, -7, -INF), {"window": 3, "strides": 1, "padding": "SAME"}, [-7, -7, -7], [0, 6, 0]),
        ((-9, -7, 2, 8, 99), {"window": 2}, [-7, 8], [0, 1, 0, 2, 0]),
        ((1, 2, 3, 4, 5), {"window": 1, "strides": 2}, [1, 3, 5], [1, 0, 2, 0, 3]),
    ],
)
def test_limits_of_max_pool(values, options, y, dx):
    got, slope = max_and_gradient(sequence(*values), **options)
    np.testing.assert_array_equal(got, y)
    np.testing.assert_array_equal(slope, dx)


def test_the_first_of_equal_cells_is_the_first_in_row_major_order():
    x = jnp.asarray([[0, 7, 0], [7, 7, 7]], jnp.float64)[None, ..., None]
    _, dx = max_and_gradient(x, window=(2, 3))
    assert dx == [0, 1, 0, 0, 0, 0]


def test_the_same_average_of_ones_is_ones_unless_padding_counts():
    ones = jnp.ones((1, 3, 4, 1))
    options = {"window": 3, "strides": 1, "padding": "SAME"}
    close(fdl.ops.avg_pool(ones, **options), ones, 0)
    counted = fdl.ops.avg_pool(ones, count_padding=True, **options)
    close(counted[0, :, :, 0] * 9, jnp.asarray([[4.0, 6, 6, 4], [6, 9, 9, 6], [4, 6, 6, 4]]))


def test_nan_stays_in_the_averages_that_see_it():
    y = fdl.ops.avg_pool(sequence(1, 2, NAN, 4, INF, 6), window=2)
    np.testing.assert_array_equal(np.ravel(y), [1.5, NAN, INF])


# ---- global


@pytest.mark.parametrize("name", ["global_avg_pool", "global_max_pool"])
@pytest.mark.parametrize("masked", [(4, 5), (4,)], ids=["steps", "examples"])
def test_what_is_masked_does_not_count_even_if_it_is_nan(name, masked):
    op, x, dy = getattr(fdl.ops, name), arrays(4, 5, 3), arrays(4, 3)
    mask = jnp.asarray(rng.random(masked) < 0.5).at[0].set(False).at[1].set(True)
    spread = np.broadcast_to(np.asarray(mask).reshape(*masked, *(1,) * (2 - len(masked))), (4, 5))
    y, pull = jax.vjp(lambda x: op(x, mask), jnp.where(spread[..., None], x, jnp.nan))
    (dx,) = pull(dy)
    for n in range(4):
        if not spread[n].any():
            assert not y[n].any() and not dx[n].any()
            continue
        want, want_pull = jax.vjp(op, x[n : n + 1, spread[n]])
        close((y[n], dx[n, spread[n]]), (want[0], want_pull(dy[n : n + 1])[0][0]))
        assert not dx[n, ~spread[n]].any()


@pytest.mark.parametrize(
    ("values", "mask", "y", "dx"),
    [
        ((5, 5, 5), None, 5, [1, 0, 0]),
        ((5, 5, 5), (False, True, True), 5, [0, 1, 0]),
        ((1, NAN, NAN), None, NAN, [0, 1, 0]),
        ((NAN, 2, NAN), (False, True, True), NAN, [0, 0, 1]),
        ((-INF, -INF, -INF), None, -INF, [1, 0, 0]),
        ((9, -INF, -INF), (False, True, True), -INF, [0, 1, 0]),
        ((-3, -2, -1), (False, False, False), 0, [0, 0, 0]),
    ],
)
def test_limits_of_global_max_pool(values, mask, y, dx):
    mask = None if mask is None else jnp.asarray([mask])
    got, pull = jax.vjp(lambda x: fdl.ops.global_max_pool(x, mask), sequence(*values))
    np.testing.assert_array_equal(np.ravel(got), [y])
    np.testing.assert_array_equal(np.ravel(pull(jnp.ones_like(got))[0]), dx)


def test_global_pools_are_pools_over_all_places():
    x, dy = arrays(2, 3, 4, 5), arrays(2, 5)
    for name in ("max_pool", "avg_pool"):
        y, pull = jax.vjp(lambda x, name=name: getattr(fdl.ops, f"global_{name}")(x), x)
        want, want_pull = jax.vjp(lambda x, name=name: getattr(fdl.ops, name)(x, window=(3, 4))[:, 0, 0], x)
        close((y, pull(dy)), (want, want_pull(dy)))


# ---- in models


@pytest.mark.parametrize("last", [fdl.global_avg_pool(), fdl.global_max_pool()], ids=str)
def test_a_padded_sequence_is_the_sequence(last):
    model = fdl.serial(fdl.dense(4), fdl.tanh(), last, fdl.dense(2))
    params, state = model.init(jax.random.key(0), (5, 3), jnp.float64)
    x, dy = arrays(2, 5, 3), arrays(2, 2)
    mask = jnp.concatenate([jnp.ones((2, 5), bool), jnp.zeros((2, 2), bool)], axis=1)
    padded = jnp.concatenate([x, jnp.full((2, 2, 3), jnp.nan)], axis=1)

    @jax.jit
    def both(x, mask):
        y, _, residuals = model.forward(params, state, x, mask=mask)
        return y, *model.backward(residuals, dy)

    (y, dparams, dx), want = both(padded, mask), both(x, None)
    close((y, dparams, dx[:, :5]), want)
    assert not dx[:, 5:].any()


def test_windows_over_steps_refuse_a_mask_of_steps():
    x, mask = arrays(2, 4, 6, 3), jnp.ones((2, 4), bool)
    for make in (fdl.max_pool, fdl.avg_pool):
        with pytest.raises(InputError, match=r"got a mask of steps, bool\[2, 4\], and windows over steps"):
            fdl.serial(make(2)).apply({}, {}, x, mask=mask)
        with pytest.raises(InputError, match="windows over steps"):
            make((1, 2), strides=(2, 1)).apply({}, {}, x, mask=mask)
        y, _ = make((1, 2)).apply({}, {}, x, mask=mask)
        close(y, make((1, 2)).apply({}, {}, x)[0])
        close(make(2).apply({}, {}, x, mask=jnp.ones(2, bool))[0], make(2).apply({}, {}, x)[0])


def test_the_whole_model_by_hand_is_the_model_by_autodiff():
    model = fdl.serial(
        fdl.max_pool(2),
        fdl.dense(3),
        fdl.avg_pool(3, strides=2, padding="SAME"),
        fdl.tanh(),
        fdl.parallel(fdl.global_avg_pool(), fdl.global_max_pool()),
        fdl.dense(2),
    )
    params, state = model.init(jax.random.key(0), (8, 6, 2), jnp.float64)
    x, dy = arrays(3, 8, 6, 2), arrays(3, 2)

    @jax.jit
    def both(params, x):
        _, _, residuals = model.forward(params, state, x)
        want = jax.vjp(lambda p, x: model.equation(p, state, x)[0], params, x)[1](dy)
        return model.backward(residuals, dy), want

    close(*both(params, x))


def test_nothing_is_scattered():
    """On a CPU a scatter, and the gradient of reduce_window, are many times slower, above all inside a loop."""

    def primitives(jaxpr):
        found = set()
        for equation in jaxpr.eqns:
            found.add(equation.primitive.name)
            for inner in jaxprs_in_params(equation.params):
                found |= primitives(inner)
        return found

    def run(function, x):
        y, pull = jax.vjp(function, x)
        return pull(y)

    used = lambda function: primitives(jax.make_jaxpr(functools.partial(run, function))(arrays(2, 6, 7, 3)).jaxpr)
    slow = {"scatter", "scatter-add", "gather", "reduce_window", "reduce_window_max", "select_and_scatter_add"}
    options = {"window": 3, "strides": 2, "padding": "SAME"}
    for name in ("max_pool", "avg_pool"):
        assert not used(lambda x, name=name: getattr(fdl.ops, name)(x, **options)) & slow
        assert not used(getattr(fdl.ops, f"global_{name}")) & slow
    assert used(lambda x: fdl.ops.max_pool.equation(x, **options)) & slow, "this test would see it"


# ---- the door

IMAGE = jnp.ones((2, 5, 6, 3))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: fdl.ops.max_pool(IMAGE[0, 0]), InputError, r"wanted \[N, T, C\], \[N, H, W, C\]"),
        (lambda: fdl.ops.max_pool(IMAGE[0]), InputError, r"window is \(2, 2\), x has shape \[5, 6, 3\]"),
        (lambda: fdl.ops.max_pool(IMAGE.astype(jnp.int32)), InputTypeError, "wanted a floating dtype"),
        (lambda: fdl.ops.max_pool(IMAGE, window=7), InputError, r"x has \[5, 6\] places: no output"),
        (lambda: fdl.ops.max_pool(IMAGE[:, :0], padding="SAME"), InputError, r"x has \[0, 6\] places"),
        (lambda: fdl.ops.max_pool(IMAGE, padding=2), InputError, "wanted less than the window"),
        (lambda: fdl.ops.max_pool(IMAGE, padding="LEFT"), InputError, "padding is 'LEFT'"),
        (lambda: fdl.ops.avg_pool(IMAGE, strides=0), InputError, "strides is 0, wanted at least 1"),
        (lambda: fdl.ops.avg_pool(IMAGE, strides=(1, 1, 1)), InputError, "strides is"),
        (lambda: fdl.ops.avg_pool(IMAGE, count_padding=1), InputTypeError, "count_padding is int 1"),
        (lambda: fdl.max_pool(0), InputError, "window is 0"),
        (lambda: fdl.max_pool(2.0), InputTypeError, "window is float 2.0"),
        (lambda: fdl.max_pool((2, 2, 2, 2)), InputError, "1 to 3 axes of places"),
        (lambda: fdl.max_pool((2, 2), strides=(1,)), InputError, "strides is"),
        (lambda: fdl.max_pool(2, padding="LEFT"), InputError, "padding is 'LEFT'"),
        (lambda: fdl.avg_pool(2, count_padding="no"), InputTypeError, "count_padding is str"),  # pyright: ignore[reportArgumentType]
        (lambda: fdl.serial(fdl.max_pool(9)).init(jax.random.key(0), (5, 6, 3)), InputError, "max_pool_0: window is"),
        (lambda: fdl.ops.global_avg_pool(jnp.ones((2, 3))), InputError, "with at least one place"),
        (lambda: fdl.ops.global_max_pool(jnp.ones((2, 0, 3))), InputError, "with at least one place"),
        (lambda: fdl.ops.global_max_pool(IMAGE, jnp.ones((2, 6), bool)), InputError, "strides before it change T"),
        (lambda: fdl.ops.global_avg_pool(IMAGE, jnp.ones(2)), InputTypeError, "wanted booleans"),
    ],
)
def test_the_door(call, error, words):
    with pytest.raises(error, match=words):
        call()
