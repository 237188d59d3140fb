"""Run by test_devices.py in a process of its own with two virtual devices; prints one line per check that held."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import fdl

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

model = fdl.serial(fdl.dense(6), fdl.tanh(), fdl.residual(fdl.dense(6), fdl.gelu()), fdl.dense(3))
loss = fdl.losses.softmax_cross_entropy_with_integer_labels
key = jax.random.key(0)
params, state = model.init(key, (5,), jnp.float64)
x = jax.random.normal(jax.random.key(1), (8, 5), jnp.float64)
labels = jax.random.randint(jax.random.key(2), (8,), 0, 3)


def cost(params, x, labels):
    return loss(model.apply(params, state, x)[0], labels).sum()


def plain_cost(params, x, labels):
    return loss.equation(model.equation(params, state, x)[0], labels).sum()


want = jax.grad(plain_cost, argnums=(0, 1))(params, x, labels)


def same(name, got, want=want):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-11, atol=1e-13), got, want
    )
    print("held:", name, flush=True)


def mesh(kind):
    return jax.make_mesh((2,), ("devices",), axis_types=(kind,))


# shard_map: replicated parameters, sharded examples. The transpose of the cast at the door sums over devices.
local = jax.grad(cost, argnums=(0, 1))
sharded = jax.shard_map(
    local, mesh=mesh(AxisType.Auto), in_specs=(P(), P("devices"), P("devices")), out_specs=(P(), P("devices"))
)
same("shard_map", sharded(params, x, labels))
same("shard_map under jit", jax.jit(sharded)(params, x, labels))

traced = jax.shard_map(
    lambda x, delta: jax.grad(lambda x: jnp.sum(fdl.ops.leaky_relu(x, slope=delta)))(x),
    mesh=mesh(AxisType.Auto),
    in_specs=(P("devices"), P()),
    out_specs=P("devices"),
)
same("shard_map, traced option", traced(x, jnp.asarray(0.3, jnp.float64)), jnp.where(x > 0, jnp.ones_like(x), 0.3))

for kind in (AxisType.Auto, AxisType.Explicit):
    with jax.set_mesh(mesh(kind)):
        on_mesh = (
            jax.device_put(params, jax.tree.map(lambda _: P(), params)),
            jax.device_put(x, P("devices")),
            jax.device_put(labels, P("devices")),
        )
        got = jax.jit(local)(*on_mesh)
        same(f"{kind.name} mesh, jit", got)
        assert got[1].sharding.spec == P("devices", None) or kind is AxisType.Auto, got[1].sharding
        same(f"{kind.name} mesh, eager", local(*on_mesh))

        (value, _), grads = jax.jit(fdl.backprop.value_and_grad(model, loss))(on_mesh[0], {}, *on_mesh[1:])
        same(f"{kind.name} mesh, value_and_grad by hand", grads, jax.tree.map(lambda g: g / 8, want[0]))

        found = jax.jit(lambda p, x, t: fdl.backprop.deltas(model, loss, p, {}, x, t))(*on_mesh)
        same(f"{kind.name} mesh, deltas", x.T @ np.asarray(found["dense_0"]), want[0]["dense_0"]["w"] / 8)

# batch normalization: the statistics are those of the whole batch
normalized = fdl.serial(fdl.dense(6, bias=False), fdl.batch_norm(), fdl.tanh(), fdl.layer_norm(), fdl.dense(3))
params, state = normalized.init(key, (5,), jnp.float64)
value_and_grad = fdl.backprop.value_and_grad(normalized, loss)
(_, want_state), want_grads = value_and_grad(params, state, x, labels)
for kind in (AxisType.Auto, AxisType.Explicit):
    with jax.set_mesh(mesh(kind)):
        replicated = jax.device_put((params, state), P())
        shards = (jax.device_put(x, P("devices")), jax.device_put(labels, P("devices")))
        (_, got_state), got_grads = jax.jit(value_and_grad)(*replicated, *shards)
        same(f"{kind.name} mesh, batch norm by hand", (got_grads, got_state), (want_grads, want_state))
        through_jax = jax.jit(jax.grad(lambda p, s, x, t: loss(normalized.apply(p, s, x, train=True)[0], t).sum() / 8))
        same(f"{kind.name} mesh, batch norm through jax.grad", through_jax(*replicated, *shards), want_grads)

# inside shard_map it takes the name of the axis; the devices have 3 and 1 examples that count
synchronised = fdl.serial(
    fdl.dense(6, bias=False), fdl.batch_norm(axis_name="devices"), fdl.tanh(), fdl.layer_norm(), fdl.dense(3)
)
mask = jnp.asarray([True, True, True, False, True, False, False, False])


def masked_cost(model, params, x, labels, mask):
    y = model.apply(params, state, x, train=True, mask=mask)[0]
    return jnp.where(mask, loss(y, labels), jnp.zeros(mask.shape)).sum()


want = jax.grad(lambda *args: masked_cost(normalized, *args), argnums=(0, 1))(params, x, labels, mask)
on_both = jax.shard_map(
    jax.grad(lambda *args: masked_cost(synchronised, *args), argnums=(0, 1)),
    mesh=mesh(AxisType.Auto),
    in_specs=(P(), P("devices"), P("devices"), P("devices")),
    out_specs=(P(), P("devices")),
)
same("shard_map, batch norm with unequal counts", jax.jit(on_both)(params, x, labels, mask), want)

# recurrence: parameters on every device, examples spread; without a first state the layer makes one like the examples
steps = jax.random.normal(jax.random.key(3), (4, 5, 3), jnp.float64)
seen = jax.random.bernoulli(jax.random.key(4), 0.7, (4, 5))
dy = jax.random.normal(jax.random.key(5), (4, 5, 6), jnp.float64)
recurrent = {"rnn": fdl.rnn(6, truncate=2), "lstm": fdl.lstm(6, peephole=True), "gru": fdl.gru(6, keep="states")}
for name, layer in recurrent.items():
    shapes = jax.eval_shape(lambda layer=layer: layer.init(key, (5, 3), jnp.float64)[0])
    weights = jax.tree.map(lambda p: jnp.asarray(np.cos(np.arange(p.size)).reshape(p.shape)), shapes)

    def total(run, params, x, mask, dy):
        return jnp.sum(dy * run(params, {}, x, mask=mask)[0])

    args = (weights, steps, seen, dy)
    slopes = jax.grad(lambda *args, layer=layer: total(layer.apply, *args), argnums=(0, 1))
    want = jax.jit(jax.grad(lambda *args, layer=layer: total(layer.equation, *args), argnums=(0, 1)))(*args)
    spread = (P(), P("devices"), P("devices"), P("devices"))
    over_both = jax.shard_map(slopes, mesh=mesh(AxisType.Auto), in_specs=spread, out_specs=spread[:2])
    same(f"shard_map, {name}", jax.jit(over_both)(*args), want)
    with jax.set_mesh(mesh(AxisType.Explicit)):
        placed = [jax.device_put(arg, jax.tree.map(lambda _, s=s: s, arg)) for arg, s in zip(args, spread, strict=True)]
        same(f"Explicit mesh, {name}", jax.jit(slopes)(*placed), want)
