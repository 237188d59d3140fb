"""Pooling, forward and backward: fdl against what `jax.grad` makes of `lax.reduce_window`, and PyTorch.

Claim: the backward as one pass over the cells, without a scatter, is as fast as PyTorch's in its better layout and at least
twice as fast as JAX's autodiff, in one call and inside a scan.

Work, on x [64, 32, 32, 32] (NHWC), the values and dx for a given error:
- max 2x2, windows side by side; max 3x3 with strides 2 and one cell of padding; mean 2x2;
- with --full also mean 3x3 with strides 1 and one cell of padding, not counted;
- max 2x2 inside a scan: 10 steps x <- x - dx / 100 for the error dy + y / 100, so that nothing can be taken out of the loop.

Peers:
- JAX: `lax.reduce_window` and its autodiff, jitted (Flax's pooling is that call);
- PyTorch eager: `max_pool2d` and `avg_pool2d`, both memory formats, on 1 thread and on all.

Before anything is timed, all results must be within 1e-4 of a float64 calculation in NumPy.
"""

# pyright: reportMissingImports=false
# (the peers are optional)

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._harness import Row, Settings, Trial, Variant, Work, compare

SHAPE = (64, 32, 32, 32)
RATE = 0.01

# The least ratios of the peers' time to fdl's; there is none for JAX's mean, whose autodiff needs no scatter either.
TARGETS = {"JAX": 2.0, "PyTorch": 1.0}


@dataclasses.dataclass(frozen=True)
class Case:
    kind: str
    window: int
    strides: int
    padding: int = 0

    @property
    def outputs(self) -> int:
        return (SHAPE[1] + 2 * self.padding - self.window) // self.strides + 1


CASES = {
    "max 2x2": Case("max", 2, 2),
    "max 3x3 strides 2": Case("max", 3, 2, 1),
    "mean 2x2": Case("mean", 2, 2),
    "mean 3x3 strides 1": Case("mean", 3, 1, 1),
}
FULL = ("mean 3x3 strides 1",)
STEPS = 10


def problem(case: Case) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """x and the error dy; the same in every process."""
    rng = np.random.default_rng(0)
    out = (SHAPE[0], case.outputs, case.outputs, SHAPE[-1])
    return rng.normal(size=SHAPE).astype(np.float32), rng.normal(size=out).astype(np.float32)


def numpy_reference(name: str, steps: int) -> Trial:
    c = CASES[name]
    x, dy = (array.astype(np.float64) for array in problem(c))
    if steps == 1:
        y, dx = _numpy(c, x, dy)
        return Trial({"y": y, "dx": dx})
    for _ in range(steps):
        y, _ = _numpy(c, x, dy)
        x = x - RATE * _numpy(c, x, dy + RATE * y)[1]
    return Trial({"x": x})


def _numpy(c: Case, x: NDArray[np.float64], dy: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Window place by window place."""
    sides = ((0, 0), (c.padding, c.padding), (c.padding, c.padding), (0, 0))
    padded = np.pad(x, sides, constant_values=-np.inf if c.kind == "max" else 0)
    there = np.pad(np.ones((1, *x.shape[1:3], 1)), sides)
    span = c.strides * (c.outputs - 1) + 1
    views = [
        np.s_[:, a : a + span : c.strides, b : b + span : c.strides] for a in range(c.window) for b in range(c.window)
    ]
    cells = np.stack([padded[view] for view in views])
    dpadded = np.zeros_like(padded)
    if c.kind == "max":
        first = cells.argmax(axis=0)
        y, shares = cells.max(axis=0), [dy * (first == k) for k in range(len(views))]
    else:
        seen = sum(there[view] for view in views)
        y, shares = cells.sum(axis=0) / seen, [dy / seen] * len(views)
    for view, share in zip(views, shares, strict=True):
        dpadded[view] += share
    inside = slice(c.padding, c.padding + x.shape[1])
    return y, dpadded[:, inside, inside]


# ---- JAX


def compiled(name: str, steps: int, form: str) -> Trial:
    import jax
    import jax.numpy as jnp

    c = CASES[name]
    x, dy = map(jnp.asarray, problem(c))
    pool = (_fdl if form == "fdl" else _lax)(c)

    @jax.jit
    def call(x: Any, dy: Any) -> dict[str, Any]:
        y, pull = jax.vjp(pool, x)
        return {"y": y, "dx": pull(dy)[0]}

    @jax.jit
    def loop(x: Any, dy: Any) -> dict[str, Any]:
        def step(x: Any, _: Any) -> tuple[Any, None]:
            y, pull = jax.vjp(pool, x)
            return x - RATE * pull(dy + RATE * y)[0], None

        return {"x": jax.lax.scan(step, x, length=steps)[0]}

    run = call if steps == 1 else loop
    result = {name: np.asarray(value) for name, value in run(x, dy).items()}
    return Trial(result, lambda: jax.block_until_ready(run(x, dy)), steps)


def _fdl(c: Case) -> Callable[..., Any]:
    import fdl

    op = fdl.ops.max_pool if c.kind == "max" else fdl.ops.avg_pool
    return op.bind(window=c.window, strides=c.strides, padding=((c.padding, c.padding),) * 2)


def _lax(c: Case) -> Callable[..., Any]:
    import jax.numpy as jnp
    from jax import lax

    sizes = (1, c.window, c.window, 1), (1, c.strides, c.strides, 1)
    padding = ((0, 0), (c.padding, c.padding), (c.padding, c.padding), (0, 0))
    if c.kind == "max":
        return lambda x: lax.reduce_window(x, -jnp.inf, lax.max, *sizes, padding)
    # counted once, when tracing
    seen = lax.reduce_window(np.ones((1, *SHAPE[1:3], 1), np.float32), np.float32(0), lax.add, *sizes, padding)
    return lambda x: lax.reduce_window(x, np.float32(0), lax.add, *sizes, padding) / seen


# ---- PyTorch


def pytorch(name: str, steps: int, threads: int | None, channels_last: bool) -> Trial:
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads or os.cpu_count() or 1)
    c = CASES[name]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x, dy = (torch.from_numpy(a).permute(0, 3, 1, 2).contiguous(memory_format=layout) for a in problem(c))
    x.requires_grad_()
    if c.kind == "max":
        pool = lambda: F.max_pool2d(x, c.window, c.strides, c.padding)
    else:
        pool = lambda: F.avg_pool2d(x, c.window, c.strides, c.padding, count_include_pad=False)

    def call() -> tuple[Any, Any]:
        y = pool()
        return y, torch.autograd.grad(y, x, dy)[0]

    y, dx = (a.detach().permute(0, 2, 3, 1).numpy() for a in call())
    return Trial({"y": y, "dx": dx}, call)


# ---- the tables


def variants(kind: str, loop: bool) -> list[Variant]:
    found = [
        Variant("fdl", compiled, {"form": "fdl"}, requires=("fdl",)),
        Variant("JAX", compiled, {"form": "lax"}, target=TARGETS["JAX"] if kind == "max" else None),
    ]
    if loop:
        return found
    return found + [
        Variant(
            "PyTorch",
            pytorch,
            {"threads": threads, "channels_last": last},
            f"{'channels last' if last else 'channels first'}, {setting}",
            ("torch",),
            TARGETS["PyTorch"],
        )
        for last in (True, False)
        for threads, setting in ((1, "1 thread"), (None, "all threads"))
    ]


def run(settings: Settings) -> list[Row]:
    rows: list[Row] = []
    for name, case in CASES.items():
        if settings.full or name not in FULL:
            arguments = {"name": name, "steps": 1}
            rows += compare(Work(name, "call", variants(case.kind, False), numpy_reference, arguments), settings)
    name = "max 2x2"
    work = Work(f"{name} in a scan", "step", variants("max", True), numpy_reference, {"name": name, "steps": STEPS})
    return rows + compare(work, settings)
