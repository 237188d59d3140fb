"""Many small models at once: fdl's sweep against torch.func, plain JAX and one model after the other.

Claim: 32 trainings as one program cost less per model than one model alone, and many times less than PyTorch's way of doing it.

Work: one step of one of 32 models 64-32-10 (relu, batch 32, plain gradient descent, 32 learning rates) on the digits that come
with fdl; with --full also 784-100-100-100-10 (sigmoid, batch 60) on random pictures. All members meet the same batches, start from
the same weights, and differ in their learning rate.

Variants: `fdl.train.sweep` as a whole, with its checks and its table; the loop inside it; a Python loop over `fdl.train.fit`; plain JAX, a
scan over a vmapped `jax.grad`; PyTorch `torch.func.vmap(grad)` with stacked parameters, on 1 thread and on all. Before anything is timed
each must end within 1e-4 of a float64 computation in NumPy: the mean loss of every member, relative to the largest.
"""

# pyright: reportMissingImports=false
# (the peers are optional)

import os
from typing import Any

import numpy as np

from benchmarks._harness import Row, Settings, Trial, Variant, Work, compare, result_of
from benchmarks.mlp import CASES, Case, Order, Problem, numpy_training, problem

MEMBERS = 32
EPOCHS = {"digits": 10, "wide": 1}


def rates() -> np.ndarray:
    return np.linspace(0.02, 0.2, MEMBERS).astype(np.float32)


def _model(c: Case) -> Any:
    import fdl

    activation = {"relu": fdl.relu, "sigmoid": fdl.sigmoid}[c.activation]
    layers = [layer for width in c.sizes[1:-1] for layer in (fdl.dense(width), activation())]
    return fdl.serial(*layers, fdl.dense(c.sizes[-1]))


def start(case: str) -> Trial:
    """The order in which the members visit the examples, and their first weights: those of seed 0."""
    import jax

    from fdl.train.loop import epoch_order

    c = CASES[case]
    init_key, train_key = jax.random.split(jax.random.key(0))
    key, _ = jax.random.split(train_key)
    order = np.concatenate([np.asarray(epoch_order(key, e, c.examples, c.batch)[0]) for e in range(EPOCHS[case])])
    params, _ = _model(c).init(init_key, c.sizes[:1])
    names = sorted(params, key=lambda name: int(name.split("_")[1]))
    return Trial((order, [(np.asarray(params[n]["w"]), np.asarray(params[n]["b"])) for n in names]))


def _problem(case: str, first: tuple[Order, Any]) -> Problem:
    order, weights = first
    p = problem(CASES[case], order)
    return Problem(p.x, p.y, order, weights)


def numpy_reference(case: str, first: tuple[Order, Any]) -> Trial:
    """The first and the last member's training in float64, from the textbook."""
    c, p = CASES[case], _problem(case, first)
    losses = [np.mean(numpy_training(c, p, float(rate))[0]) for rate in (rates()[0], rates()[-1])]
    return Trial({"loss": np.asarray(losses)})


def _result(losses: Any) -> dict[str, Any]:
    """losses: [M], each member's mean over all steps."""
    losses = np.asarray(losses, np.float64)
    return {"loss": losses[[0, -1]]}


def fdl_sweep(case: str, first: tuple[Order, Any]) -> Trial:
    """`fdl.train.sweep`, everything included."""
    import jax
    import optax

    import fdl

    c, p = CASES[case], _problem(case, first)
    data = jax.device_put((p.x, p.y))
    loss = fdl.losses.softmax_cross_entropy_with_integer_labels
    how = {"epochs": EPOCHS[case], "batch_size": c.batch, "progress": False}
    model = _model(c)

    def train() -> Any:
        return fdl.train.sweep(model, loss, optax.sgd, data, grid={"learning_rate": rates().tolist()}, **how)

    result = train()
    return Trial(_result(result.histories["loss"].mean(axis=1)), train, MEMBERS * len(p.order))


def fdl_team(case: str, first: tuple[Order, Any]) -> Trial:
    """The loop of the sweep: compiled before, the losses read after it."""
    import jax
    import optax

    import fdl
    from fdl.train.grid import Takers
    from fdl.train.team import Plan, Team

    c, p = CASES[case], _problem(case, first)
    loss = fdl.losses.softmax_cross_entropy_with_integer_labels
    plan = Plan(Takers(_model(c), loss, optax.sgd, None), "manual", None, 1, c.batch, "auto", None, ())
    x, y = jax.device_put((p.x, p.y))
    team = Team(plan, [{"learning_rate": float(rate), "seed": 0} for rate in rates()], x, y, None)
    steps = len(p.order)

    def train() -> Any:
        return team.advance(0, steps)

    return Trial(_result(train().mean(axis=1)), train, MEMBERS * steps)


def fdl_fits(case: str, first: tuple[Order, Any]) -> Trial:
    """`fdl.train.fit`, member after member, from the same Python process."""
    import jax
    import optax

    import fdl

    c, p = CASES[case], _problem(case, first)
    data = jax.device_put((p.x, p.y))
    loss = fdl.losses.softmax_cross_entropy_with_integer_labels
    optimizers = [optax.sgd(float(rate)) for rate in rates()]
    model = _model(c)
    how = {"epochs": EPOCHS[case], "batch_size": c.batch, "key": jax.random.key(0), "progress": False}

    def train() -> Any:
        return [fdl.train.fit(model, loss, optimizer, data, **how).history["loss"].mean() for optimizer in optimizers]

    return Trial(_result(train()), train, MEMBERS * len(p.order))


def jax_vmap(case: str, first: tuple[Order, Any]) -> Trial:
    """Plain JAX: a scan over steps of a vmapped `jax.grad` of the formula."""
    import jax
    import jax.numpy as jnp

    c, p = CASES[case], _problem(case, first)
    activation = {"relu": lambda z: jnp.maximum(z, 0), "sigmoid": jax.nn.sigmoid}[c.activation]

    def loss(params: Any, x: Any, y: Any) -> Any:
        for w, b in params[:-1]:
            x = activation(x @ w + b)
        z = x @ params[-1][0] + params[-1][1]
        return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1).mean()

    @jax.jit
    def train(params: Any, rate: Any, x: Any, y: Any, order: Any) -> Any:
        def step(params: Any, index: Any) -> Any:
            def member(params: Any, rate: Any) -> Any:
                value, grads = jax.value_and_grad(loss)(params, x[index], y[index])
                return jax.tree.map(lambda a, g: a - rate * g, params, grads), value

            return jax.vmap(member)(params, rate)

        return jax.lax.scan(step, params, order)

    stacked = jax.tree.map(lambda a: jnp.tile(a[None], (MEMBERS, *[1] * a.ndim)), p.weights)
    arguments = jax.device_put((stacked, rates(), p.x, p.y, p.order))
    _, losses = train(*arguments)
    return Trial(_result(losses.mean(axis=0)), lambda: jax.block_until_ready(train(*arguments)), MEMBERS * len(p.order))


def torch_func(case: str, first: tuple[Order, Any], threads: int | None) -> Trial:
    import torch
    from torch.func import grad_and_value, vmap

    torch.set_num_threads(threads or os.cpu_count() or 1)
    c, p = CASES[case], _problem(case, first)
    activation = {"relu": torch.relu, "sigmoid": torch.sigmoid}[c.activation]
    steps = 44 if case == "digits" else 20  # PyTorch is slow here: one epoch is timed
    rate = torch.from_numpy(rates())

    def loss(params: Any, x: Any, y: Any) -> Any:
        for k in range(0, len(params) - 2, 2):
            x = activation(x @ params[k] + params[k + 1])
        return torch.nn.functional.cross_entropy(x @ params[-2] + params[-1], y)

    members = vmap(grad_and_value(loss), in_dims=(0, None, None))
    flat = [torch.from_numpy(np.array(a)) for layer in p.weights for a in layer]
    batches = [(torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))) for x, y in zip(*p.batches, strict=True)]

    def train(batches: Any) -> Any:
        params = tuple(a.expand(MEMBERS, *a.shape).clone() for a in flat)
        losses = []
        for x, y in batches:
            grads, values = members(params, x, y)
            params = tuple(a - rate.reshape(-1, *[1] * (a.ndim - 1)) * g for a, g in zip(params, grads, strict=True))
            losses.append(values)
        return torch.stack(losses)

    result = _result(train(batches).mean(dim=0).numpy())
    return Trial(result, lambda: train(batches[:steps]), MEMBERS * steps)


TARGETS = {"digits": 96.0, "wide": 1.0}


def variants(target: float) -> list[Variant]:
    here = ("fdl",)
    found = [
        Variant("fdl sweep, its loop", fdl_team, requires=here),
        Variant("fdl sweep", fdl_sweep, requires=here),
        Variant("fdl fit, one after the other", fdl_fits, requires=here, target=1.0),
        Variant("JAX scan of vmap, jax.grad", jax_vmap, target=1.0),
    ]
    for threads, setting in ((1, "1 thread"), (None, "all threads")):
        found.append(Variant("torch.func.vmap", torch_func, {"threads": threads}, setting, ("torch",), target))
    return found


def run(settings: Settings) -> list[Row]:
    rows: list[Row] = []
    for case, c in CASES.items():
        if case == "wide" and not settings.full:
            continue
        name = f"{MEMBERS} x {'-'.join(map(str, c.sizes))} {c.activation} B{c.batch}"
        arguments = {"case": case, "first": result_of(start, {"case": case})}
        rows += compare(Work(name, "model-step", variants(TARGETS[case]), numpy_reference, arguments), settings)
    return rows
