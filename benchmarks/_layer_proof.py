"""Random configurations of convolution, pooling and normalization: value, first and second derivative against autodiff of the
equation in float64, in eps: 12 of every op in the test suite, 200 in the proof.

An error is counted in eps of the largest entry of its array. Four neighbours share what shapes the program and differ in all
numbers, so that they share a compilation; convolutions and pools over windows do not.

What takes the mean out of x knows deviations only. Where x has an offset (up to 1e6), the equation in float64 loses as many digits as
the offset has, and is no yardstick: it gets x without it, and the offset is added exactly. Statistics are over 3 entries and more:
over two, dx is eps / var of the terms that it is the difference of (the tests have that). Whitening gets spectra
whose eigenvalues are apart, below 1 and within a factor of 100: its error grows with that factor; that of autodiff through `eigh` grows
as they meet, and above 1 with their square (JAX takes 1/(1 + l - l) - 1 for the 0 of its diagonal).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fdl
from benchmarks import _conv_proof
from fdl import Layer, Op

BOUND = 512.0
NEIGHBOURS = 4  # configurations that share a program
PARTS = ("value", "first", "second")


@dataclasses.dataclass(frozen=True)
class OfLayer:
    """A layer without state, as an op."""

    layer: Layer

    def __call__(self, params: Any, x: Any) -> Any:
        return self.layer.apply(params, {}, x)[0]

    def equation(self, params: Any, x: Any) -> Any:
        return self.layer.equation(params, {}, x)[0]


@dataclasses.dataclass(frozen=True)
class Configuration:
    """op: with its static options; numbers: those of its options that are operands.

    args: what is differentiated by; rest: the arguments after it. offset: what is added to the last of args, which is x then, and to
    the mean that is returned.
    """

    op: Op | OfLayer
    args: tuple
    rest: tuple = ()
    numbers: dict[str, float] = dataclasses.field(default_factory=dict)
    offset: float = 0.0

    def __str__(self) -> str:
        shapes = jax.tree.map(lambda a: list(a.shape), self.args)
        options = {n: v.value for n, v in self.op.options} if isinstance(self.op, Op) else self.op.layer
        return f"{shapes} {options} {self.numbers} offset {self.offset:g}".replace("'", "")


def normal(rng: Any, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape)


def in_places(x: np.ndarray) -> np.ndarray:
    """With 22 binary places: scaled by a power of two from 1/128 to 128, offsets below 2^21 are added to it exactly."""
    return np.round(x * 2**22) / 2**22


def apart(rng: Any, shape: tuple[int, ...]) -> np.ndarray:
    """No two entries are equal."""
    size = math.prod(shape)
    return (rng.permutation(size) - size / 2).reshape(shape) / 8


def draw(rng: Any, low: int, high: int, n: int) -> tuple[int, ...]:
    return tuple(int(k) for k in rng.integers(low, high + 1, n))


# ---- convolutions: every configuration has its own program


def kernel_params(rng: Any, w: tuple[int, ...], bias: bool) -> dict[str, np.ndarray]:
    return {"w": normal(rng, *w)} | ({"b": normal(rng, w[-1])} if bias else {})


def conv(rng: Any, i: int) -> Configuration:
    c = _conv_proof.configurations(i + 1)[i]
    op = fdl.ops.conv.bind(strides=c.strides, padding=c.padding, dilation=c.dilation, groups=c.groups)
    w = (*c.kernel, c.inputs // c.groups, c.outputs)
    return Configuration(op, (kernel_params(rng, w, i % 2 == 0), normal(rng, c.batch, *c.sizes, c.inputs)))


def conv_transpose(rng: Any, i: int) -> Configuration:
    rank = i % 3 + 1
    kernel, strides, dilation = draw(rng, 1, (4, 3, 2)[rank - 1], rank), draw(rng, 1, 3, rank), draw(rng, 1, 2, rank)
    sizes = draw(rng, 1, 4, rank)
    pairs = []
    for n, k, s, d in zip(sizes, kernel, strides, dilation, strict=True):
        most = (n - 1) * s + d * (k - 1)  # all but one output
        lo = int(rng.integers(min(2, most) + 1))
        pairs.append((lo, int(rng.integers(1 - s, min(2, most - lo) + 1))))
    padding = ("SAME", "VALID", tuple(pairs))[i // 3 % 3]
    groups = int(rng.choice([1, 1, 2, 3]))
    inputs, outputs = (groups * int(k) for k in rng.integers(1, 4, 2))
    op = fdl.ops.conv_transpose.bind(strides=strides, padding=padding, dilation=dilation, groups=groups)
    w = (*kernel, inputs // groups, outputs)
    return Configuration(op, (kernel_params(rng, w, i % 2 == 0), normal(rng, *draw(rng, 1, 3, 1), *sizes, inputs)))


def by_channel(make: Callable[..., Layer], rng: Any, i: int) -> Configuration:
    """Depthwise or separable."""
    rank = i % 2 + 1
    kernel, strides, dilation = draw(rng, 1, 4 - rank, rank), draw(rng, 1, 2, rank), draw(rng, 1, 2, rank)
    padding = ("SAME", "VALID", tuple(zip(draw(rng, 0, 2, rank), draw(rng, 0, 2, rank), strict=True)))[i // 2 % 3]
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    x = (*(e + int(rng.integers(3)) for e in extent), int(rng.integers(1, 4)))
    options = {"strides": strides, "padding": padding, "dilation": dilation}
    layer = make(kernel, **options, bias=i % 2 == 0, multiplier=int(rng.integers(1, 3)))
    params, _ = jax.eval_shape(lambda: layer.init(jax.random.key(0), x, jnp.float64))
    params = jax.tree.map(lambda leaf: normal(rng, *leaf.shape), params)
    return Configuration(OfLayer(layer), (params, normal(rng, *draw(rng, 1, 3, 1), *x)))


# ---- pools


def pool(op: Op, rng: Any, i: int) -> Configuration:
    rank = (1, 2, 2, 3)[i % 4]
    places, window, strides = draw(rng, 4, 8, rank), draw(rng, 1, 5 - (rank > 1), rank), draw(rng, 1, 4, rank)
    padding = ("VALID", "SAME", tuple((int(rng.integers(w)), int(rng.integers(w))) for w in window))[i // 4 % 3]
    options: dict[str, Any] = {"window": window, "strides": window if i % 3 == 0 else strides, "padding": padding}
    if padding == "VALID":
        places = tuple(max(n, w) for n, w in zip(places, window, strict=True))
    if op.name == "avg_pool":
        options["count_padding"] = i % 2 == 0
    return Configuration(op.bind(**options), (apart(rng, (2, *places, 2)),))


def mask_of(rng: Any, shape: tuple[int, ...], least: int) -> np.ndarray:
    mask = rng.random(shape) < 0.7
    mask.flat[rng.permutation(mask.size)[:least]] = True
    return mask


def global_pool(op: Op, shapes: Any, rng: Any, i: int) -> Configuration:
    shape = (*draw(shapes, 2, 4, 1), *draw(shapes, 1, 6, int(shapes.integers(1, 4))), *draw(shapes, 1, 3, 1))
    kind = i // NEIGHBOURS % 3
    mask = None if kind == 0 else mask_of(rng, shape[:kind], 1)
    return Configuration(op, (apart(rng, shape),), (mask,))


# ---- normalizations


def affine(shapes: Any, rng: Any, features: tuple[int, ...], names: tuple[str, ...] = ("scale", "shift")) -> dict:
    return {name: normal(rng, *features) for name in names if shapes.random() < 0.75}


def numbers(rng: Any, i: int) -> tuple[float, dict[str, float], float]:
    """(deviation, options, offset)"""
    offset = 0.0 if i % 3 == 0 else round(128 * 10 ** float(rng.uniform(0, 6))) / 128 * float(rng.choice([-1, 1]))
    return 2.0 ** int(rng.integers(-7, 8)), {"eps": float(rng.choice([0.0, 1e-5, 1e-3, 0.1]))}, offset


def batch_norm(shapes: Any, rng: Any, i: int) -> Configuration:
    per = "channel" if shapes.random() < 0.6 else "activation"
    places = draw(shapes, 1, 4, int(shapes.integers(3)))
    shape = (*draw(shapes, 5, 9, 1), *places, *draw(shapes, 2, 5, 1))
    params = affine(shapes, rng, shape[-1:] if per == "channel" else shape[1:])
    of_steps = bool(places) and per == "channel" and shapes.random() < 0.5
    kind = 0 if shapes.random() < 0.5 else 2 if of_steps else 1
    mask = None if kind == 0 else mask_of(rng, shape[:kind], 4)
    deviation, options, offset = numbers(rng, i)
    x = deviation * in_places(normal(rng, *shape))
    return Configuration(fdl.ops.batch_norm.bind(per=per), (params, x), (mask,), options, offset)


def batch_norm_inference(shapes: Any, rng: Any, i: int) -> Configuration:
    per = "channel" if shapes.random() < 0.6 else "activation"
    shape = (*draw(shapes, 1, 9, 1), *draw(shapes, 1, 4, int(shapes.integers(3))), *draw(shapes, 1, 5, 1))
    features = shape[-1:] if per == "channel" else shape[1:]
    deviation, options, offset = numbers(rng, i)
    mean, var = offset + normal(rng, *features), deviation**2 * np.exp(normal(rng, *features))
    x = offset + deviation * normal(rng, *shape)
    op = fdl.ops.batch_norm_inference.bind(per=per)
    return Configuration(op, (affine(shapes, rng, features), x, mean, var), numbers=options)


def layer_norm(shapes: Any, rng: Any, i: int) -> Configuration:
    dims = int(shapes.integers(1, 3))
    shape = (*draw(shapes, 1, 4, int(shapes.integers(1, 3))), *draw(shapes, 3, 7, 1), *draw(shapes, 1, 3, dims - 1))
    deviation, options, offset = numbers(rng, i)
    params = affine(shapes, rng, shape[-dims:])
    op = fdl.ops.layer_norm.bind(dims=dims)
    return Configuration(op, (params, deviation * in_places(normal(rng, *shape))), numbers=options, offset=offset)


def rms_norm(shapes: Any, rng: Any, i: int) -> Configuration:
    shape = (*draw(shapes, 1, 4, int(shapes.integers(1, 3))), *draw(shapes, 2, 9, 1))
    deviation, options, offset = numbers(rng, i)
    x = deviation * normal(rng, *shape) + min(abs(offset), deviation)
    return Configuration(fdl.ops.rms_norm, (affine(shapes, rng, shape[-1:], ("scale",)), x), numbers=options)


def group_norm(shapes: Any, rng: Any, i: int) -> Configuration:
    groups, each = draw(shapes, 1, 3, 2)
    places = draw(shapes, 2, 4, int(shapes.integers(1, 3)))
    shape = (*draw(shapes, 1, 3, 1), max(places[0], 3), *places[1:], groups * each)
    deviation, options, offset = numbers(rng, i)
    params, x = affine(shapes, rng, shape[-1:]), deviation * in_places(normal(rng, *shape))
    return Configuration(fdl.ops.group_norm.bind(groups=groups), (params, x), numbers=options, offset=offset)


def instance_norm(shapes: Any, rng: Any, i: int) -> Configuration:
    shape = (*draw(shapes, 1, 3, 1), *draw(shapes, 3, 5, int(shapes.integers(1, 3))), *draw(shapes, 1, 4, 1))
    deviation, options, offset = numbers(rng, i)
    params, x = affine(shapes, rng, shape[-1:]), deviation * in_places(normal(rng, *shape))
    return Configuration(fdl.ops.instance_norm, (params, x), numbers=options, offset=offset)


def whiten(shapes: Any, rng: Any, i: int) -> Configuration:
    (d,), places = draw(shapes, 2, 4, 1), draw(shapes, 1, 3, int(shapes.integers(2)))
    n = d + 2 + int(shapes.integers(6))
    m = n * math.prod(places)
    columns = np.linalg.qr(np.concatenate([np.ones((m, 1)), normal(rng, m, d)], axis=1))[0][:, 1:]
    deviations = np.cumprod(rng.uniform(1.3, 2.0, d)) * math.sqrt(m)
    x = columns * deviations @ np.linalg.qr(normal(rng, d, d))[0].T
    _, options, offset = numbers(rng, i)
    size = 2.0 ** -int(rng.integers(4, 8))
    options = {"eps": options["eps"] * size**2}  # eps alone would make all eigenvalues nearly equal
    x = (size * in_places(x)).reshape(n, *places, d)
    return Configuration(fdl.ops.whiten, (x,), numbers=options, offset=offset)


OWN_PROGRAM: dict[str, Callable[[Any, int], Configuration]] = {
    "conv": conv,
    "conv_transpose": conv_transpose,
    "depthwise_conv": functools.partial(by_channel, fdl.depthwise_conv),
    "separable_conv": functools.partial(by_channel, functools.partial(fdl.separable_conv, 3)),
    "max_pool": functools.partial(pool, fdl.ops.max_pool),
    "avg_pool": functools.partial(pool, fdl.ops.avg_pool),
}
SHARED_PROGRAM: dict[str, Callable[[Any, Any, int], Configuration]] = {
    "global_max_pool": functools.partial(global_pool, fdl.ops.global_max_pool),
    "global_avg_pool": functools.partial(global_pool, fdl.ops.global_avg_pool),
    "batch_norm": batch_norm,
    "batch_norm_inference": batch_norm_inference,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "whiten": whiten,
}
NAMES = (*OWN_PROGRAM, *SHARED_PROGRAM)


def configuration(name: str, i: int) -> Configuration:
    """The i-th of this op; the same at every call."""
    rng = np.random.default_rng([*name.encode(), i])
    if name in OWN_PROGRAM:
        return OWN_PROGRAM[name](rng, i)
    return SHARED_PROGRAM[name](np.random.default_rng([*name.encode(), 0, i // NEIGHBOURS]), rng, i)


# ---- the distance


def distances(c: Configuration) -> dict[str, float]:
    """{part: the largest error in eps of the largest entry of its array}; needs jax_enable_x64."""
    rng = np.random.default_rng(7)
    like = lambda tree: jax.tree.map(lambda a: normal(rng, *a.shape), tree)
    moved = (*c.args[:-1], c.args[-1] + c.offset) if c.offset else c.args
    dy = like(jax.eval_shape(functools.partial(_run, c.op, True), c.args, c.rest, c.numbers))
    got, want = _both(c.op, moved, c.args, c.rest, c.numbers, dy, like(c.args))
    if c.offset and isinstance(want[0], tuple):
        y, statistics = want[0]
        want = ((y, {**statistics, "mean": statistics["mean"] + c.offset}), *want[1:])
    return {part: _apart(a, b) for part, a, b in zip(PARTS, got, want, strict=True)}


@functools.partial(jax.jit, static_argnums=0)
def _both(op: Any, moved: Any, args: Any, rest: Any, numbers: Any, dy: Any, along: Any) -> Any:
    """((value, first, second) of the op, the same of the equation)."""

    def derivatives(plain: bool, args: Any) -> Any:
        run = lambda args: _run(op, plain, args, rest, numbers)
        first = lambda args, dy: jax.vjp(run, args)[1](dy)[0]
        slopes, pull = jax.vjp(first, args, dy)
        return run(args), slopes, pull(along)

    return derivatives(False, moved), derivatives(True, args)


def _run(op: Any, plain: bool, args: Any, rest: Any, numbers: Any) -> Any:
    return (op.equation if plain else op)(*args, *rest, **numbers)


def _apart(got: Any, want: Any) -> float:
    worst = 0.0
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        off, scale = np.abs(a - b).max(initial=0.0), np.abs(b).max(initial=0.0)
        if not off == 0:  # NaN too
            worst = max(
                worst, off / scale / np.finfo(np.float64).eps if 0 < scale < np.inf and off < np.inf else np.inf
            )
    return float(worst)
