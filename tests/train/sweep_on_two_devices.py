"""Run by test_sweep.py with two virtual devices: three members on two of them are what they are on one."""

import jax
import numpy as np
import optax

import fdl

assert jax.device_count() == 2
(x, y), (xt, yt) = fdl.data.digits()
loss = fdl.losses.softmax_cross_entropy_with_integer_labels
how = {"grid": {"learning_rate": [0.1, 0.2, 0.3], "rate": [0.1]}, "valid": (xt, yt), "epochs": 2, "progress": False}


def model(rate):
    return fdl.serial(fdl.dense(16), fdl.relu(), fdl.dropout(rate), fdl.dense(10))


mesh = jax.make_mesh((2,), ("members",))
one, two = (fdl.train.sweep(model, loss, optax.sgd, (x, y), mesh=m, **how) for m in (None, mesh))
for name in ("loss", "valid_loss", "valid_accuracy"):
    np.testing.assert_allclose(one.table[name], two.table[name], rtol=1e-5)
for i in range(3):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one.member(i).params, two.member(i).params
    )
print("held")
