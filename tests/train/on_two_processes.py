"""Run twice by test_processes.py, as the two processes of one run, with two devices each: python on_two_processes.py INDEX PORT."""

import sys

import jax
import numpy as np
import optax

import fdl

index, port = map(int, sys.argv[1:])
jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
(x, y), (xt, yt) = fdl.data.digits()
loss = fdl.losses.softmax_cross_entropy_with_integer_labels
model = fdl.serial(fdl.dense(512), fdl.batch_norm(), fdl.dropout(0.1), fdl.dense(10))
settings = {"valid": (xt, yt), "key": jax.random.key(0), "steps": 5, "batch_size": 64, "progress": False}


def train(mesh):
    return fdl.train.fit(model, loss, optax.sgd(0.1), (x[:600], y[:600]), mesh=mesh, **settings)


alone = train(None)
devices = np.asarray(jax.devices())
mesh = jax.sharding.Mesh(devices.reshape(2, 2), ("data", "model"))
together = train(mesh)
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), alone.params, together.params)
np.testing.assert_allclose(alone.history["valid_loss"], together.history["valid_loss"], rtol=1e-4)
print(f"held in process {index}", flush=True)
