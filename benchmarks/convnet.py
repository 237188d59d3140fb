"""One training step of small convolutional networks: fdl's hand-written backprop against autodiff of `lax`, Flax and PyTorch.

Claim: fdl's steps inside one compiled loop, where XLA runs the gradients of its own convolutions 50 to 150 times slower on CPU, are
faster than the same steps by `lax` and `jax.grad`, inside such a loop or started one by one, and than PyTorch's.

Work: forward, mean cross-entropy, backward, SGD, on a batch of 64; per step, of STEPS different batches:
- LeNet-5 on 28x28x1: 5x5x6, pool, 5x5x16 (VALID), pool, dense 120, 84, 10, with ReLU;
- a small VGG on 32x32x3: twice 3x3x32, pool, twice 3x3x64, pool, dense 128, 10, with ReLU.

Variants: fdl (`fdl.backprop.value_and_grad`) in a scan over the batches, for VGG without Winograd's form too; `lax` convolutions and
`reduce_window` with `jax.value_and_grad`, a jitted step for each batch, and inside the same scan (LeNet-5 alone: the other takes
seconds a step); Flax `nnx` layers, a jitted step for each batch; PyTorch eager in both memory layouts, on 1 thread and on all.

The losses of all steps and the parameters after the last must be within 1e-4 of those of `lax` in float64, relative to the largest;
for VGG within 2e-3: among its activations are some within float32's rounding of a kink of ReLU, where the gradient goes either way
(the peers differ from float64 by 2e-7 to 8e-4, over four seeds; a step left out moves each array by 2e-3 to 0.2).
"""

# pyright: reportMissingImports=false
# (the peers are optional)

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._harness import Row, Settings, Trial, Variant, Work, compare

BATCH, STEPS, RATE, CLASSES = 64, 4, 0.01, 10


@dataclasses.dataclass(frozen=True)
class Conv:
    size: int
    features: int
    padding: str = "SAME"
    pool: bool = False


@dataclasses.dataclass(frozen=True)
class Net:
    """Convolutions with ReLU and pooling, then dense layers with ReLU between them."""

    shape: tuple[int, int, int]
    convs: tuple[Conv, ...]
    widths: tuple[int, ...]


NETS = {
    "LeNet-5": Net((28, 28, 1), (Conv(5, 6, pool=True), Conv(5, 16, "VALID", pool=True)), (120, 84, CLASSES)),
    "small VGG": Net(
        (32, 32, 3), (Conv(3, 32), Conv(3, 32, pool=True), Conv(3, 64), Conv(3, 64, pool=True)), (128, CLASSES)
    ),
}
# The least ratios of the peers' time to fdl's: `lax` started step by step, `lax` in a scan, Flax, PyTorch.
TARGETS = {"LeNet-5": (2.8, 8.0, 2.8, 1.2), "small VGG": (3.0, 80.0, 3.0, 1.0)}

TOLERANCES = {"LeNet-5": 1e-4, "small VGG": 2e-3}

Params = list[dict[str, np.ndarray]]


def problem(name: str) -> tuple[Params, np.ndarray, np.ndarray]:
    """(parameters by layer, pictures [STEPS, BATCH, H, W, C], labels); the same in every process."""
    net, rng = NETS[name], np.random.default_rng(0)
    params: Params = []

    def layer(*shape: int) -> None:
        w = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
        params.append({"w": w.astype(np.float32), "b": rng.normal(0, 0.1, shape[-1]).astype(np.float32)})

    size, channels = net.shape[0], net.shape[-1]
    for c in net.convs:
        layer(c.size, c.size, channels, c.features)
        size, channels = size - (c.size - 1) * (c.padding == "VALID"), c.features
        size //= 2 if c.pool else 1
    width = size * size * channels
    for features in net.widths:
        layer(width, features)
        width = features
    x = rng.standard_normal((STEPS, BATCH, *net.shape)).astype(np.float32)
    return params, x, rng.integers(0, CLASSES, (STEPS, BATCH)).astype(np.int32)


def outcome(losses: Any, params: Any) -> dict[str, Any]:
    """Every entry of params: {"w", "b"} of a layer."""
    named = {f"{i}{name}": np.asarray(layer[name]) for i, layer in enumerate(params) for name in ("w", "b")}
    return {"losses": np.asarray([float(loss) for loss in losses]), **named}


# ---- JAX


def _in_a_loop(step: Callable, params: Any, x: Any, y: Any, scan: bool, read: Callable = lambda p: p) -> Trial:
    """step(params, (x, y)) -> (params, loss)."""
    import jax

    if scan:
        train = jax.jit(lambda params, x, y: jax.lax.scan(step, params, (x, y)))
        call = lambda: jax.block_until_ready(train(params, x, y))
    else:
        once, batches = jax.jit(step), list(zip(x, y, strict=True))

        def call() -> Any:
            after, losses = params, []
            for batch in batches:
                after, loss = once(after, batch)
                losses.append(loss)
            return jax.block_until_ready((after, losses))

    after, losses = call()
    return Trial(outcome(losses, read(after)), call, STEPS)


def fdl_steps(name: str, winograd: bool = True) -> Trial:
    import jax

    import fdl

    net = NETS[name]
    layers: list[Any] = []
    for c in net.convs:
        layers += [fdl.conv(c.features, (c.size, c.size), padding=c.padding, winograd=winograd), fdl.relu()]
        layers += [fdl.max_pool(2)] if c.pool else []
    layers.append(fdl.flatten())
    for width in net.widths[:-1]:
        layers += [fdl.dense(width), fdl.relu()]
    model = fdl.serial(*layers, fdl.dense(net.widths[-1]))
    weights, x, y = jax.device_put(problem(name))
    empty, state = model.init(jax.random.key(0), net.shape)
    names = [layer for layer in model.names if layer in empty]
    gradients = fdl.backprop.value_and_grad(model, fdl.losses.softmax_cross_entropy_with_integer_labels)

    def step(params: Any, batch: Any) -> Any:
        (loss, _), grads = gradients(params, state, *batch)
        return jax.tree.map(lambda p, g: p - RATE * g, params, grads), loss

    params = dict(zip(names, weights, strict=True))
    return _in_a_loop(step, params, x, y, True, lambda params: [params[name] for name in names])


def _lax_net(net: Net, conv: Callable, dense: Callable, pool: Callable, params: Any, x: Any) -> Any:
    import jax

    convs, dense_layers = params[: len(net.convs)], params[len(net.convs) :]
    for c, p in zip(net.convs, convs, strict=True):
        x = jax.nn.relu(conv(c, p, x))
        x = pool(x) if c.pool else x
    x = x.reshape(len(x), -1)
    for p in dense_layers[:-1]:
        x = jax.nn.relu(dense(p, x))
    return dense(dense_layers[-1], x)


def _autodiff_step(apply: Callable) -> Callable:
    import jax
    import jax.numpy as jnp

    def loss(params: Any, x: Any, y: Any) -> Any:
        logits = apply(params, x)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1))

    def step(params: Any, batch: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, *batch)
        return jax.tree.map(lambda p, g: p - RATE * g, params, grads), value

    return step


def lax_steps(name: str, scan: bool, double: bool = False) -> Trial:
    import jax
    import jax.numpy as jnp
    from jax import lax

    jax.config.update("jax_enable_x64", double)

    def conv(c: Conv, p: Any, x: Any) -> Any:
        y = lax.conv_general_dilated(x, p["w"], (1, 1), c.padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return y + p["b"]

    dense = lambda p, x: x @ p["w"] + p["b"]
    pool = lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    params, x, y = problem(name)
    if double:
        params, x = jax.tree.map(lambda a: a.astype(np.float64), (params, x))
    step = _autodiff_step(lambda params, x: _lax_net(NETS[name], conv, dense, pool, params, x))
    params, x, y = jax.device_put((params, x, y))
    return _in_a_loop(step, params, x, y, scan)


def reference(name: str) -> Trial:
    return lax_steps(name, scan=False, double=True)


def flax_steps(name: str) -> Trial:
    """Every layer is made of the same parameters again in the step, as `nnx.jit` would, without its cost per call."""
    import jax
    from flax import nnx

    net, (params, x, y) = NETS[name], jax.device_put(problem(name))
    made = lambda layer, p: nnx.merge(
        nnx.split(layer)[0], nnx.State({"kernel": nnx.Param(p["w"]), "bias": nnx.Param(p["b"])})
    )

    def conv(c: Conv, p: Any, x: Any) -> Any:
        layer = nnx.Conv(x.shape[-1], c.features, (c.size, c.size), padding=c.padding, rngs=nnx.Rngs(0))
        return made(layer, p)(x)

    dense = lambda p, x: made(nnx.Linear(*p["w"].shape, rngs=nnx.Rngs(0)), p)(x)
    pool = lambda x: nnx.max_pool(x, (2, 2), (2, 2))
    return _in_a_loop(
        _autodiff_step(lambda params, x: _lax_net(net, conv, dense, pool, params, x)), params, x, y, False
    )


# ---- PyTorch


def pytorch(name: str, channels_last: bool, threads: int | None) -> Trial:
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads or os.cpu_count() or 1)
    net, (arrays, x, y) = NETS[name], problem(name)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    convs = len(net.convs)

    def weight(w: np.ndarray, i: int) -> Any:
        t = torch.from_numpy(np.ascontiguousarray(w.transpose(3, 2, 0, 1) if i < convs else w.T))
        return (t.contiguous(memory_format=layout) if i < convs else t).requires_grad_()

    def start() -> list[tuple[Any, Any]]:
        return [(weight(p["w"], i), torch.from_numpy(p["b"].copy()).requires_grad_()) for i, p in enumerate(arrays)]

    pictures = [torch.from_numpy(b).permute(0, 3, 1, 2).contiguous(memory_format=layout) for b in x]
    labels = [torch.from_numpy(b).long() for b in y]

    def apply(params: list[tuple[Any, Any]], x: Any) -> Any:
        for c, (w, b) in zip(net.convs, params[:convs], strict=True):
            x = F.relu(F.conv2d(x, w, b, padding=c.padding.lower()))
            x = F.max_pool2d(x, 2) if c.pool else x
        x = x.permute(0, 2, 3, 1).flatten(1)
        for w, b in params[convs:-1]:
            x = F.relu(F.linear(x, w, b))
        w, b = params[-1]
        return F.linear(x, w, b)

    def train(params: list[tuple[Any, Any]]) -> list[float]:
        flat = [p for layer in params for p in layer]
        optimizer, losses = torch.optim.SGD(flat, lr=RATE), []
        for batch, target in zip(pictures, labels, strict=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(apply(params, batch), target)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return [float(loss) for loss in losses]

    params = start()
    losses = train(params)
    back = lambda w, i: w.detach().numpy().transpose((2, 3, 1, 0) if i < convs else (1, 0))
    after = [{"w": back(w, i), "b": b.detach().numpy()} for i, (w, b) in enumerate(params)]
    timed = start()
    return Trial(outcome(losses, after), lambda: train(timed), STEPS)


# ---- the tables


def variants(name: str) -> list[Variant]:
    call, scan, flax, torch = TARGETS[name]
    found = [Variant("fdl", fdl_steps, {}, "in a scan", ("fdl",))]
    if name == "small VGG":
        found.append(Variant("fdl", fdl_steps, {"winograd": False}, "in a scan, no Winograd", ("fdl",)))
    found += [
        Variant("lax autodiff", lax_steps, {"scan": False}, "a jitted step", target=call),
        Variant("Flax", flax_steps, {}, "a jitted step", ("flax",), flax),
    ]
    if name == "LeNet-5":
        found.append(Variant("lax autodiff in a scan", lax_steps, {"scan": True}, target=scan))
    for last in (False, True):
        for threads, setting in ((1, "1 thread"), (None, "all threads")):
            arguments, layout = {"channels_last": last, "threads": threads}, "channels last" if last else "NCHW"
            found.append(Variant("PyTorch", pytorch, arguments, f"{layout}, {setting}", ("torch",), torch))
    return found


def run(settings: Settings) -> list[Row]:
    rows: list[Row] = []
    for name in NETS:
        work = Work(f"{name}, batch {BATCH}", "step", variants(name), reference, {"name": name}, TOLERANCES[name])
        rows += compare(work, settings)
    return rows
