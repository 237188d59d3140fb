"""Every measurement of `examine` against a plain, slow computation of the same thing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.doctor import batch, parameters, signals
from fdl.doctor.chart import CAUSES, unstacked
from fdl.doctor.spectrum import singular_values, spectrum
from fdl.doctor.watch import observed

LOSS = fdl.losses.softmax_cross_entropy_with_integer_labels
N = 6
rng = np.random.default_rng(0)


def arrays(*shape):
    return jnp.asarray(rng.standard_normal(shape))


def filled(tree):
    """Random parameters: zero biases hide mistakes."""
    return jax.tree.map(lambda a: a + 0.3 * arrays(*a.shape), tree)


MODEL = fdl.serial(
    fdl.dense(5),
    fdl.tanh(),
    block=fdl.residual(fdl.dense(5), fdl.sigmoid()),
    sides=fdl.parallel(fdl.dense(3), fdl.serial(fdl.dense(4), fdl.relu()), combine="concat"),
    output=fdl.dense(3),
)
PARAMS, STATE = MODEL.init(jax.random.key(0), (4,), jnp.float64)
PARAMS = filled(PARAMS)
X, LABELS = arrays(N, 4), jnp.asarray([0, 1, 2, 2, 1, 2])


def examined(model, params, state, x, labels, **options):
    return jax.jit(lambda *args: fdl.doctor.examine(model, LOSS, *args, **options))(params, state, x, labels)


@pytest.fixture(scope="module")
def chart():
    previous = jax.tree.map(jnp.ones_like, PARAMS)

    def of(params, x):
        return fdl.doctor.examine(
            *(MODEL, LOSS, params, STATE, x, LABELS, None, optax.sgd(0.5)), previous=previous, step=7, sample=N * 5
        )

    return jax.jit(of)(PARAMS, X)


@pytest.fixture(scope="module")
def slow():
    """(deltas, gradient per example, gradient)."""
    deltas = fdl.backprop.deltas(MODEL, LOSS, PARAMS, STATE, X, LABELS)
    gradient = lambda x, y: fdl.backprop.value_and_grad(MODEL, LOSS)(PARAMS, STATE, x, y)[1]
    each = [gradient(X[n : n + 1], LABELS[n : n + 1]) for n in range(N)]
    return deltas, each, gradient(X, LABELS)


def flat(chart, tree):
    out = []
    for name in chart.parameters:
        leaf = tree
        for step in name.split("/"):
            leaf = leaf[step]
        out.append(np.asarray(leaf))
    return out


def test_layers_and_parameters_have_the_models_names(chart):
    assert chart.names == MODEL.names
    assert len(chart.parameters) == len(jax.tree.leaves(PARAMS)) == len(set(chart.parameters))
    assert "sides/serial_1/dense_0/w" in chart.parameters


def test_errors_are_those_of_backprop_for_any_batch_size(chart, slow):
    deltas, each, _ = slow
    per_example = [np.linalg.norm(N * np.asarray(deltas[name]), axis=1) for name in chart.names]
    np.testing.assert_allclose(chart.error, [np.sqrt(np.mean(size**2)) for size in per_example], rtol=1e-12)
    doubled = jax.jit(lambda x, y: fdl.doctor.examine(MODEL, LOSS, PARAMS, STATE, x, y, spectrum=0, leak=False))
    twice = doubled(jnp.concatenate([X, X]), jnp.concatenate([LABELS, LABELS]))
    np.testing.assert_allclose(twice.error, chart.error, rtol=1e-12)
    np.testing.assert_allclose(twice.growth, chart.growth, rtol=1e-12)


def test_growth_is_the_error_that_a_layer_hands_on(chart, slow):
    deltas, *_ = slow
    place = chart.names.index("tanh_1")
    ratio = np.linalg.norm(deltas["dense_0"]) / np.linalg.norm(deltas["tanh_1"])
    np.testing.assert_allclose(chart.growth[place], ratio, rtol=1e-12)


def test_gradients_updates_and_cosines(chart, slow):
    _, _, gradient = slow
    grads = flat(chart, gradient)
    norms = [np.linalg.norm(g) for g in grads]
    np.testing.assert_allclose(chart.gradient, norms, rtol=1e-12)
    np.testing.assert_allclose(chart.update, 0.5 * np.asarray(norms), rtol=1e-12)
    weights = [np.linalg.norm(w) for w in flat(chart, PARAMS)]
    np.testing.assert_allclose(chart.update_ratio, 0.5 * np.asarray(norms) / weights, rtol=1e-12)
    cosines = [g.sum() / (np.linalg.norm(g) * np.sqrt(g.size)) for g in grads]
    np.testing.assert_allclose(chart.cosine, cosines, rtol=1e-12, atol=1e-14)
    whole = np.concatenate([g.ravel() for g in grads])
    np.testing.assert_allclose(
        chart.total_cosine, whole.sum() / np.linalg.norm(whole) / np.sqrt(whole.size), rtol=1e-12
    )


def test_noise_is_the_variance_of_the_gradients_of_single_examples(chart, slow):
    _, each, _ = slow
    stacks = [np.stack(leaf) for leaf in zip(*(flat(chart, g) for g in each), strict=True)]
    variances = [g.var(axis=0, ddof=1).sum() for g in stacks]
    np.testing.assert_allclose(chart.noise, variances, rtol=1e-10)  # all dense: exact
    means = [N * np.sum(g.mean(0) ** 2) / v for g, v in zip(stacks, variances, strict=True)]
    np.testing.assert_allclose(chart.signal_to_noise, means, rtol=1e-10)


def seen_by(layer, x):
    """One layer, observed; the model is this layer alone."""
    params, state = layer.init(jax.random.key(1), x.shape[1:], x.dtype)
    params = filled(params)
    model, notes = observed(layer)
    y, _, residuals = model.forward(params, state, x, train=True)
    model.backward(residuals, arrays(*y.shape))
    return next(iter(notes.layers.values()))


CONV = fdl.conv(2, (2,), padding="VALID")


def test_noise_of_other_layers_by_all_examples_and_by_random_signs():
    seen = seen_by(CONV, arrays(N, 4, 3))
    each = [np.asarray(seen_gradient(seen, n)) for n in range(N)]
    exact = parameters.noise(seen, jnp.asarray(float(N)), True)["w"]
    np.testing.assert_allclose(exact, np.var(N * np.stack(each), axis=0, ddof=1).sum(), rtol=1e-10)
    signs = np.sign(parameters.directions((N,), jnp.float64))
    signed = sum(s * g for s, g in zip(signs, each, strict=True))
    estimate = parameters.noise(seen, jnp.asarray(float(N)), False)["w"]
    share, total = np.sum(signed**2), np.sum(np.sum(each, axis=0) ** 2)
    np.testing.assert_allclose(estimate, (N**2 * share - N * total) / (N - 1), rtol=1e-10)
    assert {-1.0, 1.0} == set(signs.tolist())


def seen_gradient(seen, n):
    _, _, residuals = seen.layer.forward(seen.params, seen.state, seen.x[n : n + 1])
    return seen.layer.backward(residuals, seen.dy[n : n + 1])[0]["w"]


@pytest.mark.parametrize(
    ("layer", "shape", "whole"),
    [
        (fdl.dense(3), (5,), False),
        (fdl.dense(5), (3,), False),
        (CONV, (4, 2), False),
        (fdl.layer_norm(), (4,), False),
        (fdl.batch_norm(), (2,), True),
    ],
    ids=["narrowing", "widening", "conv", "layer_norm", "batch_norm"],
)
def test_singular_values_are_those_of_the_jacobian(layer, shape, whole):
    seen = seen_by(layer, arrays(4, *shape))
    x = seen.x if whole else seen.x[:1]
    apply = lambda x: layer.equation(seen.params, seen.state, x, train=True)[0]
    jacobian = jax.jacobian(apply)(x).reshape(-1, x.size)
    wanted = np.linalg.svd(jacobian, compute_uv=False)
    steps = len(wanted)
    values = singular_values(*spectrum(seen, steps))
    if layer.name in ("layer_norm", "batch_norm"):  # a null space is found only at the very end, and up to rounding
        np.testing.assert_allclose(values[0], wanted[0], rtol=1e-9)
        assert values[-1] < 1e-2 * values[0]
    else:
        np.testing.assert_allclose(values, wanted, rtol=1e-8)
    few, padded = (singular_values(*spectrum(seen, count)) for count in (2, steps + 3))
    assert wanted[-1] <= few[-1] * (1 + 1e-9) and few[0] <= wanted[0] * (1 + 1e-9)
    np.testing.assert_allclose(padded[0], wanted[0], rtol=1e-8)


def test_singular_values_of_an_activation_are_its_slopes():
    seen = seen_by(fdl.tanh(), arrays(4, 3))
    slopes = 1 - np.tanh(seen.x) ** 2
    values = singular_values(*spectrum(seen, 3))
    np.testing.assert_allclose(values[jnp.asarray([0, -1])], [slopes.max(), slopes.min()], rtol=1e-10)


def test_percentiles(chart):
    _, notes = observed(MODEL)
    hidden = jnp.tanh(X @ PARAMS["dense_0"]["w"] + PARAMS["dense_0"]["b"].reshape(1, -1))
    ordered = np.sort(np.asarray(hidden).ravel())  # 30 entries, and a sample of 30
    at = [p * 29 // 100 for p in fdl.doctor.PERCENTILES]
    np.testing.assert_allclose(chart.output_percentiles[chart.names.index("tanh_1")], ordered[at], rtol=1e-12)
    many = [arrays(7000)]
    by_counting, by_sorting = (signals.percentiles(many, n)[0] for n in (signals.COUNTED, 1000))
    np.testing.assert_allclose(by_counting[1:-1], np.percentile(many[0], fdl.doctor.PERCENTILES[1:-1]), atol=0.3)
    np.testing.assert_allclose(by_sorting, np.percentile(many[0], fdl.doctor.PERCENTILES), atol=0.3)
    ties = jnp.asarray([2.0, 1, 1, 1, 2, 0, 1, 2, 1, 1])
    np.testing.assert_array_equal(
        signals.percentiles([ties], 10)[0], jnp.sort(ties)[jnp.asarray([0, 0, 2, 4, 6, 8, 8])]
    )


# ---- units: one of each cause


def test_units_that_do_not_learn_and_why():
    """Unit 0 lives; 1 is never active; 2 has no outgoing weight; 3 leads to dead units only; tanh 0 is saturated."""
    model = fdl.serial(fdl.dense(4), fdl.relu(), fdl.dense(3), fdl.tanh(), output=fdl.dense(2))
    params, state = model.init(jax.random.key(0), (3,))
    params = jax.tree.map(lambda a: jnp.abs(a) + 0.1, params)
    x = jnp.abs(jnp.asarray(rng.standard_normal((20, 3)), jnp.float32)) + 0.1
    params["dense_0"]["b"] = params["dense_0"]["b"].at[1].set(-100.0)
    w = params["dense_2"]["w"].at[2].set(0.0)
    params["dense_2"]["w"] = w.at[3].set(jnp.asarray([0.1, 0, 0], jnp.float32))
    params["dense_2"]["b"] = params["dense_2"]["b"].at[0].set(100.0)
    chart = examined(model, params, state, x, jnp.arange(20) % 2, spectrum=0)
    assert [CAUSES[code] for code in chart.units["relu_1"]] == ["alive", "never active", CAUSES[3], "masked"]
    assert chart.units["tanh_3"].tolist() == [2, 0, 0]
    assert chart.dead("relu_1") == {"never active": [1], "every outgoing weight 0": [2], "masked": [3]}
    assert dict(chart.outgoing)["relu_1"] == ("dense_2",)
    z = x @ params["dense_0"]["w"] + params["dense_0"]["b"].reshape(1, -1)
    np.testing.assert_allclose(chart.saturated[1], np.mean(np.asarray(z) <= 0), rtol=1e-6)


def test_outgoing_weights_behind_pooling_and_flatten_and_beside_a_shortcut():
    shared = (fdl.conv(3, (2, 2)), fdl.relu(), fdl.max_pool((2, 2)), fdl.flatten())
    model = fdl.serial(*shared, output=fdl.dense(2))
    params, state = model.init(jax.random.key(0), (4, 4, 1))
    params = jax.tree.map(lambda a: jnp.abs(a) + 0.1, params)
    params["output"]["w"] = params["output"]["w"].reshape(4, 3, 2).at[:, 1].set(0.0).reshape(12, 2)
    x = jnp.abs(jnp.asarray(rng.standard_normal((5, 4, 4, 1)), jnp.float32))
    chart = examined(model, params, state, x, jnp.arange(5) % 2, spectrum=0)
    assert chart.units["relu_1"].tolist() == [0, 3, 0]

    shortcut = fdl.serial(fdl.dense(3), fdl.relu(), fdl.residual(fdl.dense(3)), output=fdl.dense(2))
    params, state = shortcut.init(jax.random.key(0), (2,))
    params = jax.tree.map(lambda a: jnp.abs(a) + 0.1, params)
    params["residual_2"]["dense_0"]["w"] = jnp.zeros((3, 3), jnp.float32)
    chart = examined(shortcut, params, state, x[:, 0, :2, 0], jnp.arange(5) % 2, spectrum=0)
    assert chart.units["relu_1"].tolist() == [0, 0, 0]  # the shortcut brings them their error


# ---- the batch, running statistics, leaks, values that are not finite


def test_facts_of_the_batch(chart):
    np.testing.assert_allclose(chart.chance_loss, np.log(3))
    shares = np.asarray([1, 2, 3]) / 6
    np.testing.assert_allclose(chart.label_entropy, -np.sum(shares * np.log(shares)), rtol=1e-12)
    assert (chart.label_share, chart.label_classes, chart.label_outside) == (0.5, 3, 0)
    np.testing.assert_allclose(chart.input_rms, np.sqrt(np.mean(X**2)), rtol=1e-12)
    assert chart.feature == np.argmax(np.mean(X**2, axis=0)) and chart.constant_features == 0
    assert chart.step == 7 and chart.takes_logits
    odd = X.at[:, 2].set(0.5).at[:, 3].set(0.0)
    odd = examined(MODEL, PARAMS, STATE, odd, LABELS - 1, spectrum=0, noise=None, leak=False)
    assert (odd.constant_features, odd.constant_feature, odd.label_outside) == (1, 2, 1)
    assert np.isnan(odd.noise).all() and np.isnan(odd.spectrum).all() and np.isnan(odd.leak).all()


def test_drift_and_the_loss_in_use():
    model = fdl.serial(fdl.dense(3), fdl.batch_norm(), output=fdl.dense(3))
    params, state = model.init(jax.random.key(0), (4,), jnp.float64)
    params = filled(params)
    state = {"batch_norm_1": {"mean": arrays(3), "var": jnp.abs(arrays(3)) + 0.2, "weight": jnp.ones(())}}
    chart = examined(model, params, state, X, LABELS)
    z = np.asarray(X @ params["dense_0"]["w"] + params["dense_0"]["b"].reshape(1, -1))
    mean, var = np.asarray(state["batch_norm_1"]["mean"]), np.asarray(state["batch_norm_1"]["var"])
    moved = (z.mean(0) - mean) ** 2 / var + (np.log(z.var(0) / var) / 2) ** 2
    np.testing.assert_allclose(chart.drift[1], np.sqrt(moved.mean()), rtol=1e-3)
    assert chart.statistics_of[1] == N and np.isnan(chart.drift[0])
    in_use = fdl.losses.mean(LOSS(model.apply(params, state, X)[0], LABELS))
    np.testing.assert_allclose(chart.eval_loss, in_use, rtol=1e-12)
    assert chart.leak[1] > 0 and chart.leak[0] == chart.leak[2] == 0 and chart.couples == ("batch_norm_1",)
    # the errors in front of batch_norm are not the examples' own
    behind = [name.startswith("output") for name in chart.parameters]
    assert np.isfinite(chart.noise).tolist() == behind


@pytest.mark.parametrize(
    ("place", "born"),
    [
        ("input", "input"),
        ("parameter", "parameter output/w"),
        ("forward", "forward log_1"),
        ("backward", "backward log_1"),
    ],
)
def test_where_the_first_value_that_is_not_finite_was_born(place, born):
    slope = (lambda x: jnp.zeros_like(x) / 0) if place == "backward" else (lambda x: 1 / x)
    value = jnp.log if place == "forward" else jnp.tanh
    op = fdl.Op(value, lambda x: (value(x), x), lambda x, dy: (dy * slope(x),), name="log")
    model = fdl.serial(fdl.dense(3), fdl.Layer.from_op("log", op), output=fdl.dense(3))
    params, state = model.init(jax.random.key(0), (4,), jnp.float64)
    if place == "parameter":
        params["output"]["w"] = params["output"]["w"].at[1, 1].set(jnp.inf)
    x = X.at[2, 1].set(jnp.nan) if place == "input" else X
    chart = examined(model, params, state, x, LABELS, spectrum=0, noise=None, leak=False)
    assert chart.born == born


def test_finite_values_whose_squares_are_not(chart):
    assert chart.born == ""
    large = jax.tree.map(lambda a: a.astype(jnp.float32), PARAMS)
    x = jnp.float32(1e25) * X.astype(jnp.float32)
    linear = fdl.serial(fdl.dense(2))
    params = {"dense_0": {"w": 1e-25 * large["dense_0"]["w"][:, :3], "b": jnp.zeros(3, jnp.float32)}}
    assert examined(linear, params, {}, x, LABELS, spectrum=0, leak=False, noise=None).born == ""


def test_masked_examples_do_not_count():
    mask = jnp.arange(N) < 4
    masked = examined(MODEL, PARAMS, STATE, X.at[4:].set(jnp.nan), LABELS, mask=mask, leak=False, spectrum=0)
    few = examined(MODEL, PARAMS, STATE, X[:4], LABELS[:4], leak=False, spectrum=0)
    for field in ("loss", "error", "growth", "gradient", "noise", "first_not_finite"):
        np.testing.assert_allclose(getattr(masked, field), getattr(few, field), rtol=1e-9)


def test_in_scan_the_chart_keeps_its_size_and_the_step_needs_no_second_gradient():
    optimizer = optax.sgd(0.1)

    def step(carry, at):
        chart, (_, state), grads, stepped = fdl.doctor.examine_step(
            *(MODEL, LOSS, carry[0], carry[1], X, LABELS, None, optimizer, carry[2]), step=at, spectrum=2, sample=4
        )
        assert stepped is not None
        return (optax.apply_updates(carry[0], stepped[0]), state, stepped[1]), (chart, grads)

    start = (PARAMS, STATE, optimizer.init(PARAMS))
    (params, *_), (charts, grads) = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(3)))(start)
    assert charts.loss.shape == (3,) and charts.spectrum.shape == (3, len(MODEL.names), 2)
    assert charts.loss[2] < charts.loss[0] and charts.step.tolist() == [0, 1, 2]
    moved = jax.tree.map(lambda p, g: p - 0.1 * g.sum(axis=0), PARAMS, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), params, moved)
    assert len(unstacked("test", charts)) == 3


def test_a_single_layer_and_tokens():
    layer = fdl.dense(3)
    params, state = layer.init(jax.random.key(0), (4,), jnp.float64)
    chart = examined(layer, params, state, X, LABELS)
    assert chart.names == ("dense",) and set(chart.parameters) == {"dense/w", "dense/b"}
    words = fdl.serial(fdl.embedding(7, 3), fdl.flatten(), output=fdl.dense(3))
    tokens = jnp.asarray(rng.integers(0, 7, (N, 2)))
    params, state = words.init(jax.random.key(0), jax.ShapeDtypeStruct((2,), tokens.dtype))
    chart = examined(words, params, state, tokens, LABELS)
    assert np.isnan(chart.growth[0]) and np.isfinite(chart.error).all() and np.isnan(chart.input_rms)


def test_the_door():
    with pytest.raises(fdl.errors.InputError, match="noise is 'some'"):
        fdl.doctor.examine(MODEL, LOSS, PARAMS, STATE, X, LABELS, noise="some")
    with pytest.raises(fdl.errors.InputTypeError, match="hand-written backward"):
        fdl.doctor.examine(MODEL, lambda y, t: y[:, 0], PARAMS, STATE, X, LABELS)  # pyright: ignore


def test_a_chart_is_data(chart):
    assert dataclasses.is_dataclass(chart) and jax.tree.structure(chart) == jax.tree.structure(
        jax.tree.map(lambda a: a, chart)
    )


def test_every_field_of_a_masked_batch_is_that_of_its_examples_alone():
    model = fdl.serial(fdl.dense(5), fdl.batch_norm(), fdl.tanh(), fdl.dense(4), fdl.relu(), fdl.dense(3))
    params, state = model.init(jax.random.key(0), (4,), jnp.float64)
    mask = jnp.arange(N) % 3 > 0
    kept = np.flatnonzero(mask)
    of = lambda x, y, **options: examined(model, params, state, x, y, leak=False, spectrum=2, sample=60, **options)
    masked = of(jnp.where(mask[:, None], X, jnp.nan), jnp.where(mask, LABELS, 77), mask=mask)
    alone = of(X[kept], LABELS[kept])
    for field in dataclasses.fields(masked):
        wanted, got = getattr(alone, field.name), getattr(masked, field.name)
        if field.name == "units":
            assert {name: list(of) for name, of in got.items()} == {name: list(of) for name, of in wanted.items()}
        elif field.name != "spectrum" and hasattr(got, "dtype"):
            np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12, err_msg=field.name)


def test_all_singular_values_of_an_orthogonal_jacobian_are_1():
    seen = seen_by(fdl.dense(6), arrays(2, 6))
    for w in (jnp.eye(6), jnp.linalg.qr(arrays(6, 6))[0]):
        seen.params["w"] = w
        np.testing.assert_allclose(singular_values(*spectrum(seen, 4)), np.ones(4), rtol=1e-12)


def test_percentiles_see_the_whole_array():
    halves = jnp.concatenate([jnp.zeros(64), jnp.ones(63)])
    np.testing.assert_array_equal(signals.percentiles([halves], 64)[0], [0, 0, 0, 0, 1, 1, 1])


def test_a_blank_feature_is_not_a_constant_one():
    x = jnp.abs(X).at[:3].set(0.0) - 0.4  # 0 is blank; so it is after a shift
    blank, stuck = (batch.input_facts(x.at[:, 1].set(value))["constant_features"] for value in (-0.4, 0.3))
    assert (int(blank), int(stuck)) == (0, 1)
    assert int(batch.input_facts(x.at[:, 1].set(-5.0))["constant_features"]) == 1  # no other feature has this value


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"spectrum": -1}, "spectrum is -1"),
        ({"sample": 2.5}, "sample is 2.5"),
        ({"optimizer": "adam"}, "optimizer is"),
        ({"previous": {"w": 0}}, "previous is"),
    ],
)
def test_options_are_looked_at(options, said):
    with pytest.raises((fdl.errors.InputError, fdl.errors.InputTypeError), match=said):
        fdl.doctor.examine(MODEL, LOSS, PARAMS, STATE, X, LABELS, **options)
