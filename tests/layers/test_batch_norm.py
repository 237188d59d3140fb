"""Batch normalization: the paper's identities, the extremes, the running statistics, masks, and batches spread over members."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.errors import InputError, InputTypeError
from fdl.layers._moments import moments
from fdl.layers._sums import sums

fold, population_statistics, terms = fdl.batch_norm.fold, fdl.batch_norm.population_statistics, fdl.batch_norm.terms
NORM = (fdl.batch_norm(), *fdl.batch_norm().init(jax.random.key(0), (3,)))
rng = np.random.default_rng(0)


def arrays(*shape, dtype=np.float64):
    return jnp.asarray(rng.standard_normal(shape), dtype)


def params_of(features):
    return {"scale": arrays(*features), "shift": arrays(*features)}


def close(a, b, rtol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(1, np.abs(b).max())), a, b)


# ---- Algorithm 1 and its backward


def test_mean_0_and_variance_short_of_1_by_eps():
    x = 3 + 2 * arrays(50, 4)
    y, batch = fdl.ops.batch_norm({}, x, eps=0.1)
    close(y.mean(axis=0), jnp.zeros(4))
    close((y**2).mean(axis=0), batch["var"] / (batch["var"] + 0.1))


def test_the_right_scale_and_shift_recover_the_input():
    x = 3 + 2 * arrays(50, 4)
    _, batch = fdl.ops.batch_norm({}, x, eps=0.0)
    y, _ = fdl.ops.batch_norm({"scale": jnp.sqrt(batch["var"]), "shift": batch["mean"]}, x, eps=0.0)
    close(y, x)


@pytest.mark.parametrize("per", ["channel", "activation"])
def test_the_six_formulas_and_the_put_together_one(per):
    x, dy = 1 + arrays(7, 3, 4), arrays(7, 3, 4)
    params = params_of((4,) if per == "channel" else (3, 4))
    named = terms(params, x, dy, per=per)
    out, pull = jax.vjp(lambda params, x: fdl.ops.batch_norm.equation(params, x, per=per)[0], params, x)
    want, want_dx = pull(dy)
    close({"scale": named["dscale"], "shift": named["dshift"]}, want)
    close(named["dx"], want_dx)
    assert set(named) == {"dnormalized", "dvar", "dmean", "dx", "dscale", "dshift"}
    # dvar and dmean are the cotangents of the statistics where they are arguments
    _, pull = jax.vjp(
        lambda mean, var: fdl.ops.batch_norm_inference.equation(params, x, mean, var, per=per),
        *(fdl.ops.batch_norm({}, x, per=per)[1][name] for name in ("mean", "var")),
    )
    close((named["dmean"], named["dvar"]), pull(dy))


def test_the_error_loses_its_mean_and_its_share_along_the_output():
    x, dy = arrays(20, 3), arrays(20, 3)
    out, residuals = fdl.ops.batch_norm.forward({}, x, eps=0.0)
    _, dx, _ = fdl.ops.batch_norm.backward(residuals, (dy, jax.tree.map(jnp.zeros_like, out[1])), eps=0.0)
    close(dx.sum(axis=0), jnp.zeros(3))
    close((dx * out[0]).sum(axis=0), jnp.zeros(3))


def test_a_bias_before_it_gets_no_gradient_and_a_scaled_weight_changes_nothing():
    u, w, b, dy = arrays(20, 4), arrays(4, 3), arrays(3), arrays(20, 3)
    after = lambda u, w, b: jnp.vdot(dy, fdl.ops.batch_norm({}, u @ w + b[None], eps=0.0)[0])
    du, dw, db = jax.grad(after, (0, 1, 2))(u, w, b)
    du7, dw7, _ = jax.grad(after, (0, 1, 2))(u, 7 * w, b)
    close(db, jnp.zeros(3))
    close((du7, 7 * dw7), (du, dw))
    assert abs(jnp.vdot(w, dw)) < 1e-12, "so that under gradient descent the weight can only grow"


# ---- extremes


@pytest.mark.parametrize(
    ("mean", "deviation", "rtol"), [(1e4, 1.0, 1e-4), (1e4, 1e-2, 5e-3), (1e6, 1.0, 5e-3), (0, 1e25, 1e-5)]
)
@pytest.mark.parametrize("name", ["batch_norm", "layer_norm", "group_norm", "instance_norm"])
def test_large_means_and_deviations_in_float32(name, mean, deviation, rtol):
    x = np.float32(mean + deviation * rng.standard_normal((2, 256, 6))).astype(np.float32)
    axes = {"batch_norm": (0, 1), "layer_norm": (2,), "group_norm": (1, 2), "instance_norm": (1,)}[name]
    options = {"groups": 1} if name == "group_norm" else {}
    wide = x.astype(np.float64)
    want = (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + 1e-5)
    got = getattr(fdl.ops, name)({}, jnp.asarray(x), **options)
    got = got[0] if name == "batch_norm" else got
    np.testing.assert_allclose(got, want, rtol=0, atol=rtol * np.abs(want).max())


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1), (1, 3), (0, 3)])
def test_sums_of_blocks_are_the_sums(axes):
    x, y = arrays(21, 6, 2, 32), arrays(21, 6, 2, 32)
    got, pull = jax.vjp(lambda x, y: sums((x, y), axes), x, y)
    want, want_pull = jax.vjp(lambda x, y: tuple(a.sum(axes, keepdims=True) for a in (x, y)), x, y)
    close(got, want)
    cotangent = (arrays(*got[0].shape), arrays(*got[1].shape))
    close(pull(cotangent), want_pull(cotangent))


@pytest.mark.parametrize(
    ("rows", "mean", "deviation", "outlier"),
    [(65_536, 1e4, 1e-2, None), (1024, 1e4, 1e-2, 2e4), (1024, 0.0, 1.0, 1e6), (1021, 1e6, 1.0, None)],
    ids=["many rows", "an outlier first", "an outlier far off", "a prime number of rows"],
)
def test_the_variance_in_one_pass_keeps_its_digits(rows, mean, deviation, outlier):
    x = np.asarray(mean + deviation * rng.standard_normal((rows, 3)), np.float32)
    if outlier is not None:
        x[0] = outlier
    found, wide = moments(jnp.asarray(x), (0,), 1e-5), x.astype(np.float64)
    np.testing.assert_allclose(found.var[0], wide.var(0), rtol=1e-5)
    np.testing.assert_allclose(found.centred(jnp.asarray(x)).mean(0), 0, atol=2e-5 * wide.std(0).max())


def test_after_a_pooling_a_mask_of_steps_is_one_of_examples():
    """An example of which no step counts is none of the batch."""
    model = fdl.serial(fdl.global_avg_pool(), fdl.batch_norm())
    params, state = model.init(jax.random.key(0), (4, 3), jnp.float64)
    x, mask = arrays(5, 4, 3), jnp.asarray([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]], bool)
    y, seen = model.apply(params, state, x, train=True, mask=mask)
    kept = np.array([0, 1, 3, 4])
    want, want_seen = model.apply(params, state, x[kept], train=True, mask=mask[kept])
    close((y[kept], seen), (want, want_seen))
    assert not y[2].any()


def test_fast_is_wrong_where_the_mean_is_large():
    x = jnp.asarray(1e4 + rng.standard_normal((256, 4)), jnp.float32)
    y, _ = fdl.ops.batch_norm({}, x, fast=True)
    assert np.abs(np.asarray(y).std(axis=0) - 1).max() > 0.1


def test_rms_norm_of_large_entries():
    x = jnp.asarray(1e25 * rng.standard_normal((3, 64)), jnp.float32)
    np.testing.assert_allclose((fdl.ops.rms_norm({}, x) ** 2).mean(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    "op", [fdl.ops.layer_norm, fdl.ops.group_norm.bind(groups=1), fdl.ops.instance_norm, fdl.ops.rms_norm]
)
def test_an_empty_batch_has_an_empty_output_and_no_gradient(op):
    params = {"scale": jnp.full(3, 2.0)}
    y, pull = jax.vjp(op, params, jnp.zeros((0, 5, 3)))
    dparams, dx = pull(y)
    assert y.shape == dx.shape == (0, 5, 3)
    assert not dparams["scale"].any()


@pytest.mark.parametrize("x", [np.full((1, 3), 2.0), np.full((5, 3), 2.0)], ids=["a batch of one", "all equal"])
@pytest.mark.parametrize("eps", [1e-5, 0.0])
def test_no_variance(x, eps):
    params, x = params_of((3,)), jnp.asarray(x)
    (y, _), pull = jax.vjp(lambda x: fdl.ops.batch_norm(params, x, eps=eps), x)
    close(y, jnp.broadcast_to(params["shift"], y.shape))
    dx = pull((arrays(*x.shape), {"mean": jnp.zeros(3), "var": jnp.zeros(3)}))[0]
    assert jnp.isfinite(dx).all()
    if len(x) == 1 or eps == 0:
        close(dx, jnp.zeros_like(dx))


def test_what_is_masked_does_not_count_even_if_it_is_nan():
    x, dy, mask = arrays(6, 5, 3), arrays(6, 5, 3), jnp.asarray(rng.random((6, 5)) < 0.5).at[0, 0].set(True)
    params, kept = params_of((3,)), np.asarray(mask)
    poisoned = jnp.where(mask[..., None], x, jnp.nan)
    zero = {"mean": jnp.zeros(3), "var": jnp.zeros(3)}
    (y, batch), pull = jax.vjp(lambda p, x: fdl.ops.batch_norm(p, x, mask), params, poisoned)
    (want, want_batch), want_pull = jax.vjp(lambda p, x: fdl.ops.batch_norm(p, x), params, x[kept])
    (dparams, dx), (want_dparams, want_dx) = pull((dy, zero)), want_pull((dy[kept], zero))
    close((y[kept], batch, dparams, dx[kept]), (want, want_batch, want_dparams, want_dx))
    assert not y[~kept].any() and not dx[~kept].any()
    nothing, _ = fdl.ops.batch_norm(params, poisoned, jnp.zeros((6, 5), bool))
    assert not nothing.any()


# ---- the layer


MODEL = fdl.serial(fdl.dense(4, bias=False), fdl.batch_norm(momentum=0.9), fdl.sigmoid(), fdl.dense(2))


def test_the_first_step_is_worth_its_whole_average():
    """Debiased: after one batch the averages are that batch's, with the variance unbiased."""
    params, state = MODEL.init(jax.random.key(0), (3,), jnp.float64)
    x = arrays(10, 3)
    _, state = MODEL.apply(params, state, x, train=True)
    kept = state["batch_norm_1"]
    z = x @ params["dense_0"]["w"]
    close(kept["mean"] / kept["weight"], z.mean(axis=0))
    close(kept["var"] / kept["weight"], z.var(axis=0, ddof=1))
    close(kept["weight"], jnp.asarray(0.1))


def test_running_averages_over_steps_and_both_names_of_the_momentum():
    layer, same = fdl.batch_norm(momentum=0.9), fdl.batch_norm(update=0.1)
    params, state = layer.init(jax.random.key(0), (3,), jnp.float64)
    batches = [1 + arrays(6, 3) for _ in range(4)]
    mean, weight, other = jnp.zeros(3), 0.0, state
    for x in batches:
        _, state = layer.apply(params, state, x, train=True)
        _, other = same.apply(params, other, x, train=True)
        mean, weight = 0.9 * mean + 0.1 * x.mean(axis=0), 0.9 * weight + 0.1
    close(state["mean"], mean)
    close(state["weight"], jnp.asarray(weight))
    close(other, state)
    y, unchanged = layer.apply(params, state, batches[0])
    assert unchanged is state
    var = state["var"] / state["weight"]
    close(y, (batches[0] - mean[None] / weight) / jnp.sqrt(var + 1e-5)[None])


def test_before_training_it_is_the_identity_up_to_eps():
    layer = fdl.batch_norm()
    params, state = layer.init(jax.random.key(0), (3,), jnp.float64)
    x = arrays(5, 3)
    close(layer.apply(params, state, x)[0], x / jnp.sqrt(1 + 1e-5))


def test_a_batch_of_one_leaves_the_averages():
    layer = fdl.batch_norm()
    params, state = layer.init(jax.random.key(0), (3,), jnp.float64)
    _, state = layer.apply(params, state, arrays(5, 3), train=True)
    y, after = layer.apply(params, state, arrays(1, 3), train=True)
    close(after, state, 0)
    assert not y.any()
    mask = jnp.asarray([True, False, False])
    close(layer.apply(params, state, arrays(3, 3), train=True, mask=mask)[1], state, 0)


def test_a_padded_batch_trains_as_the_batch():
    params, state = MODEL.init(jax.random.key(0), (3,), jnp.float64)
    x, dy = arrays(5, 3), arrays(5, 2)
    padded, mask = jnp.concatenate([x, jnp.full((2, 3), jnp.nan)]), jnp.arange(7) < 5
    y, seen, residuals = MODEL.forward(params, state, padded, train=True, mask=mask)
    want, want_seen, want_residuals = MODEL.forward(params, state, x, train=True)
    close((y[:5], seen), (want, want_seen))
    dy_padded = jnp.concatenate([dy, jnp.zeros((2, 2))])
    dparams, dx = MODEL.backward(residuals, dy_padded)
    want_dparams, want_dx = MODEL.backward(want_residuals, dy)
    close((dparams, dx[:5]), (want_dparams, want_dx))


@pytest.mark.parametrize("train", [True, False])
def test_the_whole_model_by_hand_is_the_model_by_autodiff(train):
    params, state = MODEL.init(jax.random.key(0), (3,), jnp.float64)
    _, state = MODEL.apply(params, state, arrays(6, 3), train=True)
    x, dy = arrays(6, 3), arrays(6, 2)
    _, _, residuals = MODEL.forward(params, state, x, train=train)
    want = jax.vjp(lambda p, x: MODEL.equation(p, state, x, train=train)[0], params, x)[1](dy)
    close(MODEL.backward(residuals, dy), want)
    assert fdl.check.layer(MODEL, x, train=train, modes="quick").ok


# ---- Algorithm 2, and folding


def test_population_statistics_are_the_averages_over_batches():
    params, state = MODEL.init(jax.random.key(0), (3,), jnp.float64)
    batches = [i + arrays(8, 3) for i in range(3)]
    found = population_statistics(MODEL, params, state, batches)["batch_norm_1"]
    zs = [x @ params["dense_0"]["w"] for x in batches]
    close(found["mean"], sum(z.mean(axis=0) for z in zs) / 3)
    close(found["var"], 8 / 7 * sum(z.var(axis=0) for z in zs) / 3)
    close(found["weight"], jnp.ones(()))


def test_population_statistics_do_not_depend_on_the_momentum():
    batches, found = [arrays(8, 3), arrays(8, 3)], []
    for momentum in (0.5, 1.0):
        model = fdl.serial(fdl.batch_norm(momentum))
        found.append(population_statistics(model, *model.init(jax.random.key(0), (3,), jnp.float64), batches))
    close(*found)


def test_population_statistics_reach_nested_layers_and_leave_the_rest():
    model = fdl.serial(fdl.residual(fdl.dense(3), fdl.batch_norm(), fdl.dropout(0.5)), fdl.batch_norm())
    params, state = model.init(jax.random.key(0), (3,), jnp.float64)
    x = arrays(40, 3)
    found = population_statistics(model, params, state, [x[:20], x[20:]], key=jax.random.key(1))
    assert jax.tree.structure(found) == jax.tree.structure(state)
    assert float(found["residual_0"]["batch_norm_1"]["weight"]) == 1 == float(found["batch_norm_1"]["weight"])
    with pytest.raises(InputError, match="has no batch_norm layer"):
        population_statistics(fdl.serial(fdl.dense(2)), {}, {}, [x])
    with pytest.raises(InputError, match="got no batches"):
        population_statistics(model, params, state, [])


def test_folding_is_exact_up_to_rounding():
    model = fdl.serial(
        fdl.dense(5, bias=False),
        fdl.batch_norm(scale=False),
        fdl.residual(fdl.dense(5), fdl.batch_norm(eps=0.1), fdl.relu(), fdl.batch_norm()),
        fdl.dense(2),
    )
    params, state = model.init(jax.random.key(0), (3,), jnp.float64)
    for _ in range(3):
        _, state = model.apply(params, state, 1 + arrays(9, 3), train=True)
    x = arrays(6, 3)
    folded, folded_params, folded_state = fold(model, params, state)
    assert folded.names == ("dense_0", "residual_2/dense_0", "residual_2/relu_2", "residual_2/batch_norm_3", "dense_3")
    close(folded.apply(folded_params, folded_state, x)[0], model.apply(params, state, x)[0])
    with pytest.raises(InputTypeError, match="wanted an fdl.Layer"):
        fold(lambda x: x, params, state)  # pyright: ignore[reportArgumentType]


def test_folding_into_depthwise_and_nested_layers():
    model = fdl.serial(
        fdl.separable_conv(3, (2,)),
        fdl.batch_norm(),
        fdl.depthwise_conv((2,), bias=False),
        fdl.batch_norm(),
        fdl.serial(fdl.conv(2, (2,)), fdl.relu()),
        fdl.batch_norm(),
    )
    params, state = model.init(jax.random.key(0), (5, 2), jnp.float64)
    _, state = model.apply(params, state, 1 + arrays(4, 5, 2), train=True)
    x = arrays(3, 5, 2)
    folded, folded_params, folded_state = fold(model, params, state)
    # the last one follows a relu
    assert [name for name in folded.names if "batch_norm" in name] == ["batch_norm_5"]
    close(folded.apply(folded_params, folded_state, x)[0], model.apply(params, state, x)[0])


def test_inference_does_not_depend_on_the_other_examples():
    params, state = MODEL.init(jax.random.key(0), (3,), jnp.float64)
    _, state = MODEL.apply(params, state, arrays(6, 3), train=True)
    x = arrays(6, 3)
    close(MODEL.apply(params, state, x)[0][:2], MODEL.apply(params, state, x[:2])[0], 1e-14)


# ---- a batch spread over members


@pytest.mark.parametrize("counts", [None, (3, 5, 0)])
def test_members_with_unequal_counts_see_the_statistics_of_all(counts):
    """Three members under vmap with a named axis, as devices of a mesh would be."""
    x, dy, params = 1e3 + arrays(3, 5, 2), arrays(3, 5, 2), params_of((2,))
    mask = None if counts is None else jnp.arange(5)[None] < jnp.asarray(counts)[:, None]
    zero = {"mean": jnp.zeros(2), "var": jnp.zeros(2)}

    def member(x, dy, mask):
        (y, batch), pull = jax.vjp(lambda p, x: fdl.ops.batch_norm(p, x, mask, axis_name="members"), params, x)
        return y, batch, pull((dy, zero))

    y, batch, (dparams, dx) = jax.vmap(member, axis_name="members", in_axes=(0, 0, None if mask is None else 0))(
        x, dy, mask
    )
    kept = np.ones((3, 5), bool) if mask is None else np.asarray(mask)
    (want, want_batch), pull = jax.vjp(lambda p, x: fdl.ops.batch_norm(p, x), params, x[kept])
    want_dparams, want_dx = pull((dy[kept], zero))
    close((y[kept], dx[kept]), (want, want_dx), 1e-9)
    close(jax.tree.map(lambda a: a[1], batch), want_batch, 1e-9)
    close(jax.tree.map(lambda a: a.sum(axis=0), dparams), want_dparams, 1e-9)


def test_a_first_member_without_entries_costs_no_digits():
    x = 1e6 + arrays(2, 64, 3).astype(jnp.float32)
    mask = jnp.asarray([[False], [True]]) & jnp.ones((2, 64), bool)
    normalized = jax.vmap(lambda x, m: fdl.ops.batch_norm({}, x, m, axis_name="members")[0], axis_name="members")
    want = fdl.ops.batch_norm({}, x[1].astype(jnp.float64))[0]
    np.testing.assert_allclose(normalized(x, mask)[1], want, atol=1e-4)


# ---- the door


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: fdl.batch_norm(momentum=1.5), InputError, "momentum is 1.5"),
        (lambda: fdl.batch_norm(momentum=0.5, update=0.5), InputError, "wanted one of them: update = 1 - momentum"),
        (lambda: fdl.batch_norm(per="pixel"), InputError, "per is 'pixel'"),
        (lambda: fdl.batch_norm(eps=-1.0), InputError, "eps is -1.0"),
        (lambda: fdl.batch_norm(scale=1), InputTypeError, "scale is int 1"),  # pyright: ignore[reportArgumentType]
        (lambda: fdl.ops.batch_norm({}, jnp.ones(3)), InputError, "examples first, features last"),
        (lambda: fdl.ops.batch_norm({}, jnp.ones((0, 3))), InputError, "leave out empty batches"),
        (lambda: fdl.ops.batch_norm({"gamma": jnp.ones(3)}, jnp.ones((2, 3))), InputError, "'scale' and 'shift'"),
        (lambda: fdl.ops.batch_norm({"scale": jnp.ones(2)}, jnp.ones((2, 3))), InputError, "scale has shape"),
        (lambda: fdl.ops.batch_norm({}, jnp.ones((2, 3)), jnp.ones(3, bool)), InputError, "mask has shape"),
        (lambda: fdl.ops.batch_norm({}, jnp.ones((2, 3)), jnp.ones(2)), InputTypeError, "wanted booleans"),
        (lambda: fdl.ops.batch_norm({}, jnp.ones((2, 3), jnp.int32)), InputTypeError, "wanted a floating dtype"),
        (lambda: fdl.ops.group_norm({}, jnp.ones((2, 3)), groups=2), InputError, "does not divide the 3 features"),
        (lambda: fdl.group_norm(0), InputError, "groups is 0"),
        (lambda: fdl.serial(fdl.group_norm(2)).init(jax.random.key(0), (3,)), InputError, "does not divide"),
        (lambda: fdl.ops.instance_norm({}, jnp.ones((2, 3))), InputError, "at least one axis of places"),
        (lambda: fdl.ops.instance_norm({}, jnp.ones((2, 3, 4)), eps=-1), InputError, "instance_norm: eps is -1"),
        (lambda: fdl.ops.instance_norm({}, jnp.ones((2, 0, 4))), InputError, "instance_norm: .* no places"),
        (lambda: fdl.ops.group_norm({}, jnp.ones((2, 0, 4)), groups=2), InputError, "group_norm: .* no places"),
        (lambda: fdl.instance_norm(shift="no"), InputTypeError, "shift is str"),  # pyright: ignore[reportArgumentType]
        (lambda: fdl.group_norm(1, scale=0), InputTypeError, "scale is int 0"),  # pyright: ignore[reportArgumentType]
        (lambda: fdl.layer_norm(scale=0), InputTypeError, "scale is int 0"),  # pyright: ignore[reportArgumentType]
        (lambda: fdl.rms_norm(scale=0), InputTypeError, "scale is int 0"),  # pyright: ignore[reportArgumentType]
        (lambda: terms({}, jnp.ones((2, 3)), jnp.ones((3, 2))), InputError, "batch_norm.terms: dy has shape"),
        (lambda: terms({}, jnp.ones((2, 3)), jnp.ones((2, 3)), per="pixel"), InputError, "per is 'pixel'"),
        (lambda: population_statistics(3, {}, {}, []), InputTypeError, "wanted an fdl.Layer"),  # pyright: ignore[reportArgumentType]
        (lambda: population_statistics(*NORM, 3), InputTypeError, "batches is"),  # pyright: ignore[reportArgumentType]
        (lambda: population_statistics(*NORM, [jnp.ones((1, 3), jnp.float32)]), InputError, "no batch has two entries"),
        (lambda: fold(fdl.serial(fdl.dense(3), fdl.batch_norm()), {}, {}), InputError, "the state of a batch_norm is"),
        (lambda: fdl.ops.layer_norm({}, jnp.ones((2, 3)), dims=0), InputError, "dims is 0"),
        (lambda: fdl.ops.rms_norm({"shift": jnp.ones(3)}, jnp.ones((2, 3))), InputError, "'scale'"),
    ],
)
def test_the_door(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_an_axis_that_is_not_there_is_named():
    model = fdl.batch_norm(axis_name="replicas")
    with pytest.raises(InputError, match="there is no axis 'replicas' here"):
        fdl.summary(model, (3,))
    with pytest.raises(InputError, match="there is no axis 'replicas' here"):
        population_statistics(model, *NORM[1:], [jnp.ones((2, 3), jnp.float32)])
