"""Random configurations, and how far every formulation is from the equation in float64: 12 in the test suite, 200 in the proof."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.layers.conv import choice, formulations, winograd
from fdl.layers.conv.convolve import op
from fdl.layers.conv.geometry import geometry


@dataclasses.dataclass(frozen=True)
class Configuration:
    batch: int
    sizes: tuple[int, ...]
    inputs: int
    outputs: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Any
    groups: int

    @property
    def rank(self) -> int:
        return len(self.sizes)

    def __str__(self) -> str:
        x, w = (*self.sizes, self.inputs), (*self.kernel, self.inputs // self.groups, self.outputs)
        return f"{x}-{w}-s{self.strides}-d{self.dilation}-{self.padding}-g{self.groups}".replace(" ", "")


def configurations(count: int, seed: int = 0) -> list[Configuration]:
    """Odd and even sizes of rank 1 to 3, every kind of padding; each fourth is plain 3x3, some are depthwise."""
    rng = np.random.default_rng(seed)
    draw = lambda low, high, n: tuple(int(k) for k in rng.integers(low, high + 1, n))
    found = []
    for i in range(count):
        plain = i % 4 == 3
        rank = 2 if plain else i % 3 + 1
        kernel, strides, dilation = (3, 3), (1, 1), (1, 1)
        if not plain:
            kernel, strides, dilation = draw(1, 4 if rank < 3 else 2, rank), draw(1, 3, rank), draw(1, 2, rank)
        extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        sizes = tuple(e + int(rng.integers(0, 5)) for e in extent)
        groups = 1 if plain else int(rng.choice([1, 1, 2, 3]))
        per_group = 1 if i % 5 == 4 else int(rng.integers(1, 4))
        pairs = tuple(zip(draw(0, 2, rank), draw(0, 2, rank), strict=True))
        padding = ("SAME", "VALID", int(rng.integers(0, 3)), pairs)[int(rng.integers(4))]
        outputs = groups * int(rng.integers(1, 4))
        batch = int(rng.integers(1, 4))
        found.append(
            Configuration(batch, sizes, groups * per_group, outputs, kernel, strides, dilation, padding, groups)
        )
    return found


def differences(c: Configuration) -> dict[str, float]:
    """{part and formulation: largest error, relative to the largest entry}; needs jax_enable_x64."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape))
    x, w = normal(c.batch, *c.sizes, c.inputs), normal(*c.kernel, c.inputs // c.groups, c.outputs)
    options = {"strides": c.strides, "padding": c.padding, "dilation": c.dilation, "groups": c.groups}
    g = geometry("proof", x, w, **options)
    dy = normal(c.batch, *g.outputs, c.outputs)

    def vjp(f):
        y, pull = jax.vjp(lambda w, x: f({"w": w}, x, **options), w, x)
        return y, *pull(dy)

    def everything(x, w, dy):
        f64 = x.dtype
        made: dict[str, Any] = {}
        made["y op"], made["dw op"], made["dx op"] = vjp(op)
        forwards = {"patches": formulations.patches_forward, "shifted": formulations.shifted_forward}
        forwards |= {"library": formulations.library_forward}
        if c.groups == 1:
            forwards["cells"] = formulations.cells_forward
        for name, run in forwards.items():
            made[f"y {name}"] = run(x, w, g, f64)
            made[f"dx gathered {name}"] = formulations.gathered_dx(run)(dy, w, g, f64)
        made["dx scattered"] = formulations.scattered_dx(dy, w, g, f64)
        made["dw patches"] = formulations.patches_dw(x, dy, g, f64)
        made["dw shifted"] = formulations.shifted_dw(x, dy, g, f64)
        if c.rank < 3:
            # of rank 3, strided and dilated, XLA's simplifier for CPU ends the process over some of lax's own gradients
            made["dx library"] = formulations.library_dx(dy, w, g, f64)
            made["dw library"] = formulations.library_dw(x, dy, g, f64)
        part = lambda x: (formulations.shifted_forward(x, w, g, f64), ())
        made["y in chunks"] = formulations.in_chunks(part, (x,), 1)[0]
        if winograd.fits(g):
            v = winograd.kernel_to_points(w)
            made["y winograd"] = winograd.forward(x, v, g, f64)
            made["dx winograd"], dv = winograd.gradients(x, v, dy, g, f64)
            made["dw winograd"] = winograd.kernel_from_points(dv)
        without = lambda w, x: op({"w": w}, x, winograd=False, **options)
        made["y plain"], pull = jax.vjp(without, w, x)
        made["dw plain"], made["dx plain"] = pull(dy)
        made["y chosen"] = choice.cpu_forward(x, w, g, f64)
        made["dw chosen"], made["dx chosen"] = choice.cpu_gradients(x, w, dy, g, f64)
        return made, dict(zip(("y", "dw", "dx"), vjp(op.equation), strict=True))

    made, wanted = jax.jit(everything)(x, w, dy)
    found = {}
    for name, array in made.items():
        want = np.asarray(wanted[name.split()[0]])
        found[name] = float(np.abs(np.asarray(array) - want).max() / max(np.abs(want).max(), np.finfo(float).tiny))
    return found
