"""Whole-model gradients by hand against jax.grad of the equations; deltas; the sum over paths; bad input."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.errors import InputError, InputTypeError

CE = fdl.losses.softmax_cross_entropy_with_integer_labels
MSE = fdl.losses.mean_squared_error
MODEL = fdl.serial(fdl.dense(7), fdl.sigmoid(), fdl.dropout(0.3), fdl.residual(fdl.dense(7), fdl.gelu()), fdl.dense(3))


@pytest.fixture
def batch(getkey):
    params, state = MODEL.init(getkey(), (5,), jnp.float64)
    params = jax.tree.map(lambda p: p + 0.1, params)
    x = jax.random.normal(getkey(), (11, 5), jnp.float64)
    return params, state, x, jax.random.randint(getkey(), (11,), 0, 3)


def largest_relative_difference(a, b):
    each = jax.tree.map(lambda u, v: float(jnp.abs(u - v).max() / jnp.abs(v).max()), a, b)
    return max(jax.tree.leaves(each))


@pytest.mark.parametrize("penalty", [None, fdl.regularizers.l2(0.01)])
@pytest.mark.parametrize("extra", ["plain", "weights", "mask", "both"])
def test_value_and_grad_equals_jax_grad_of_the_equation(batch, getkey, penalty, extra):
    key = getkey()
    kwargs = {}
    if extra in ("mask", "both"):
        kwargs["mask"] = jax.random.bernoulli(getkey(), 0.7, (11,))
    if extra in ("weights", "both"):
        kwargs["weights"] = jax.random.uniform(getkey(), (11,), jnp.float32)
    manual = jax.jit(fdl.backprop.value_and_grad(MODEL, CE, penalty))
    autodiff = jax.jit(fdl.backprop.value_and_grad(MODEL, CE, penalty, gradient="autodiff"))
    (value, state), grads = manual(*batch, key, **kwargs)
    (want_value, _), want = autodiff(*batch, key, **kwargs)
    assert state == {} and jnp.isclose(value, want_value, rtol=1e-12)
    assert largest_relative_difference(grads, want) < 1e-10


def test_value_is_the_weighted_mean_written_out(batch, getkey):
    params, state, x, labels = batch
    weights = jax.random.uniform(getkey(), (11,), jnp.float64)
    (value, _), _ = fdl.backprop.value_and_grad(MODEL, CE)(params, state, x, labels, weights=weights, train=False)
    values = CE.equation(MODEL.equation(params, state, x)[0], labels)
    assert jnp.isclose(value, (weights * values).sum() / weights.sum(), rtol=1e-6)  # weights enter in float32


def test_no_autodiff_inside(batch):
    """The jaxpr of the manual gradient holds no custom rule and comes without jax.grad: nothing is differentiated."""
    text = str(jax.make_jaxpr(lambda *a: fdl.backprop.value_and_grad(MODEL, CE)(*a, jax.random.key(0)))(*batch))
    assert "custom_vjp" not in text
    broken = fdl.Op(
        CE.equation, CE.forward, lambda residuals, dloss: (jnp.zeros_like(residuals[0]), None), name="broken"
    )
    _, grads = fdl.backprop.value_and_grad(MODEL, broken)(*batch, jax.random.key(0))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(grads)), "the loss's own backward decides"


def test_batch_gradient_is_the_mean_of_the_examples_gradients(batch):
    params, state, x, labels = batch
    model = fdl.serial(fdl.dense(4), fdl.tanh(), fdl.dense(3))
    params, _ = model.init(jax.random.key(3), (5,), jnp.float64)
    gradient = jax.jit(fdl.backprop.value_and_grad(model, CE))
    _, whole = gradient(params, {}, x, labels)
    _, each = jax.vmap(lambda x, t: gradient(params, {}, x[None], t[None]))(x, labels)
    assert largest_relative_difference(jax.tree.map(lambda g: g.mean(0), each), whole) < 1e-12
    ranks = jax.vmap(jnp.linalg.matrix_rank)(each["dense_0"]["w"])
    assert (ranks == 1).all(), "one example's gradient is the outer product of activity and error"


def test_deltas_are_the_errors_at_every_output(batch, getkey):
    params, state, x, labels = batch
    model = fdl.serial(fdl.dense(4), fdl.tanh(), fdl.parallel(fdl.dense(3), fdl.serial(fdl.dense(2), fdl.dense(3))))
    params, state = model.init(getkey(), (5,), jnp.float64)
    deltas = jax.jit(lambda *a: fdl.backprop.deltas(model, CE, *a))(params, state, x, labels)
    assert set(deltas) == set(model.names)
    _, grads = jax.jit(fdl.backprop.value_and_grad(model, CE))(params, state, x, labels)
    np.testing.assert_allclose(x.T @ deltas["dense_0"], grads["dense_0"]["w"], rtol=1e-12)
    np.testing.assert_allclose(deltas["dense_0"].sum(0), grads["dense_0"]["b"], rtol=1e-12)
    p = jax.nn.softmax(model.equation(params, state, x)[0])
    want = (p - jax.nn.one_hot(labels, 3, dtype=p.dtype)) / 11
    np.testing.assert_allclose(deltas["parallel_2/serial_1/dense_1"], want, rtol=1e-10)
    assert tuple(fdl.backprop.deltas(model, CE, params, state, x, labels)) == model.names
    single = fdl.backprop.deltas(fdl.dense(3), CE, fdl.dense(3).init(getkey(), (5,), jnp.float64)[0], {}, x, labels)
    assert set(single) == {"dense"}


def test_poisoned_examples_count_exactly_nothing(batch):
    params, state, x, labels = batch
    model = fdl.serial(fdl.dense(4), fdl.tanh(), fdl.dense(2))
    params, _ = model.init(jax.random.key(3), (5,), jnp.float64)
    target = jax.random.normal(jax.random.key(4), (11, 2), jnp.float64)
    counts = jnp.arange(11) % 3 != 0
    gradient = jax.jit(fdl.backprop.value_and_grad(model, MSE))
    (want, _), want_grads = gradient(params, {}, x[counts], target[counts])
    poison = lambda a: jnp.where(counts[:, None], a, jnp.full_like(a, jnp.nan))
    for kwargs in ({"mask": counts}, {"weights": counts.astype(jnp.float64)}):
        (value, _), grads = gradient(params, {}, poison(x), poison(target), **kwargs)
        assert jnp.isclose(value, want, rtol=1e-12)
        assert largest_relative_difference(grads, want_grads) < 1e-12
    (value, _), grads = gradient(params, {}, poison(x), poison(target), mask=jnp.zeros(11, bool))
    assert value == 0 and all((leaf == 0).all() for leaf in jax.tree.leaves(grads)), "nothing counts"


@pytest.mark.parametrize("name", ["cosine_similarity", "mean_absolute_percentage_error", "euclidean_distance"])
def test_masked_examples_do_not_poison_losses_that_are_singular_at_zero(getkey, name):
    """A bias-free model maps the zeros that stand for masked examples to 0, where these losses have no slope."""
    model, loss = fdl.serial(fdl.dense(3, bias=False)), fdl.losses.get(name)
    params, _ = model.init(getkey(), (5,), jnp.float64)
    x, target = jax.random.normal(getkey(), (7, 5), jnp.float64), jax.random.normal(getkey(), (7, 3), jnp.float64)
    mask = jnp.arange(7) != 2
    by_hand, oracle = (
        jax.jit(fdl.backprop.value_and_grad(model, loss, gradient=gradient))(params, {}, x, target, None, mask)
        for gradient in ("manual", "autodiff")
    )
    assert jnp.isfinite(by_hand[0][0])
    np.testing.assert_allclose(by_hand[0][0], oracle[0][0], rtol=1e-10)
    np.testing.assert_allclose(by_hand[1]["dense_0"]["w"], oracle[1]["dense_0"]["w"], rtol=1e-10)


def test_ten_training_losses_agree_with_autodiff(batch):
    params, state, x, labels = batch
    optimizer = optax.sgd(0.1, momentum=0.9)

    def losses(gradient):
        step = jax.jit(fdl.backprop.value_and_grad(MODEL, CE, gradient=gradient))
        p, o, seen = params, optimizer.init(params), []
        for i in range(10):
            (value, _), grads = step(p, state, x, labels, jax.random.key(i))
            updates, o = optimizer.update(grads, o, p)
            p = optax.apply_updates(p, updates)
            seen.append(float(value))
        return seen

    np.testing.assert_allclose(losses("manual"), losses("autodiff"), rtol=1e-11)


# ---- the sum over paths ----


@pytest.fixture(params=["sigmoid", "tanh", "gelu"])
def notes(request, getkey):
    """The three-layer network of the notes: K inputs, J and I units, one output."""
    h = getattr(fdl, request.param)
    model = fdl.serial(fdl.dense(4), h(), fdl.dense(3), h(), fdl.dense(1), h())
    params, _ = model.init(getkey(), (5,), jnp.float64)
    params = jax.tree.map(lambda p: p + 0.2 * jax.random.normal(getkey(), p.shape, p.dtype), params)
    x, y = jax.random.normal(getkey(), (5,), jnp.float64), jnp.asarray([0.3], jnp.float64)
    grads = jax.jit(jax.grad(lambda p: jnp.sum(MSE.equation(model.equation(p, {}, x[None])[0], y[None]))))(params)
    return getattr(fdl.ops, request.param), model, params, x, y, grads


def test_closed_forms_equal_jax_grad(notes):
    h, _, params, x, y, grads = notes
    d0, d2, d4 = (params[name] for name in ("dense_0", "dense_2", "dense_4"))
    forms = fdl.backprop.closed_forms(
        h, x, y[0], w32=d0["w"], b2=d0["b"], w21=d2["w"], b1=d2["b"], w10=d4["w"][:, 0], b=d4["b"][0]
    )
    np.testing.assert_allclose(forms["w10"], grads["dense_4"]["w"][:, 0], rtol=1e-11)
    np.testing.assert_allclose(forms["b"], grads["dense_4"]["b"][0], rtol=1e-11)
    np.testing.assert_allclose(forms["w21"], grads["dense_2"]["w"], rtol=1e-11)
    np.testing.assert_allclose(forms["w32"], grads["dense_0"]["w"], rtol=1e-11)


def test_the_sum_over_paths_is_the_gradient(notes):
    _, model, params, x, y, grads = notes
    for layer, counts in (("dense_0", 3), ("dense_2", 1), ("dense_4", 1)):
        w = grads[layer]["w"]
        for j in range(w.shape[0]):
            for i in range(w.shape[1]):
                table = fdl.backprop.paths(model, MSE, params, x, y, weight=(layer, "w", j, i))
                assert table.count == len(list(table)) == counts
                assert np.isclose(table.total, w[j, i], rtol=1e-11)
                assert np.isclose(sum(path.product for path in table), w[j, i], rtol=1e-11)
        bias = fdl.backprop.paths(model, MSE, params, x, y, weight=(layer, "b", 0))
        assert np.isclose(bias.total, grads[layer]["b"][0], rtol=1e-11)


def test_every_path_is_the_product_of_its_factors(notes):
    _, model, params, x, y, _ = notes
    table = fdl.backprop.paths(model, MSE, params, x, y, weight=("dense_0", "w", 2, 1))
    for path in table:
        assert np.isclose(np.prod([factor for _, factor in path.factors]), path.product, rtol=1e-12)
        assert path.units[0] == 1
    largest = table.largest(2)
    assert abs(largest[0].product) >= abs(largest[1].product) == sorted(abs(p.product) for p in table)[-2]
    assert "sum over 3 path(s)" in str(table) and "dense_2" in str(table)


def test_paths_through_a_wide_net_with_several_outputs(getkey):
    model = fdl.serial(fdl.flatten(), fdl.dense(6), fdl.relu(), fdl.dense(7), fdl.tanh(), fdl.dense(4), fdl.dense(3))
    params, _ = model.init(getkey(), (5,), jnp.float64)
    x = jax.random.normal(getkey(), (1, 5), jnp.float64)
    _, grads = fdl.backprop.value_and_grad(model, CE)(params, {}, x, jnp.asarray([2]))
    table = fdl.backprop.paths(model, CE, params, x, jnp.asarray([2]), weight=("dense_1", "w", 3, 4))
    assert table.count == 7 * 4 * 3
    assert np.isclose(table.total, grads["dense_1"]["w"][3, 4], rtol=1e-10, atol=1e-14)


# ---- bad input ----

untyped: Any = fdl.backprop

PARAMS, _ = fdl.serial(fdl.dense(3)).init(jax.random.key(0), (5,))
ONE = fdl.serial(fdl.dense(3))
X, T = jnp.ones((4, 5), jnp.float32), jnp.zeros(4, jnp.int32)


def gradient(*args, model=ONE, loss=CE, **kwargs):
    return fdl.backprop.value_and_grad(model, loss)(*args, **kwargs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fdl.backprop.value_and_grad(ONE, lambda p, t: p), "plain function.*Op.*autodiff"),
        (lambda: untyped.value_and_grad(ONE, "mse"), "loss is str 'mse', wanted an Op"),
        (lambda: untyped.value_and_grad(lambda x: x, CE), "model is.*wanted an fdl.Layer"),
        (lambda: fdl.backprop.value_and_grad(ONE, CE, gradient="magic"), "gradient is 'magic'"),
        (lambda: gradient(PARAMS, {}, X[:0], T[:0]), "the batch is empty"),
        (lambda: gradient(PARAMS, {}, X, T[:3]), r"target is int32\[3\].*same number of examples"),
        (lambda: gradient(PARAMS, {}, X, T[:, None]), r"labels has shape \[4, 1\].*wanted labels of shape \[4\]"),
        (lambda: gradient(PARAMS, {}, X, T.astype(jnp.float32)), "labels is float32.*integer"),
        (lambda: gradient(PARAMS, {}, X, [0, 1, 2, 0]), "target is list"),
        (
            lambda: gradient(PARAMS, {}, X, X[:, :3], weights=jnp.ones(3), loss=MSE),
            r"weights is float.*\[3\].*same number",
        ),
        (lambda: gradient(PARAMS, {}, X, X, loss=MSE), r"pred has shape \[4, 3\].*target has shape \[4, 5\]"),
        (lambda: gradient(PARAMS, {}, X, T, model=fdl.serial(fdl.dense(3), fdl.dropout(0.5))), "dropout_1.*key="),
        (lambda: fdl.backprop.paths(ONE, CE, PARAMS, X, T, weight=("dense_0", "w", 0, 0)), "one example"),
        (
            lambda: fdl.backprop.paths(ONE, CE, PARAMS, X[0], T[0], weight=("dense_1", "w", 0, 0)),
            r"one of \['dense_0'\]",
        ),
        (lambda: fdl.backprop.paths(ONE, CE, PARAMS, X[0], T[0], weight=("dense_0", "w", 5, 0)), r"w\[5, 3\]"),
        (
            lambda: fdl.backprop.paths(ONE, CE, PARAMS, X[0], T[0], weight=("dense_0", "w", 0, 0), limit=0),
            "1 paths.*limit is 0",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_a_label_out_of_range_is_nan_in_value_and_gradient():
    for bad in (-1, 3):
        (value, _), grads = gradient(PARAMS, {}, X, T.at[1].set(bad))
        assert jnp.isnan(value) and jnp.isnan(grads["dense_0"]["w"]).all()


def test_nan_in_the_data_is_nan_in_value_and_gradient():
    (value, _), grads = gradient(PARAMS, {}, X.at[2, 1].set(jnp.nan), T)
    assert jnp.isnan(value) and jnp.isnan(grads["dense_0"]["w"]).any()


MODEL = fdl.serial(fdl.dense(3))
LABELS = fdl.losses.softmax_cross_entropy_with_integer_labels


@pytest.mark.parametrize("gradient", ["manual", "autodiff"])
@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_is_nan_either_way(getkey, gradient, label):
    params, state = MODEL.init(getkey(), (4,))
    run = fdl.backprop.value_and_grad(MODEL, LABELS, gradient=gradient)
    (value, _), grads = run(params, state, jnp.ones((2, 4), jnp.float32), jnp.asarray([0, label]))
    assert jnp.isnan(value) and jnp.isnan(grads["dense_0"]["w"]).all()


@pytest.mark.parametrize("gradient", ["manual", "autodiff"])
def test_nothing_is_broadcast_either_way(getkey, gradient):
    params, state = MODEL.init(getkey(), (4,))
    run = fdl.backprop.value_and_grad(MODEL, fdl.losses.mean_squared_error, gradient=gradient)
    x = jnp.ones((2, 4), jnp.float32)
    with pytest.raises(InputError, match="nothing is broadcast"):
        run(params, state, x, jnp.ones((2, 1), jnp.float32))
    with pytest.raises(InputError, match="dense_0: got features 5, its weights want 4"):
        run(params, state, jnp.ones((2, 5), jnp.float32), jnp.ones((2, 3), jnp.float32))
    with pytest.raises(InputTypeError, match="penalty is function"):
        plain: Any = lambda params: 0.0
        fdl.backprop.value_and_grad(MODEL, fdl.losses.mean_squared_error, plain, gradient=gradient)


def test_a_loss_of_the_whole_batch_is_refused(getkey):
    params, state = MODEL.init(getkey(), (4,))
    run = fdl.backprop.value_and_grad(MODEL, lambda p, t: jnp.mean((p - t) ** 2), gradient="autodiff")
    with pytest.raises(InputError, match="one value per example"):
        run(params, state, jnp.ones((2, 4), jnp.float32), jnp.ones((2, 3), jnp.float32))


@pytest.mark.parametrize("gradient", ["manual", "autodiff"])
def test_a_batch_without_weight_is_0_either_way(getkey, gradient):
    params, state = MODEL.init(getkey(), (4,))
    run = fdl.backprop.value_and_grad(MODEL, LABELS, gradient=gradient)
    (value, _), grads = run(
        params, state, jnp.ones((2, 4), jnp.float32), jnp.asarray([0, 1]), None, None, jnp.zeros(2, jnp.float32)
    )
    assert value == 0 and (grads["dense_0"]["w"] == 0).all()
