"""Parameters of Flax, Equinox and NNX as they are: the layers are found in what their code computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl

CE = fdl.losses.softmax_cross_entropy_with_integer_labels
rng = np.random.default_rng(0)
X = jnp.asarray(rng.normal(size=(32, 7)), jnp.float32)
Y = jnp.asarray(rng.integers(0, 3, 32), jnp.int32)
DEPTH = 9


def examined(apply, params):
    # the libraries promote dtypes and ranks as they like
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return fdl.doctor.examine_function(apply, params, X, Y, CE)


def of_flax():
    linen = pytest.importorskip("flax.linen")

    class Deep(linen.Module):
        @linen.compact
        def __call__(self, x):
            for _ in range(DEPTH):
                x = linen.sigmoid(linen.Dense(6)(x))
            return linen.Dense(3)(x)

    model = Deep()
    return model.apply, model.init(jax.random.key(0), X)


def of_equinox():
    equinox = pytest.importorskip("equinox")
    model = equinox.nn.MLP(7, 3, 6, DEPTH, jax.nn.sigmoid, key=jax.random.key(0))
    return lambda model, x: jax.vmap(model)(x), model


def of_nnx():
    nnx = pytest.importorskip("flax.nnx")
    rngs, layers, width = nnx.Rngs(0), [], 7
    for _ in range(DEPTH):
        layers += [nnx.Linear(width, 6, rngs=rngs), nnx.sigmoid]
        width = 6
    graph, state = nnx.split(nnx.Sequential(*layers, nnx.Linear(6, 3, rngs=rngs)))
    return lambda state, x: nnx.merge(graph, state)(x), state


@pytest.mark.parametrize("library", [of_flax, of_equinox, of_nnx])
def test_a_deep_sigmoid_network_of_a_library_vanishes(library):
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        apply, params = library()
        chart = examined(apply, params)
        leaves, structure = jax.tree.flatten(params)
        places = [at for at, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

        def cost(arrays):
            every = list(leaves)
            for at, array in zip(places, arrays, strict=True):
                every[at] = array
            return CE(apply(jax.tree.unflatten(structure, every), X), Y).mean()

        loss, grads = jax.value_and_grad(cost)([leaves[at] for at in places])
    assert [name.rstrip("0123456789") for name in chart.names] == ["sigmoid_"] * DEPTH + ["output"]
    np.testing.assert_allclose(chart.loss, loss, rtol=1e-6)
    sizes = sorted(float(jnp.linalg.norm(g)) for g in grads)
    np.testing.assert_allclose(sorted(np.asarray(chart.gradient)), sizes, rtol=1e-4)
    codes = [finding.code for finding in fdl.doctor.diagnose(chart)]
    assert codes[0] == "vanishing"
