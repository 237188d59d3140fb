"""serial, residual, parallel: names, nesting, gradients against the equation, and the errors that name the layer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl

BLOCK = fdl.residual(fdl.dense(5), fdl.tanh(), fdl.dense(5))
SHORTCUT = fdl.residual(fdl.dense(4), fdl.sigmoid(), shortcut=fdl.dense(4))
MODELS = {
    "serial": fdl.serial(fdl.dense(4), fdl.gelu(), fdl.dense(3)),
    "named": fdl.serial(fdl.dense(4), hidden=fdl.tanh(), out=fdl.dense(3)),
    "residual": fdl.serial(fdl.dense(5), BLOCK),
    "shortcut": fdl.serial(SHORTCUT, fdl.dense(3)),
    "add": fdl.parallel(fdl.dense(3), fdl.serial(fdl.dense(4), fdl.tanh(), fdl.dense(3))),
    "concat": fdl.serial(fdl.parallel(fdl.dense(3), fdl.dense(2), fdl.tanh(), combine="concat"), fdl.dense(2)),
    "nested": fdl.serial(block=fdl.serial(fdl.dense(4), fdl.parallel(fdl.dense(4), fdl.silu())), out=fdl.dense(2)),
    "dropout": fdl.serial(fdl.dense(6), fdl.dropout(0.4), fdl.residual(fdl.dropout(0.2), fdl.dense(6))),
    "flatten": fdl.serial(fdl.flatten(), fdl.dense(3)),
    "a single layer": fdl.dense(3),
}


def noisy(params, key):
    """Biases that are not zero: a zero bias hides a forward that forgets it."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, max(len(leaves), 1))
    moved = [x + 0.1 * jax.random.normal(k, x.shape, x.dtype) for x, k in zip(leaves, keys, strict=False)]
    return jax.tree.unflatten(structure, moved)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("train", [True, False])
def test_backward_equals_autodiff_of_the_equation(name, train, getkey):
    model = MODELS[name]
    shape = (5, 2) if name == "flatten" else (5,)
    params, state = model.init(getkey(), shape, jnp.float64)
    params, key = noisy(params, getkey()), getkey()
    x = jax.random.normal(getkey(), (7, *shape), jnp.float64)

    @jax.jit
    def all_ways(params, x, dy):
        y, _, residuals = model.forward(params, state, x, train=train, key=key)
        want_y, want = jax.vjp(lambda p, x: model.equation(p, state, x, train=train, key=key)[0], params, x)
        fast_y, fast = jax.vjp(lambda p, x: model.apply(p, state, x, train=train, key=key)[0], params, x)
        return ((y, want_y), (fast_y, want_y), (model.backward(residuals, dy), want(dy)), (fast(dy), want(dy)))

    shape = jax.eval_shape(lambda: model.apply(params, state, x)[0]).shape
    for a, b in all_ways(params, x, jax.random.normal(getkey(), shape, jnp.float64)):
        jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-10, atol=1e-12), a, b)


def test_names_and_params():
    model = MODELS["nested"]
    params, state = model.init(jax.random.key(0), (5,))
    assert model.names == ("block/dense_0", "block/parallel_1/dense_0", "block/parallel_1/silu_1", "out")
    assert set(params) == {"block", "out"} and set(params["block"]) == {"dense_0", "parallel_1"}
    assert set(params["block"]["parallel_1"]) == {"dense_0"}, "a layer without parameters has no entry"
    assert state == {}
    assert fdl.serial(fdl.dense(100), fdl.sigmoid(), fdl.dense(10)).names == ("dense_0", "sigmoid_1", "dense_2")


def test_a_model_built_alike_is_equal_and_an_argument_of_jit():
    build = lambda: fdl.serial(fdl.dense(4), fdl.leaky_relu(slope=0.2), fdl.dropout(0.1), out=fdl.dense(3))
    assert build() == build() and hash(build()) == hash(build())
    assert build() != fdl.serial(fdl.dense(4), fdl.leaky_relu(slope=0.3), fdl.dropout(0.1), out=fdl.dense(3))
    traces = []

    @jax.jit
    def run(model, params, x):
        traces.append(1)
        return model.apply(params, {}, x)[0]

    params, _ = build().init(jax.random.key(0), (5,))
    for _ in range(3):
        run(build(), params, jnp.ones((2, 5), jnp.float32))
    assert len(traces) == 1


def test_init_shapes_and_dtypes():
    for shape, dtype, want in (((5,), None, jnp.float32), ((5,), jnp.bfloat16, jnp.bfloat16)):
        params, _ = fdl.dense(3).init(jax.random.key(0), shape, dtype)
        assert params["w"].shape == (5, 3) and params["b"].shape == (3,) and params["w"].dtype == want
    spec = jax.ShapeDtypeStruct((5,), jnp.float64)
    assert fdl.serial(fdl.dense(3)).init(jax.random.key(0), spec)[0]["dense_0"]["w"].dtype == jnp.float64
    assert set(fdl.dense(3, bias=False).init(jax.random.key(0), (5,))[0]) == {"w"}
    jax.eval_shape(lambda key: MODELS["nested"].init(key, (5,)), jax.random.key(0))


def test_dropout_keys_differ_by_layer_and_repeat_by_key(getkey):
    model = fdl.parallel(fdl.dropout(0.5), fdl.dropout(0.5), combine="concat")
    x = jnp.ones((64, 8))
    key = getkey()
    y, _ = model.apply({}, {}, x, train=True, key=key)
    assert not (y[:, :8] == y[:, 8:]).all()
    assert (y == model.apply({}, {}, x, train=True, key=key)[0]).all()
    assert (model.apply({}, {}, x)[0] == 1).all(), "in use nothing is dropped"


def test_float64_and_float32_drop_the_same_entries(getkey):
    key = getkey()
    narrow = fdl.ops.dropout(jnp.ones((50, 40), jnp.float32), key, rate=0.37)
    wide = fdl.ops.dropout(jnp.ones((50, 40), jnp.float64), key, rate=0.37)
    assert ((narrow == 0) == (wide == 0)).all()
    assert abs(float((wide == 0).mean()) - 0.37) < 0.03


def test_masked_examples_count_exactly_nothing_even_where_they_hold_nan(getkey):
    model = MODELS["residual"]
    params, state = model.init(getkey(), (5,), jnp.float64)
    x = jax.random.normal(getkey(), (7, 5), jnp.float64)
    mask = jnp.asarray([True, True, False, True, False, True, True])
    poisoned = x.at[jnp.asarray([2, 4])].set(jnp.nan)
    y, _, residuals = model.forward(params, state, poisoned, mask=mask)
    assert jnp.isfinite(y).all()
    dparams, _ = model.backward(residuals, jnp.where(mask[:, None], y, jnp.zeros_like(y)))
    kept = x[mask]
    y_kept, _, residuals = model.forward(params, state, kept)
    want, _ = model.backward(residuals, y_kept)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), dparams, want)


untyped: Any = fdl
DEEP = fdl.serial(block=fdl.serial(fdl.dense(64), fdl.relu()), out=fdl.dense(10))

UNTYPED_DEEP: Any = DEEP


def deep_params(features=100):
    params, _ = DEEP.init(jax.random.key(0), (7,))
    return params | {"out": fdl.dense(10).init(jax.random.key(0), (features,))[0]}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: DEEP.apply(deep_params(), {}, jnp.ones((2, 7), jnp.float32)),
            r"^out: got features 64, its weights want 100",
        ),
        (
            lambda: DEEP.apply(deep_params(64), {}, jnp.ones((2, 8), jnp.float32)),
            r"^block/dense_0: got features 8, its weights want 7",
        ),
        (
            lambda: DEEP.apply({**deep_params(64), "dense_9": {}}, {}, jnp.ones((2, 7), jnp.float32)),
            "dense_9.*no layer here.*block",
        ),
        (lambda: DEEP.apply({"out": {}}, {}, jnp.ones((2, 7), jnp.float32)), r"block/dense_0: params is \[\].*\"w\""),
        (lambda: UNTYPED_DEEP.apply([], {}, jnp.ones((2, 7), jnp.float32)), "params is list.*init"),
        (lambda: DEEP.apply(deep_params(64), {}, jnp.ones((2, 7), jnp.int32)), "block/dense_0: x is int32.*floating"),
        (lambda: DEEP.apply(deep_params(64), {}, jnp.ones((2, 7), jnp.float16)), "x is float16 and w is float32"),
        (lambda: DEEP.apply(deep_params(64), {}, [[1.0] * 7]), "x is list.*jnp.asarray"),
        (lambda: DEEP.apply(deep_params(64), {}, jnp.float32(3)), "x has shape.*batch axis"),
        (
            lambda: DEEP.apply(deep_params(64), {}, jnp.ones((2, 7), jnp.float32), mask=jnp.ones(3, bool)),
            r"mask has shape \[3\]",
        ),
        (
            lambda: DEEP.apply(deep_params(64), {}, jnp.ones((2, 7), jnp.float32), mask=jnp.ones(2)),
            "mask is float.*booleans",
        ),
        (lambda: fdl.serial(fdl.dense(3), dense_0=fdl.dense(3)), "two layers are named 'dense_0'"),
        (lambda: fdl.serial(**{"a/b": fdl.dense(3)}), "slash"),
        (lambda: fdl.serial(), "no layers"),
        (lambda: untyped.serial(fdl.relu), r"layer 0 is.*call it: relu\(\)"),
        (lambda: untyped.serial([fdl.dense(3)]), r"layer 0 is list.*write serial\(\*layers\)"),
        (lambda: untyped.residual(fdl.dense(3), shortcut=lambda x: x), "wanted an fdl.Layer"),
        (lambda: fdl.parallel(fdl.dense(3), combine="mul"), 'combine is \'mul\', wanted "add" or "concat"'),
        (lambda: fdl.residual(fdl.dense(3)).init(jax.random.key(0), (5,)), None),
        (
            lambda: MODELS["dropout"].apply({}, {}, jnp.ones((2, 5), jnp.float32), train=True),
            "key is missing.*dropout_1.*key=",
        ),
        (
            lambda: fdl.dropout(0.5).apply({}, {}, jnp.ones((2, 5), jnp.float32), train=True, key=0),
            "key is int 0.*jax.random.key",
        ),
        (lambda: fdl.dropout(1.5), "rate is 1.5, wanted 0 <= rate <= 1"),
        (lambda: fdl.dropout(float("nan")), "rate is nan"),
        (lambda: fdl.dropout(-0.1), "rate is -0.1"),
        (lambda: fdl.dense(0), "features is 0, wanted a positive int"),
        (lambda: untyped.dense(2.5), "features is 2.5"),
        (lambda: DEEP.init(0, (7,)), "key is int 0.*jax.random.key"),
        (lambda: DEEP.init(jax.random.key(0), 7), r"shape is 7.*\(7,\)"),
        (lambda: DEEP.init(jax.random.key(0), ("a",)), "shape is.*tuple of sizes"),
        (lambda: fdl.dense(3).init(jax.random.key(0), ()), "one example has shape.*features last"),
    ],
)
def test_errors_name_the_layer_and_the_remedy(call, message):
    if message is None:
        model = fdl.residual(fdl.dense(3))
        with pytest.raises(ValueError, match=r"f\(x\) is float32\[2, 3\].*float32\[2, 5\].*shortcut"):
            model.init(jax.random.key(0), (5,))
        return
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_empty_batch_gives_an_empty_output_and_zero_gradients(getkey):
    params, state = DEEP.init(getkey(), (7,))
    y, _, residuals = DEEP.forward(params, state, jnp.zeros((0, 7), jnp.float32))
    dparams, dx = DEEP.backward(residuals, y)
    assert y.shape == (0, 10) and dx.shape == (0, 7)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(dparams))


def test_nan_passes_through_loudly(getkey):
    params, state = DEEP.init(getkey(), (7,))
    x = jnp.zeros((2, 7), jnp.float32).at[0, 0].set(jnp.nan)
    y, _, residuals = DEEP.forward(params, state, x)
    _, dx = DEEP.backward(residuals, jnp.where(jnp.isnan(y), 1.0, 0.5).astype(y.dtype))
    assert jnp.isnan(y[0]).all() and jnp.isfinite(y[1]).all()
    assert jnp.isnan(dx[0]).any() and jnp.isfinite(dx[1]).all()
