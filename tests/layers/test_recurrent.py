"""Recurrent layers: every cell against autodiff of its step-by-step equation, over time, masks, resets, truncation and reversal."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.errors import InputError, InputTypeError
from fdl.layers.gru.layer import VARIANTS
from fdl.layers.gru.layer import cell as gru_cell
from fdl.layers.lstm import cell as lstm_cell
from fdl.layers.rnn import cell as rnn_cell

N, I, D = 3, 2, 4

untyped: Any = fdl.bidirectional
untyped_gru: Any = fdl.gru


def params_of(cell, key):
    return {
        name: 0.4 * jax.random.normal(jax.random.fold_in(key, i), shape, jnp.float64)
        for i, (name, shape) in enumerate(cell.shapes(I, D).items())
    }


def like(key, tree):
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        structure, [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    )


def close(got, want, rtol=1e-10):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(float(jnp.max(jnp.abs(b))), 1e-300))


CELLS = [
    *((fdl.ops.gru, gru_cell(variant, "sigmoid", None), {"variant": variant}) for variant in VARIANTS),
    (fdl.ops.gru, gru_cell("ligru", "sigmoid", "softplus"), {"variant": "ligru", "activation": "softplus"}),
    (fdl.ops.gru, gru_cell("full", "hard_sigmoid", "relu"), {"gate": "hard_sigmoid", "activation": "relu"}),
    (fdl.ops.lstm, lstm_cell(False, "sigmoid", "tanh"), {}),
    (
        fdl.ops.lstm,
        lstm_cell(True, "hard_sigmoid", "softsign"),
        {"peephole": True, "gate": "hard_sigmoid", "activation": "softsign"},
    ),
    (fdl.ops.rnn, rnn_cell("relu"), {"activation": "relu"}),
]


def arguments(cell, steps, key, *, state, mask, resets):
    k = jax.random.split(key, 5)
    return (
        params_of(cell, k[0]),
        jax.random.normal(k[1], (N, steps, I), jnp.float64),
        {name: jax.random.normal(k[2], (N, D), jnp.float64) ** 2 for name in cell.state} if state else None,
        jax.random.bernoulli(k[3], 0.7, (N, steps)) if mask else None,
        jax.random.bernoulli(k[4], 0.2, (N, steps)) if resets else None,
    )


@pytest.mark.parametrize("op, cell, options", CELLS, ids=lambda x: str(x) if isinstance(x, dict) else None)
@pytest.mark.parametrize("steps, run", [(50, {}), (47, {"keep": "states", "reverse": True, "truncate": 5})])
def test_value_and_gradients_over_time(op, cell, options, steps, run, getkey):
    hard = bool(run)
    params, x, state, mask, resets = arguments(cell, steps, getkey(), state=hard, mask=hard, resets=hard)
    key = getkey()

    @jax.jit
    def both(params, x, state):
        def of(function):
            out, pull = jax.vjp(lambda *moving: function(*moving, mask, resets, **options, **run), params, x, state)
            return out, pull(like(key, out))

        return of(op), of(op.equation)

    (out, got), (want_out, want) = both(params, x, state)
    close(out, want_out, 1e-11)
    close(got, want)


@pytest.mark.parametrize("variant", ["libru_log", "caru"])
def test_second_derivatives_of_other_cells(variant, getkey):
    params, x, _, mask, _ = arguments(
        gru_cell(variant, "sigmoid", None), 5, getkey(), state=False, mask=True, resets=False
    )
    directions, dy = like(getkey(), params), like(getkey(), x[..., :1])

    @jax.jit
    def both(params):
        def along(function):
            value = lambda params: jnp.sum(dy * jnp.sin(function(params, x, None, mask, variant=variant)[0]))
            slope = lambda params: sum(jnp.vdot(d, g) for d, g in zip(
                jax.tree.leaves(directions), jax.tree.leaves(jax.grad(value)(params)), strict=True))  # fmt: skip
            return jax.grad(slope)(params)

        return along(fdl.ops.gru), along(fdl.ops.gru.equation)

    close(*both(params))


def test_what_is_masked_may_be_nan_and_counts_for_nothing(getkey):
    cell = gru_cell("full", "sigmoid", None)
    params, x, _, _, _ = arguments(cell, 7, getkey(), state=False, mask=False, resets=False)
    lengths = jnp.asarray([7, 4, 2])
    mask = jnp.arange(7)[None] < lengths[:, None]
    y, final = fdl.ops.gru(params, jnp.where(mask[..., None], x, jnp.nan), None, mask)
    for n, length in enumerate(lengths):
        alone, last = fdl.ops.gru(params, x[n : n + 1, :length])
        close(y[n, :length], alone[0], 1e-14)
        close(final["h"][n], last["h"][0], 1e-14)
    poisoned = lambda x: fdl.ops.gru(params, x, None, mask)[0][:, -1].sum()
    dx = jax.grad(poisoned)(jnp.where(mask[..., None], x, jnp.nan))
    assert bool(jnp.all(jnp.where(mask[..., None], jnp.isfinite(dx), dx == 0)))


def test_a_reset_forgets_and_a_state_continues(getkey):
    cell = lstm_cell(False, "sigmoid", "tanh")
    params, x, _, _, _ = arguments(cell, 9, getkey(), state=False, mask=False, resets=False)
    whole, final = fdl.ops.lstm(params, x)
    first, state = fdl.ops.lstm(params, x[:, :4])
    second, last = fdl.ops.lstm(params, x[:, 4:], state)
    close(jnp.concatenate([first, second], 1), whole, 1e-14)
    close(last, final, 1e-14)
    again = fdl.ops.lstm(params, x, resets=jnp.broadcast_to(jnp.arange(9)[None] == 4, (N, 9)))[0]
    close(again[:, 4:], fdl.ops.lstm(params, x[:, 4:])[0], 1e-14)


def test_reversed_time_is_the_layer_on_reversed_input(getkey):
    cell = gru_cell("mgu", "sigmoid", None)
    params, x, _, _, _ = arguments(cell, 6, getkey(), state=False, mask=False, resets=False)
    mask = jax.random.bernoulli(getkey(), 0.7, (N, 6))
    turned, final = fdl.ops.gru(params, x, None, mask, variant="mgu", reverse=True)
    y, last = fdl.ops.gru(params, x[:, ::-1], None, mask[:, ::-1], variant="mgu")
    close(turned, y[:, ::-1], 1e-14)
    close(final, last, 1e-14)


def test_truncation_cuts_the_error_and_not_the_value(getkey):
    params, x, _, _, _ = arguments(rnn_cell("tanh"), 8, getkey(), state=False, mask=False, resets=False)
    last = lambda x, **run: fdl.ops.rnn(params, x, **run)[0][:, -1].sum()
    close(last(x, truncate=3), last(x), 1e-14)
    dx = jax.grad(lambda x: last(x, truncate=3))(x)
    assert not dx[:, :6].any()
    close(dx[:, 6:], jax.grad(last)(x)[:, 6:], 1e-14)


def test_libru_on_probabilities_and_on_logarithms_are_one_unit(getkey):
    params, x, _, _, _ = arguments(
        gru_cell("libru", "sigmoid", None), 5, getkey(), state=False, mask=False, resets=False
    )
    start = jax.nn.sigmoid(jax.random.normal(getkey(), (N, D), jnp.float64))
    probability, _ = fdl.ops.gru(params, x, {"h": start}, variant="libru")
    logarithm, _ = fdl.ops.gru(params, x, {"h": jnp.log(start)}, variant="libru_log")
    # log(h + 1e-11) stands for log h in the former
    close(jnp.exp(logarithm), probability, 1e-6)


def test_the_share_of_the_new_state_turns_full_into_coupled_gates(getkey):
    """With the reset gate at 1 the two places of the reset are one, and z of one is 1 - z of the other."""
    cell = gru_cell("full", "sigmoid", None)
    params, x, _, _, _ = arguments(cell, 5, getkey(), state=False, mask=False, resets=False)
    sign = jnp.repeat(jnp.asarray([-1.0, 0.0, 1.0], jnp.float64), D)
    always = jnp.where(sign == 0, 60.0, 0.0)
    full = {"w": params["w"] * abs(sign)[None], "u": params["u"] * abs(sign)[None]}
    full["b"] = params["b"] * abs(sign) + always
    after = {"w": params["w"] * sign[None], "u": params["u"] * sign[None], "b": params["b"] * sign + always}
    after["b_s"] = jnp.zeros(D, jnp.float64)
    close(fdl.ops.gru(full, x)[0], fdl.ops.gru(after, x, variant="reset_after")[0], 1e-12)


def all_ways(model, x, key, mask=None):
    params, state = model.init(
        key, x.shape[1:] if x.dtype != jnp.int32 else jax.ShapeDtypeStruct(x.shape[1:], x.dtype), jnp.float64
    )
    apply = lambda run: lambda params: run(params, state, x, train=True, mask=mask)[0]
    y, pull = jax.vjp(apply(model.apply), params)
    want_y, want = jax.vjp(apply(model.equation), params)
    dy = jax.random.normal(key, y.shape, y.dtype)
    by_hand, _ = model.backward(model.forward(params, state, x, train=True, mask=mask)[2], dy)
    close(y, want_y, 1e-12)
    close(pull(dy), want(dy))
    close((by_hand,), want(dy))
    return y


MODELS = {
    "gru": (fdl.gru(4), (3, 7, 4)),
    "final": (fdl.gru(4, "reset_after", return_final=True), (3, 4)),
    "normalized": (fdl.gru(4, "ligru"), (3, 7, 4)),
    "stateful": (fdl.lstm(4, stateful=3), (3, 7, 4)),
    "both ways": (fdl.bidirectional(fdl.lstm(4, peephole=True)), (3, 7, 8)),
    "both ends": (fdl.bidirectional(fdl.gru(4, "caru", return_final=True), combine="add"), (3, 4)),
    "stacked": (fdl.serial(fdl.rnn(5), fdl.gru(3), fdl.last_step(), fdl.dense(2)), (3, 2)),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_by_hand_and_by_autodiff(name, getkey):
    model, shape = MODELS[name]
    x = jax.random.normal(getkey(), (3, 7, 2), jnp.float64)
    mask = jnp.arange(7)[None] < jnp.asarray([[7], [4], [2]])
    assert all_ways(model, x, getkey(), mask).shape == shape


def test_tokens(getkey):
    tokens = jax.random.randint(getkey(), (3, 7), 0, 11, jnp.int32)
    all_ways(fdl.serial(fdl.embedding(11, 4), fdl.gru(5), fdl.dense(11)), tokens, getkey())
    outside = fdl.ops.embedding({"w": jnp.ones((11, 4))}, jnp.asarray([[0, -1, 11]], jnp.int32))
    assert outside.shape == (1, 3, 4)
    assert not jnp.isnan(outside[0, 0]).any() and jnp.isnan(outside[0, 1:]).all()


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8])
@pytest.mark.parametrize("vocabulary", [256, 300])
def test_a_vocabulary_that_the_tokens_dtype_cannot_hold(dtype, vocabulary):
    params = {"w": jnp.arange(3.0 * vocabulary).reshape(vocabulary, 3)}
    tokens = jnp.asarray([[5, 0, 127]], dtype)
    for function in (fdl.ops.embedding, fdl.ops.embedding.equation):
        y, pull = jax.vjp(lambda params, function=function: function(params, tokens), params)
        np.testing.assert_array_equal(y[0], params["w"][np.asarray([5, 0, 127])])
        (dparams,) = pull(jnp.ones_like(y))
        np.testing.assert_array_equal(np.flatnonzero(dparams["w"][:, 0]), [0, 5, 127])


def test_a_stateful_layer_begins_where_it_ended(getkey):
    model, x = fdl.gru(4, stateful=3), jax.random.normal(getkey(), (3, 8, 2), jnp.float64)
    params, state = model.init(getkey(), (8, 2), jnp.float64)
    whole, _ = model.apply(params, state, x)
    first, between = model.apply(params, state, x[:, :3])
    second, _ = model.apply(params, between, x[:, 3:])
    close(jnp.concatenate([first, second], 1), whole, 1e-14)


def test_first_weights():
    params, _ = fdl.lstm(6, forget_bias=2.0).init(jax.random.key(0), (5, 3))
    assert {name: p.shape for name, p in params.items()} == {"w": (3, 24), "u": (6, 24), "b": (24,)}
    np.testing.assert_array_equal(params["b"], np.repeat([0.0, 2.0, 0.0, 0.0], 6))
    for block in jnp.split(params["u"], 4, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(6), atol=1e-5)


def test_first_weights_in_16_bits():
    params, _ = fdl.rnn(5).init(jax.random.key(0), (4, 3), jnp.bfloat16)
    assert {p.dtype for p in params.values()} == {jnp.dtype(jnp.bfloat16)}
    u = params["u"].astype(jnp.float32)
    np.testing.assert_allclose(u @ u.T, np.eye(5), atol=0.02)


def test_the_equation_takes_numpy_arrays_as_the_op_does(getkey):
    params, x, state, mask, resets = map(
        lambda tree: jax.tree.map(np.asarray, tree),
        arguments(rnn_cell("tanh"), 3, getkey(), state=True, mask=True, resets=True),
    )
    close(fdl.ops.rnn.equation(params, x, state, mask, resets), fdl.ops.rnn(params, x, state, mask, resets), 1e-14)


def test_a_reset_counts_at_a_masked_step_too(getkey):
    params, x, state, _, _ = arguments(rnn_cell("tanh"), 2, getkey(), state=True, mask=False, resets=False)
    masked = jnp.zeros((N, 2), bool)
    close(fdl.ops.rnn(params, x, state, masked)[1], state, 1e-14)
    assert not fdl.ops.rnn(params, x, state, masked, ~masked)[1]["h"].any()


@pytest.mark.parametrize(
    "error, message, call",
    [
        (InputError, "variant is 'fulll', wanted one of full", lambda x: fdl.gru(4, "fulll")),
        (InputError, "activation is 'relo', wanted the name", lambda x: fdl.rnn(4, "relo")),
        (InputError, "features is 0", lambda x: fdl.lstm(0)),
        (InputError, r"one example has shape \[3\], wanted \[T, I\]", lambda x: fdl.gru(4).init(jax.random.key(0), (3,))),
        (InputError, r"x has shape \[3, 0, 2\]", lambda x: fdl.ops.rnn(params_of(rnn_cell("tanh"), jax.random.key(0)), x[:, :0])),
        (InputError, "params has", lambda x: fdl.ops.gru(params_of(rnn_cell("tanh"), jax.random.key(0)), x, variant="caru")),
        (InputError, "b has shape", lambda x: fdl.ops.gru(params_of(rnn_cell("tanh"), jax.random.key(0)), x)),
        (InputTypeError, "mask is float64", lambda x: fdl.ops.rnn(params_of(rnn_cell("tanh"), jax.random.key(0)), x, None, x[..., 0])),
        (InputError, "resets has shape", lambda x: fdl.ops.rnn(params_of(rnn_cell("tanh"), jax.random.key(0)), x, resets=x[:, 1:, 0] > 0)),
        (InputError, "state is", lambda x: fdl.ops.rnn(params_of(rnn_cell("tanh"), jax.random.key(0)), x, {"c": x[:, 0]})),
        (InputError, "truncate is 0", lambda x: fdl.ops.rnn(params_of(rnn_cell("tanh"), jax.random.key(0)), x, truncate=0)),
        (InputError, 'keep is .all., wanted "gates"', lambda x: fdl.ops.rnn(params_of(rnn_cell("tanh"), jax.random.key(0)), x, keep="all")),
        (InputTypeError, "layer is", lambda x: untyped(fdl.gru)),
        (InputError, r"variant is \['full'\], wanted one of", lambda x: untyped_gru(4, ["full"])),
        (InputError, r"gate is 'relu', wanted an activation into \[0, 1\]: hard_sigmoid, sigmoid", lambda x: fdl.gru(4, gate="relu")),
        (InputError, r"gate is 'tanh', wanted an activation into", lambda x: fdl.lstm(4, gate="tanh")),
        (InputError, "gate is 'hard_sigmoid'.*'libru' has no choice of curves", lambda x: fdl.gru(4, "libru", gate="hard_sigmoid")),
        (InputError, "activation 'relu'.*'libru_log' has no choice of curves", lambda x: fdl.gru(4, "libru_log", activation="relu")),
        (InputTypeError, "w is list, wanted an array", lambda x: fdl.ops.rnn({"u": jnp.ones((D, D)), "b": jnp.ones(D), "w": [1.0]}, x)),
        (InputError, r"last_step: x has shape \[3, 5, 2, 2\], wanted \[N, T, D\]", lambda x: fdl.ops.last_step(jnp.ones((3, 5, 2, 2)))),
        (InputError, r"last_step: x has shape \[3, 0, 2\], wanted", lambda x: fdl.ops.last_step(x[:, :0])),
        (InputError, r"last_step: mask has shape \[3, 5, 2\]", lambda x: fdl.ops.last_step(x, x > 0)),
    ],
)  # fmt: skip
def test_errors_at_the_door(error, message, call):
    with pytest.raises(error, match=message):
        call(jnp.ones((3, 5, I)))
