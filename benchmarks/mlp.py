"""Training a small dense network: fdl's compiled epochs against the loops of PyTorch, Keras, Flax NNX and Equinox.

Claim: with a whole epoch in one compiled program nothing is left between the steps, so a small network trains many
times faster than one whose steps are started from Python; and backprop written by hand is never slower than JAX's
autodiff.

Work: one step of plain gradient descent (rate 0.1) on the softmax cross-entropy of
- 64-32-10, relu, batch 32, on the digits that come with fdl;
- with --full, 784-100-100-100-10, sigmoid, batch 60, on random pictures (these operations take the same time for any
  values).

Peers, each in the form its documentation gives for training:
- fdl's own step, compiled and started from a Python loop; `fdl.train.fit` as a whole, with its checks of the data;
- plain JAX: a scan over `jax.grad` of the textbook formula, parameters in a list: what fdl's layers may cost;
- PyTorch eager with `torch.optim.SGD`, on 1 thread and on all;
- Keras on its JAX backend: `fit` (`train_on_batch` waits for the loss of every step), and `fit` with all the steps of
  an epoch in one execution, which spares Keras the work of its callbacks between them;
- Flax NNX: `nnx.jit`, and `nnx.cached_partial` around it, which spares the walk through the model at every step;
- Equinox: `eqx.filter_jit`.

Loops driven from Python get their batches cut and on the device beforehand; fdl's epochs and Keras shuffle, and gather
every batch, inside their time. JAX loops driven from Python run with asynchronous and with synchronous dispatch, and the
faster counts. All start from the same weights and, before anything is timed, train on the same batches in the same order
(that of fdl's epochs): each must end within 1e-4 of a float64 training in NumPy, the mean loss of all steps, and every
parameter relative to the largest of its array.
"""

# pyright: reportMissingImports=false
# (the peers are optional)

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._harness import Row, Settings, Trial, Variant, Work, compare, result_of

RATE = 0.1

Order = NDArray[np.int32]  # [steps, B], indices of examples
Weights = list[tuple[NDArray[np.float32], NDArray[np.float32]]]  # (w [I, O], b [O]) of each layer


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and how long one call trains it."""

    sizes: tuple[int, ...]
    activation: str
    batch: int
    examples: int  # a multiple of the batch, so that no peer has to handle a partial one
    epochs: int

    @property
    def steps(self) -> int:
        return self.epochs * self.examples // self.batch


CASES = {
    "digits": Case((64, 32, 10), "relu", batch=32, examples=1408, epochs=20),
    "wide": Case((784, 100, 100, 100, 10), "sigmoid", batch=60, examples=6000, epochs=2),
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """What everybody trains on."""

    x: NDArray[np.float32]  # [N, I]
    y: NDArray[np.int32]  # [N]
    order: Order
    weights: Weights

    @property
    def batches(self) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """The examples in the order of training: x [steps, B, I], y [steps, B]."""
        return self.x[self.order], self.y[self.order]


def problem(case: Case, order: Order) -> Problem:
    """The examples and the first weights; the same in every process."""
    rng = np.random.default_rng(0)
    if case.sizes[0] == 64:
        import fdl.data

        (x, y), _ = fdl.data.digits()
        x, y = x[: case.examples], y[: case.examples]
    else:
        x = rng.random((case.examples, case.sizes[0]), np.float32)
        y = rng.integers(0, 10, case.examples).astype(np.int32)
    weights = []
    for i, o in zip(case.sizes, case.sizes[1:], strict=False):
        limit = np.sqrt(6 / (i + o))
        w, b = rng.uniform(-limit, limit, (i, o)), rng.normal(0, 0.1, o)
        weights.append((w.astype(np.float32), b.astype(np.float32)))
    return Problem(x, y, order, weights)


def outcome(losses: Any, weights: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """What is compared: the mean loss and the final parameters."""
    layers = {f"dense_{k}": {"w": np.asarray(w), "b": np.asarray(b)} for k, (w, b) in enumerate(weights)}
    return {"loss": np.mean(np.asarray(losses, np.float64)), **layers}


def numpy_reference(case: str, order: Order) -> Trial:
    """The same training in float64, from the textbook."""
    c = CASES[case]
    return Trial(outcome(*numpy_training(c, problem(c, order), RATE)))


def numpy_training(c: Case, p: Problem, rate: float) -> tuple[list[float], list[tuple[Any, Any]]]:
    """(the loss of every step, the last weights)."""
    weights = [(w.astype(np.float64), b.astype(np.float64)) for w, b in p.weights]
    losses = []
    for x, y in zip(*p.batches, strict=True):
        hs = [x.astype(np.float64)]
        for w, b in weights[:-1]:
            z = hs[-1] @ w + b
            hs.append(np.maximum(z, 0) if c.activation == "relu" else 1 / (1 + np.exp(-z)))
        z = hs[-1] @ weights[-1][0] + weights[-1][1]
        e = np.exp(z - z.max(axis=1, keepdims=True))
        q = e / e.sum(axis=1, keepdims=True)
        rows = np.arange(len(y))
        losses.append(-np.log(q[rows, y]).mean())
        d = q
        d[rows, y] -= 1
        d /= len(y)
        for k in range(len(weights) - 1, -1, -1):
            w, b = weights[k]
            weights[k] = (w - rate * hs[k].T @ d, b - rate * d.sum(axis=0))
            if k:
                d = d @ w.T * ((hs[k] > 0) if c.activation == "relu" else hs[k] * (1 - hs[k]))
    return losses, weights


# ---- loops in one compiled program


def _fdl_model(c: Case, weights: Weights) -> tuple[Any, Any]:
    """The fdl model of a case, and its parameters with those weights."""
    import jax.numpy as jnp

    import fdl

    activation = {"relu": fdl.relu, "sigmoid": fdl.sigmoid}[c.activation]
    layers = [layer for width in c.sizes[1:-1] for layer in (fdl.dense(width), activation())]
    model = fdl.serial(*layers, fdl.dense(c.sizes[-1]))
    params = {f"dense_{2 * k}": {"w": jnp.array(w), "b": jnp.array(b)} for k, (w, b) in enumerate(weights)}
    return model, params


def _fdl_weights(params: Any) -> list[tuple[Any, Any]]:
    return [(params[f"dense_{2 * k}"]["w"], params[f"dense_{2 * k}"]["b"]) for k in range(len(params))]


def _fdl_keys() -> tuple[Any, Any]:
    """The key for `fdl.train.fit`, and the one that `fit` splits off it for its epochs."""
    import jax

    key = jax.random.key(1)
    return key, jax.random.split(key)[1]


def fdl_order(case: str) -> Trial:
    """The order in which fdl's epochs visit the examples: its result is an array [steps, B]."""
    import jax

    from fdl.train.loop import epoch_order

    c = CASES[case]
    key, _ = jax.random.split(_fdl_keys()[1])
    epochs = [epoch_order(key, epoch, c.examples, c.batch)[0] for epoch in range(c.epochs)]
    return Trial(np.concatenate([np.asarray(order) for order in epochs]))


def fdl_epochs(case: str, order: Order, gradient: str) -> Trial:
    """The loop of `fdl.train.fit`: all the epochs in one compiled program, their losses read after it."""
    import jax
    import jax.numpy as jnp
    import optax

    import fdl
    from fdl.train.loop import compiled, steps_between
    from fdl.train.step import Carry, make_step

    c = CASES[case]
    p = problem(c, order)
    model, params = _fdl_model(c, p.weights)
    loss, optimizer = fdl.losses.softmax_cross_entropy_with_integer_labels, optax.sgd(RATE)
    program = compiled(steps_between(make_step(model, loss, optimizer, None, gradient), c.batch))
    x, y = jax.device_put((p.x, p.y))
    _, key = _fdl_keys()
    carry = Carry(params, {}, optimizer.init(params), jnp.zeros((), jnp.int32))

    def train() -> NDArray[Any]:
        nonlocal carry
        carry, _, losses, *_ = program(carry, x, y, None, key, 0, 0, c.steps)
        return np.asarray(losses)[: c.steps]

    losses = train()
    return Trial(outcome(losses, _fdl_weights(carry.params)), train, c.steps)


def fdl_fit(case: str, order: Order) -> Trial:
    """`fdl.train.fit`, everything included."""
    import jax
    import optax

    import fdl

    c = CASES[case]
    p = problem(c, order)
    model, params = _fdl_model(c, p.weights)
    loss, optimizer = fdl.losses.softmax_cross_entropy_with_integer_labels, optax.sgd(RATE)
    data = jax.device_put((p.x, p.y))
    key, _ = _fdl_keys()
    how = {"key": key, "epochs": c.epochs, "batch_size": c.batch, "params": params, "progress": False}

    def train() -> Any:
        return fdl.train.fit(model, loss, optimizer, data, **how)

    result = train()
    return Trial(outcome(result.history["loss"], _fdl_weights(result.params)), train, c.steps)


def jax_scan(case: str, order: Order) -> Trial:
    """Plain JAX: scan over the steps, `jax.grad` of the formula, parameters in a list."""
    import jax
    import jax.numpy as jnp

    c = CASES[case]
    p = problem(c, order)
    activation = {"relu": lambda z: jnp.maximum(z, 0), "sigmoid": jax.nn.sigmoid}[c.activation]

    def loss(params: Any, x: Any, y: Any) -> Any:
        for w, b in params[:-1]:
            x = activation(x @ w + b)
        z = x @ params[-1][0] + params[-1][1]
        return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1).mean()

    @jax.jit
    def train(params: Any, x: Any, y: Any, order: Any) -> Any:
        def step(params: Any, index: Any) -> Any:
            value, grads = jax.value_and_grad(loss)(params, x[index], y[index])
            return jax.tree.map(lambda a, g: a - RATE * g, params, grads), value

        return jax.lax.scan(step, params, order)

    start, x, y, order = jax.device_put((p.weights, p.x, p.y, p.order))
    params, losses = train(start, x, y, order)
    return Trial(outcome(losses, params), lambda: jax.block_until_ready(train(start, x, y, order)), c.steps)


# ---- loops driven from Python


def _loop(step: Callable[[Any, Any], Any], batches: Sequence[tuple[Any, Any]]) -> list[Any]:
    """One step per batch; the losses, not waited for."""
    return [step(x, y) for x, y in batches]


def _dispatch(asynchronous: bool) -> None:
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", asynchronous)


def _on_device(p: Problem) -> list[tuple[Any, Any]]:
    import jax

    return [jax.device_put((x, y)) for x, y in zip(*p.batches, strict=True)]


def fdl_step(case: str, order: Order, asynchronous: bool) -> Trial:
    """fdl's step, compiled, one call per step."""
    _dispatch(asynchronous)
    import jax
    import jax.numpy as jnp
    import optax

    import fdl
    from fdl.train.loop import cpu_options
    from fdl.train.step import Carry, make_step

    c = CASES[case]
    p = problem(c, order)
    model, params = _fdl_model(c, p.weights)
    loss, optimizer = fdl.losses.softmax_cross_entropy_with_integer_labels, optax.sgd(RATE)
    step = make_step(model, loss, optimizer, None, "manual")
    compiled = jax.jit(
        lambda carry, x, y: step(carry, x, y, None, None, None), donate_argnums=0, compiler_options=cpu_options()
    )
    batches = _on_device(p)
    carry = Carry(params, {}, optimizer.init(params), jnp.zeros((), jnp.int32))

    def train() -> list[Any]:
        nonlocal carry
        losses = []
        for x, y in batches:
            carry, value = compiled(carry, x, y)
            losses.append(value)
        jax.block_until_ready(carry)
        return losses

    losses = train()
    return Trial(outcome(losses, _fdl_weights(carry.params)), train, c.steps)


def pytorch(case: str, order: Order, threads: int | None) -> Trial:
    import torch

    torch.set_num_threads(threads or os.cpu_count() or 1)
    c = CASES[case]
    p = problem(c, order)
    layers: list[torch.nn.Module] = []
    for w, b in p.weights:
        linear = torch.nn.Linear(*w.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(w.T))
            linear.bias.copy_(torch.from_numpy(b))
        layers += [linear, torch.nn.ReLU() if c.activation == "relu" else torch.nn.Sigmoid()]
    model = torch.nn.Sequential(*layers[:-1])
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    batches = [(torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))) for x, y in zip(*p.batches, strict=True)]

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    losses = [loss.item() for loss in _loop(step, batches)]
    weights = [(m.weight.detach().numpy().T.copy(), m.bias.detach().numpy().copy()) for m in layers[::2]]  # type: ignore[union-attr]
    return Trial(outcome(losses, weights), lambda: _loop(step, batches), c.steps)


def keras_fit(case: str, order: Order, asynchronous: bool, steps_per_execution: int | None) -> Trial:
    os.environ["KERAS_BACKEND"] = "jax"
    _dispatch(asynchronous)
    import keras

    c = CASES[case]
    p = problem(c, order)
    model = keras.Sequential([keras.Input(c.sizes[:1])])
    for width in c.sizes[1:-1]:
        model.add(keras.layers.Dense(width, activation=c.activation))
    model.add(keras.layers.Dense(c.sizes[-1]))
    model.set_weights([array for layer in p.weights for array in layer])
    model.compile(
        optimizer=keras.optimizers.SGD(RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=steps_per_execution or c.examples // c.batch,
    )
    silent: Any = 0  # Keras annotates `verbose` as a string and documents 0, 1 and 2
    x, y = p.x[p.order.ravel()], p.y[p.order.ravel()]
    losses = model.fit(x, y, batch_size=c.batch, shuffle=False, verbose=silent).history["loss"]
    arrays = model.get_weights()

    def fit() -> Any:
        return model.fit(p.x, p.y, batch_size=c.batch, epochs=c.epochs, verbose=silent)

    return Trial(outcome(losses, list(zip(arrays[::2], arrays[1::2], strict=True))), fit, c.steps)


def flax_nnx(case: str, order: Order, asynchronous: bool, cached: bool) -> Trial:
    _dispatch(asynchronous)
    import jax
    import optax
    from flax import nnx

    c = CASES[case]
    p = problem(c, order)
    activation = {"relu": nnx.relu, "sigmoid": nnx.sigmoid}[c.activation]

    class MLP(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.layers = nnx.List([nnx.Linear(*w.shape, rngs=rngs) for w, _ in p.weights])

        def __call__(self, x: jax.Array) -> jax.Array:
            for layer in self.layers[:-1]:
                x = activation(layer(x))
            return self.layers[-1](x)

    model: Any = MLP(nnx.Rngs(0))
    for layer, (w, b) in zip(model.layers, p.weights, strict=True):
        layer.kernel[...], layer.bias[...] = w, b
    optimizer = nnx.Optimizer(model, optax.sgd(RATE), wrt=nnx.Param)

    def loss(model: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    @nnx.jit
    def train_step(model: Any, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> jax.Array:
        value, grads = nnx.value_and_grad(loss)(model, x, y)
        optimizer.update(model, grads)
        return value

    wrap = nnx.cached_partial if cached else functools.partial
    step = wrap(train_step, model, optimizer)
    batches = _on_device(p)
    losses = _loop(step, batches)
    weights = [(layer.kernel[...], layer.bias[...]) for layer in model.layers]

    def call() -> None:
        _loop(step, batches)
        jax.block_until_ready(nnx.state(model, nnx.Param))

    return Trial(outcome(losses, weights), call, c.steps)


def equinox(case: str, order: Order, asynchronous: bool) -> Trial:
    _dispatch(asynchronous)
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    c = CASES[case]
    p = problem(c, order)
    activation = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}[c.activation]
    layers = [eqx.nn.Linear(*w.shape, key=jax.random.key(0)) for w, _ in p.weights]
    for k, (w, b) in enumerate(p.weights):
        layers[k] = eqx.tree_at(lambda m: (m.weight, m.bias), layers[k], (jnp.asarray(w.T), jnp.asarray(b)))
    between = [module for layer in layers[:-1] for module in (layer, eqx.nn.Lambda(activation))]
    model = eqx.nn.Sequential([*between, layers[-1]])
    optimizer = optax.sgd(RATE)

    @eqx.filter_value_and_grad
    def loss(model: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(x), y).mean()

    @eqx.filter_jit
    def step(model: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        value, grads = loss(model, x, y)
        updates, opt_state = optimizer.update(grads, opt_state)
        return eqx.apply_updates(model, updates), opt_state, value

    batches = _on_device(p)
    opt_state = optimizer.init(eqx.filter(model, eqx.is_array))

    def train() -> tuple[Any, list[jax.Array]]:
        trained, state, losses = model, opt_state, []
        for x, y in batches:
            trained, state, value = step(trained, state, x, y)
            losses.append(value)
        return jax.block_until_ready(trained), losses

    trained, losses = train()
    weights = [(m.weight.T, m.bias) for m in trained.layers if isinstance(m, eqx.nn.Linear)]
    return Trial(outcome(losses, weights), train, c.steps)


# ---- the comparison

# What each peer's loop costs relative to fdl's epochs, at least: the ratios that a prototype of the scanned loop
# reached.
TARGETS = {
    "digits": {"autodiff": 1.0, "step": 2.8, "PyTorch": 16.0, "Keras": 18.6, "NNX": 43.0, "Equinox": 11.7},
    "wide": {"autodiff": 1.0, "step": 1.3, "PyTorch": 1.75, "Keras": 1.8, "NNX": 2.7, "Equinox": 1.8},
}


def variants(targets: dict[str, float]) -> list[Variant]:
    here, flax, keras = ("fdl",), ("flax", "optax"), ("keras",)
    autodiff = targets["autodiff"]
    found = [
        Variant("fdl epochs", fdl_epochs, {"gradient": "manual"}, requires=here),
        Variant("fdl epochs, autodiff", fdl_epochs, {"gradient": "autodiff"}, requires=here, target=autodiff),
        Variant("fdl fit", fdl_fit, requires=here),
        Variant("JAX scan, jax.grad", jax_scan),
    ]
    for threads, setting in ((1, "1 thread"), (None, "all threads")):
        found.append(Variant("PyTorch", pytorch, {"threads": threads}, setting, ("torch",), targets["PyTorch"]))
    for asynchronous, setting in ((True, "async"), (False, "sync")):
        common = {"asynchronous": asynchronous}
        every = {**common, "steps_per_execution": None}
        found += [
            Variant("fdl step from Python", fdl_step, common, setting, here, targets["step"]),
            Variant("Keras fit", keras_fit, {**common, "steps_per_execution": 1}, setting, keras, targets["Keras"]),
            Variant("Keras fit, one execution", keras_fit, every, setting, keras),
            Variant("NNX jit", flax_nnx, {**common, "cached": False}, setting, flax, targets["NNX"]),
            Variant("NNX cached_partial", flax_nnx, {**common, "cached": True}, setting, flax),
            Variant("Equinox", equinox, common, setting, ("equinox", "optax"), targets["Equinox"]),
        ]
    return found


def run(settings: Settings) -> list[Row]:
    rows: list[Row] = []
    for case, c in CASES.items():
        if case == "wide" and not settings.full:
            continue
        name = f"{'-'.join(map(str, c.sizes))} {c.activation} B{c.batch}"
        arguments = {"case": case, "order": result_of(fdl_order, {"case": case})}
        rows += compare(Work(name, "step", variants(TARGETS[case]), numpy_reference, arguments), settings)
    return rows
