"""Normalization, forward and backward: batch norm and layer norm against autodiff, Flax and PyTorch.

Claim: the hand-written backward is twice as fast as autodiff of the formula, and needs no memory of the size of x beside dx; a
variance that keeps its digits at large means costs little.

    python -m benchmarks norm [--full]

Work: y, and the gradients by x, scale and shift for a given dy. Batch norm on [256, 1024] and, for images, on [64, 32, 32, 64];
layer norm on [2048, 1024].

Peers:
- fast: fdl with `fast=True`, E[x^2] - mean^2 in one pass, wrong at large means;
- autodiff: `jax.vjp` of the textbook formula (mean, mean of squared deviations) in one jitted program;
- Flax: `flax.linen.BatchNorm` and `LayerNorm` with their defaults, likewise;
- PyTorch eager: `batch_norm`, `layer_norm` on 1 thread and on all; images in both memory layouts.

Before anything is timed, y and all gradients must be within 1e-4 of a float64 calculation in NumPy.
"""

# pyright: reportMissingImports=false
# (PyTorch and Flax are optional)

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._harness import Row, Settings, Trial, Variant, Work, compare, memory_rows, result_of

EPS = 1e-5
SHAPES = {"batch norm": ((256, 1024), (64, 32, 32, 64)), "layer norm": ((2048, 1024),)}
# The least ratios of the peers' time to fdl's.
TARGETS = {
    ("batch norm", 2): {"autodiff": 2.0, "PyTorch": 1.0},
    ("batch norm", 4): {"autodiff": 2.0, "PyTorch": 1.4},
    ("layer norm", 2): {"autodiff": 2.0, "PyTorch": 0.8},
}


def problem(shape: tuple[int, ...]) -> tuple[Any, ...]:
    """x, dy, scale, shift in float32; the same in every process."""
    rng = np.random.default_rng(0)
    features = shape[-1:]
    arrays = (
        0.5 + rng.normal(size=shape),
        rng.normal(size=shape),
        rng.normal(size=features),
        rng.normal(size=features),
    )
    return tuple(a.astype(np.float32) for a in arrays)


def axes_of(kind: str, rank: int) -> tuple[int, ...]:
    return tuple(range(rank - 1)) if kind == "batch norm" else (rank - 1,)


def numpy_reference(kind: str, shape: tuple[int, ...]) -> Trial:
    x, dy, scale, shift = (a.astype(np.float64) for a in problem(shape))
    axes, rows = axes_of(kind, x.ndim), tuple(range(x.ndim - 1))
    mean = lambda a: a.mean(axis=axes, keepdims=True)
    rstd = 1 / np.sqrt(mean((x - mean(x)) ** 2) + EPS)
    normalized, g = (x - mean(x)) * rstd, dy * scale
    dx = rstd * (g - mean(g) - normalized * mean(g * normalized))
    return Trial(_named(normalized * scale + shift, dx, (dy * normalized).sum(axis=rows), dy.sum(axis=rows)))


def _named(*arrays: Any) -> dict[str, np.ndarray]:
    return dict(zip(("y", "dx", "dscale", "dshift"), map(np.asarray, arrays), strict=True))


# ---- JAX


def _function(kind: str, form: str, rank: int) -> Callable[..., Any]:
    """(x, scale, shift) -> y"""
    import jax.numpy as jnp

    axes = axes_of(kind, rank)
    if form in ("fdl", "fast"):
        import fdl

        fast = form == "fast"
        if kind == "batch norm":
            return lambda x, a, b: fdl.ops.batch_norm({"scale": a, "shift": b}, x, eps=EPS, fast=fast)[0]
        return lambda x, a, b: fdl.ops.layer_norm({"scale": a, "shift": b}, x, eps=EPS, fast=fast)
    if form == "Flax":
        from flax import linen

        if kind == "batch norm":
            layer = linen.BatchNorm(use_running_average=False, epsilon=EPS)
            features = lambda x: {"mean": jnp.zeros(x.shape[-1]), "var": jnp.ones(x.shape[-1])}
            variables = lambda x, a, b: {"params": {"scale": a, "bias": b}, "batch_stats": features(x)}
            return lambda x, a, b: layer.apply(variables(x, a, b), x, mutable=["batch_stats"])[0]
        layer = linen.LayerNorm(epsilon=EPS)
        return lambda x, a, b: layer.apply({"params": {"scale": a, "bias": b}}, x)

    def textbook(x: Any, a: Any, b: Any) -> Any:
        deviation = x - x.mean(axis=axes, keepdims=True)
        return deviation / jnp.sqrt((deviation**2).mean(axis=axes, keepdims=True) + EPS) * a + b

    return textbook


def _compiled(kind: str, shape: tuple[int, ...], form: str) -> tuple[Any, tuple[Any, ...]]:
    import jax

    arguments = jax.device_put(problem(shape))
    function = _function(kind, form, len(shape))

    def both(x: Any, dy: Any, scale: Any, shift: Any) -> Any:
        y, pull = jax.vjp(function, x, scale, shift)
        return (y, *pull(dy))

    return jax.jit(both).lower(*arguments).compile(), arguments


def compiled(kind: str, shape: tuple[int, ...], form: str) -> Trial:
    import jax

    program, arguments = _compiled(kind, shape, form)
    return Trial(_named(*program(*arguments)), lambda: jax.block_until_ready(program(*arguments)))


def temporary_memory(kind: str, shape: tuple[int, ...], form: str) -> Trial:
    """Its result is a number of bytes."""
    return Trial(_compiled(kind, shape, form)[0].memory_analysis().temp_size_in_bytes)


# ---- PyTorch


def pytorch(kind: str, shape: tuple[int, ...], threads: int | None, channels_last: bool = False) -> Trial:
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads or os.cpu_count() or 1)
    x, dy, scale, shift = (torch.from_numpy(a) for a in problem(shape))
    if len(shape) == 4:  # channels first, in either layout of memory
        layout = torch.channels_last if channels_last else torch.contiguous_format
        x, dy = (a.permute(0, 3, 1, 2).contiguous(memory_format=layout) for a in (x, dy))
    leaves = [a.requires_grad_() for a in (x, scale, shift)]

    def call() -> Any:
        for leaf in leaves:
            leaf.grad = None
        if kind == "batch norm":
            y = F.batch_norm(x, None, None, scale, shift, training=True, eps=EPS)
        else:
            y = F.layer_norm(x, shape[-1:], scale, shift, EPS)
        y.backward(dy)
        return y

    y = call().detach()
    last = lambda a: a.permute(0, 2, 3, 1).numpy() if len(shape) == 4 else a.numpy()
    grads = [leaf.grad.clone() for leaf in leaves]  # type: ignore[union-attr]
    return Trial(_named(last(y), last(grads[0]), grads[1], grads[2]), call)


# ---- the tables


def variants(kind: str, rank: int) -> list[Variant]:
    targets = TARGETS[kind, rank]
    found = [
        Variant("fdl", compiled, {"form": "fdl"}, requires=("fdl",)),
        Variant("fdl, fast", compiled, {"form": "fast"}, requires=("fdl",)),
        Variant("autodiff", compiled, {"form": "autodiff"}, target=targets["autodiff"]),
        Variant("Flax", compiled, {"form": "Flax"}, requires=("flax",)),
    ]
    for threads, setting in ((1, "1 thread"), (None, "all threads")):
        for last in (False, True) if rank == 4 else (False,):
            layout = ", channels last" if last else ""
            settings = {"threads": threads, "channels_last": last}
            found.append(Variant("PyTorch", pytorch, settings, setting + layout, ("torch",), targets["PyTorch"]))
    return found


def run(settings: Settings) -> list[Row]:
    rows: list[Row] = []
    for kind, shapes in SHAPES.items():
        for shape in shapes:
            name, arguments = f"{kind} {list(shape)}", {"kind": kind, "shape": shape}
            rows += compare(Work(name, "call", variants(kind, len(shape)), numpy_reference, arguments), settings)
            forms = ("fdl", "autodiff")
            used = {form: float(result_of(temporary_memory, {**arguments, "form": form})) for form in forms}
            rows += memory_rows(name, used, note=f"x itself is {np.prod(shape) * 4 / 2**20:.2f} MiB")
    return rows
