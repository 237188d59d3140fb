import jax
import jax.numpy as jnp
import pytest

import fdl


@pytest.fixture
def params(getkey):
    """Two dense layers in float64; no entry is 0."""
    model = fdl.serial(fdl.dense(4), fdl.tanh(), fdl.dense(3))
    return jax.tree.map(lambda p: p + 0.5, model.init(getkey(), (5,), jnp.float64)[0])
