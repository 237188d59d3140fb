"""Run by test_mesh.py in a process of its own with eight virtual devices; prints one line per check that held."""

import jax
import numpy as np
import optax

import fdl

assert jax.device_count() == 8
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

(x, y), (xt, yt) = fdl.data.digits(images=True)
x, y = x[:200], y[:200]  # not a multiple of the batch: the last one is padded and masked
loss = fdl.losses.softmax_cross_entropy_with_integer_labels
model = fdl.serial(
    *(fdl.conv(4, (3, 3)), fdl.batch_norm(), fdl.relu(), fdl.max_pool((2, 2)), fdl.flatten()),
    *(fdl.dense(512), fdl.tanh(), fdl.dropout(0.2), fdl.dense(10)),
)


def train(mesh, **kwargs):
    settings = {"key": jax.random.key(0), "epochs": 2, "batch_size": 16, "progress": False, "mesh": mesh} | kwargs
    return fdl.train.fit(model, loss, optax.sgd(0.05, momentum=0.9), (x, y), valid=(xt, yt), **settings)


def mesh(**axes):
    count = int(np.prod(list(axes.values())))
    return jax.sharding.Mesh(np.asarray(jax.devices()[:count]).reshape(*axes.values()), tuple(axes))


one = train(None)
for axes in ({"data": 2}, {"data": 8}, {"data": 2, "model": 4}):
    many = train(mesh(**axes))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5), one.params, many.params)
    np.testing.assert_allclose(one.history["valid_loss"], many.history["valid_loss"], rtol=1e-4)
    # synchronised: the running averages are those of whole batches
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one.state, many.state)
    if axes == {"data": 2, "model": 4}:
        wide, narrow = many.params["dense_5"]["w"], many.params["dense_8"]["w"]
        assert wide.sharding.spec == jax.sharding.PartitionSpec(None, "model") and narrow.sharding.is_fully_replicated
        assert wide.addressable_shards[0].data.shape == (wide.shape[0], 128)
    print("held:", axes, flush=True)

explicit = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
again = train(explicit)
jax.tree.map(np.testing.assert_array_equal, again.params, train(mesh(data=8)).params)
print("held: an explicit mesh is used with automatic axes", flush=True)

try:
    train(mesh(data=8), batch_size=12)
except ValueError as error:
    assert "batch_size is 12 and the mesh has 8 devices" in str(error)
    print("held: a batch that cannot be cut is refused", flush=True)
