"""`examine_function` on a plain function: the numbers of `examine` where both see the same, and every kind of activation found."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl

LOSS = fdl.losses.softmax_cross_entropy_with_integer_labels
rng = np.random.default_rng(0)
N = 6
X, LABELS = jnp.asarray(rng.standard_normal((N, 4))), jnp.asarray([0, 1, 2, 2, 1, 2])
MODEL = fdl.serial(fdl.dense(5), fdl.tanh(), fdl.dense(4), fdl.relu(), output=fdl.dense(3))


def apply(params, x):
    for name, f in (("dense_0", jnp.tanh), ("dense_2", jax.nn.relu), ("output", lambda x: x)):
        x = f(x @ params[name]["w"] + params[name]["b"].reshape(1, -1))
    return x


def plain_loss(y, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(y), labels[:, None], axis=1)[:, 0]


@pytest.fixture(scope="module")
def both():
    params, state = MODEL.init(jax.random.key(0), (4,), jnp.float64)
    params = jax.tree.map(lambda a: a + 0.3 * jnp.asarray(rng.standard_normal(a.shape)), params)
    params["dense_2"]["b"] = params["dense_2"]["b"].at[1].set(-50.0)
    ours = fdl.doctor.examine(MODEL, LOSS, params, state, X, LABELS, None, optax.sgd(0.1), previous=params)
    of = lambda params: fdl.doctor.examine_function(
        apply, params, X, LABELS, plain_loss, optimizer=optax.sgd(0.1), previous=params
    )
    return ours, jax.jit(of)(params)


def test_activations_and_their_errors(both):
    ours, theirs = both
    assert theirs.names == ("tanh_0", "relu_1", "output")
    places = [ours.names.index(name) for name in ("tanh_1", "relu_3", "output")]
    for field in ("error", "output_rms", "saturated", "output_percentiles", "error_percentiles"):
        np.testing.assert_allclose(getattr(theirs, field), np.asarray(getattr(ours, field))[places], rtol=1e-9)
    assert theirs.units["relu_1"].tolist() == ours.units["relu_3"].tolist()
    assert theirs.units["relu_1"][1] == 1
    assert theirs.leak[-1] == 0


def test_parameters(both):
    ours, theirs = both
    order = [ours.parameters.index(name) for name in theirs.parameters]
    for field in ("weight", "gradient", "update", "noise", "cosine", "weight_spread", "gradient_spread"):
        np.testing.assert_allclose(getattr(theirs, field), np.asarray(getattr(ours, field))[order], rtol=1e-8)
    np.testing.assert_allclose(theirs.loss, ours.loss, rtol=1e-12)
    assert fdl.doctor.diagnose(theirs)[0].code == fdl.doctor.diagnose(ours)[0].code


@pytest.mark.parametrize(
    ("f", "kind"),
    [
        (jnp.tanh, "tanh"),
        (jax.nn.sigmoid, "sigmoid"),
        (jax.nn.relu, "relu"),
        (lambda x: jnp.maximum(x, 0), "relu"),
        (jax.nn.silu, "silu"),
        (jax.nn.elu, "elu"),
        (jax.nn.softplus, "softplus"),
        (jax.nn.relu6, "relu6"),
    ],
)
def test_kinds_of_activations(f, kind):
    w = jnp.asarray(rng.standard_normal((4, 3)))
    run = lambda w, x: f(x @ w)
    chart = fdl.doctor.examine_function(run, w, X, LABELS, plain_loss, noise=False)
    assert chart.kinds == (kind, "output")
    error = jax.grad(lambda z: jnp.mean(plain_loss(z, LABELS)))(run(w, X))
    np.testing.assert_allclose(chart.error[0], np.sqrt(N * np.sum(error**2)), rtol=1e-9)


def test_a_gelu_is_seen_at_its_error_function():
    w = jnp.asarray(rng.standard_normal((4, 3)))
    run = lambda w, x: jax.nn.gelu(x @ w, approximate=False)
    assert fdl.doctor.examine_function(run, w, X, LABELS, plain_loss, noise=False).kinds == ("erf", "output")


def test_a_loop_over_time_is_a_layer():
    def run(w, x):
        def step(h, x):
            h = jnp.tanh(h @ w["u"] + x @ w["w"])
            return h, h

        _, hs = jax.lax.scan(step, jnp.zeros((len(x), 3)), jnp.stack([x, 2 * x]))
        return hs[-1]

    w = {"u": jnp.asarray(rng.standard_normal((3, 3))), "w": jnp.asarray(rng.standard_normal((4, 3)))}
    chart = fdl.doctor.examine_function(run, w, X, LABELS, plain_loss)
    assert chart.kinds == ("scan", "output") and np.isfinite(chart.error).all()


def test_leaks_and_values_that_are_not_finite_are_found():
    centred = lambda w, x: jnp.tanh(x @ w - jnp.mean(x @ w, axis=0, keepdims=True))
    w = jnp.asarray(rng.standard_normal((4, 3)))
    leaking = fdl.doctor.examine_function(centred, w, X, LABELS, plain_loss)
    assert fdl.doctor.diagnose(leaking)[0].code == "example_leak"
    root = lambda w, x: jnp.sqrt(jax.nn.relu(x @ w))
    broken = fdl.doctor.examine_function(root, w, X, LABELS, plain_loss, noise=False)
    finding = fdl.doctor.diagnose(broken)[0]
    assert finding.code == "non_finite" and broken.born.startswith(("backward", "gradient"))


def test_what_is_no_parameter_is_left_alone():
    params = {"w": jnp.asarray(rng.standard_normal((4, 3))), "count": jnp.asarray(3), "f": jnp.tanh}
    run = lambda params, x: params["f"](x @ params["w"])
    chart = fdl.doctor.examine_function(run, params, X, LABELS, plain_loss)
    assert chart.parameters == ("w",) and chart.kinds == ("tanh", "output")


def test_the_door():
    with pytest.raises(fdl.errors.InputError, match="one value per example"):
        fdl.doctor.examine_function(lambda w, x: x @ w, jnp.ones((4, 3)), X, LABELS, lambda y, t: jnp.mean(y))
    with pytest.raises(fdl.errors.InputTypeError, match="out of the tuple"):
        fdl.doctor.examine_function(lambda w, x: (x @ w, w), jnp.ones((4, 3)), X, LABELS, plain_loss)


def test_a_tree_with_functions_has_an_update_and_a_variance_is_no_relu():
    params = {"w": jnp.asarray(rng.standard_normal((4, 3))), "f": jnp.tanh}
    floor = lambda h: jnp.maximum(0.0, jnp.mean(h * h, axis=0) - jnp.mean(h, axis=0) ** 2)
    run = lambda params, x: params["f"](x @ params["w"]) / jnp.sqrt(1 + floor(x @ params["w"])).reshape(1, -1)
    chart = fdl.doctor.examine_function(run, params, X, LABELS, plain_loss, optimizer=optax.sgd(0.1), noise=False)
    assert chart.kinds == ("tanh", "output") and chart.update[0] > 0
