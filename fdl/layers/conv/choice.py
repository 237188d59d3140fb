"""Which formulation runs: decided when the program is lowered for a platform, by shape.

GPU and TPU: the `lax` convolution and its gradients, which are made for them.

CPU. XLA runs the gradients of its convolution 50 to 150 times slower inside a loop than outside (2.0 s against 35 ms for one 3x3
layer of 32 channels), and a training loop is a `scan`; so every gradient is products, sums and, where it wins, the forward convolution,
which XLA runs as fast in a loop. Figures: one part in a loop, two shared cores, float32, medians in ms of seven interleaved rounds;
compare them along a row. Parts of more than a few ms vary by a third between rounds. Where
the second table names another form for a shape, that one runs.

| NHWC x, kernel, O        | patches | shifted | cells | library | scattered | what runs                                 |
|--------------------------|---------|---------|-------|---------|-----------|-------------------------------------------|
| 64x28x28x1  5x5    6  y  | 1.32    | 0.40    | 2.28  | 1.53    |           | shifted: one input channel                |
|                       dx | 2.34    | 3.11    | 0.73  | 3.15    | 2.14      | cells: few input channels                 |
|                       dw | 0.87    | 3.33    |       |         |           | patches                                   |
| 64x14x14x6  5x5   16  y  | 0.54    | 1.51    | 0.85  | 0.39    |           | library                                   |
|                       dx | 1.45    | 2.05    | 1.00  | 1.34    | 1.81      | cells                                     |
|                       dw | 0.58    | 0.49    |       |         |           | patches: see SHIFTED                      |
| 64x32x32x3  3x3   32  y  | 2.51    | 7.28    | 2.90  | 6.84    |           | patches                                   |
|                       dx | 7.93    | 11.0    | 1.66  | 2.21    | 2.81      | cells                                     |
|                       dw | 2.05    | 2.02    |       |         |           | patches                                   |
| 128x28x28x1 3x3   32  y  | 2.89    | 1.09    | 1.19  | 1.46    |           | shifted                                   |
|                       dx | 9.75    | 13.7    | 1.43  | 4.67    | 1.46      | cells                                     |
|                       dw | 1.27    | 2.75    |       |         |           | patches                                   |
| 64x32x32x32 3x3   32  y  | 11.8    | 11.7    | 10.7  | 6.4     |           | Winograd: 6.0; else library               |
|                       dx |         |         | 7.3   | 6.4     | 15.0      | Winograd: 12.4 with dw; else library      |
|                       dw | 17.3    | 14.6    |       |         |           | Winograd; else patches, 20.2 with dx      |
| 64x16x16x64 3x3   64  y  | 8.7     | 5.6     | 8.4   | 6.2     |           | the same: 3.4                             |
|                       dx |         |         | 5.6   | 6.2     | 6.5       | 7.8 with dw                               |
|                       dw | 10.3    | 13.8    |       |         |           | without Winograd 15.2 with dx             |
| 128x8x8x128 3x3  128  y  | 13.9    | 13.8    | 21.2  | 12.1    |           | the same: 5.4                             |
|                       dx |         |         | 22.0  | 12.7    | 14.8      | 12.9 with dw                              |
|                       dw | 17.5    | 20.2    |       |         |           | without Winograd 30.2 with dx             |

Few channels, one part in a loop, whole batch unless "in chunks"; medians in ms of five to nine interleaved rounds on two cores of
another machine (Zen 5). Chunks cost: their loop copies the outputs and leaves a core idle; sums need them, see WHOLE.

| NHWC x, kernel, O           | in chunks      | whole          | 2 wide          | 4 wide | what runs                             |
|-----------------------------|----------------|----------------|-----------------|--------|---------------------------------------|
| 64x28x28x1  5x5    6     y  | 0.36 shifted   | 0.26 shifted   | 0.55 patches    | 0.32   | shifted, in chunks                    |
|                          dx | 0.60 cells     | 0.44 cells     | 0.30 cells      | 0.42   | 2 wide, in chunks: see NARROW         |
|                          dw | 0.60 patches   | 0.67 patches   | 0.45 rows       | 0.32   | 4 wide: see NARROW                    |
| 64x14x14x6  5x5   16     y  |                | 0.48 library   | 0.29 patches    | 0.30   | 2 wide                                |
|                          dx | 0.87           | 0.57           | 0.53            | 0.88   | cells, in chunks                      |
|                          dw | 0.46           | 0.42           | 0.23            | 0.32   | 2 wide                                |
| 64x32x32x3  3x3   32     y  | 1.58 patches   | 1.02 patches   | 0.81, with b 0.67 | 0.95 | 2 wide                                |
|                          dx | 1.63           | 1.26           | 1.38            | 2.55   | cells, in chunks                      |
|                          dw | 1.70           | 1.51           | 1.22            | 1.45   | 2 wide                                |
| 128x28x28x1 3x3   32     y  | 1.33           | 0.61           | 0.76            | 1.01   | shifted, in chunks                    |
|                          dx | 1.60           | 1.22           | 1.83            | 2.24   | cells, in chunks                      |
|                          dw | 1.21           | 0.87           | 0.62            | 0.71   | 2 wide                                |
| 64x31x31x3  3x3   32     y  | 1.40 patches   | 0.72, with b   | 0.74            |        | 2 wide, although 31 is odd            |
|                          dw | 1.07           | 0.86 rows      | 0.88            |        | 2 wide                                |
"""

import math
from collections.abc import Callable
from typing import Any

from jax import lax

from fdl.layers.conv import formulations, winograd
from fdl.layers.conv.geometry import Geometry
from fdl.op import accumulator

Part = Callable[[Any, Any, Geometry, Any], Any]

# Patches and products are made for so many bytes of them at a time: 3x3 on 32 channels, y by patches: 21 ms, whole batch 74.
CACHE = 2**20
# The same for Winograd's tiles and the patches of dw. Both gradients of H, best of nine rounds: 14.1 ms, 13.2 and 14.4 with twice and
# four times as many; patches of dw, 5x5 on 64x16x16x32: 11.7, 9.1 with a quarter.
TILES = 4 * 2**20

# But so many times the bytes of the kernel's gradient, which every chunk adds to: of 512 channels it has 36 MiB. H: no difference
# (y and both gradients 20.8 ms, 21.9 without).
SUMS = 3
# The same for products that are one operation: scattered, 3x3 with strides 2 from 64x32x32x32: 3.2 ms, 4.7 with 1 MiB; by cells,
# 3x3 on 64x32x32x3: no difference (1.8 and 1.5 at best).
WHOLE = 32 * 2**20
# Sums (shifted, cells) always in two chunks at least: alone they are faster whole, but then XLA fuses the layers around into every
# shifted part: a step of LeNet-5 5 ms, 20 with one chunk; `optimization_barrier` does not stop it. Products are never fused so.
# A strided dx by phases multiplies zeros wherever the stride does not divide the kernel: up to so many products for each one. 4x4 by 2
# on 64x32x32x16 (1 for 1): 0.8 ms, scattered 10; 5x5 by 2 on 64x16x16x16 (1.4): 0.6 and 3.5; 5x5 by 3 on 64x32x32x32 (1.4): 4.4
# and 30; 3x3 by 2 on 64x32x32x32 and 64x16x16x64 (1.8): 3.7 and 4.1, scattered 3.2 and 2.1. With 3 input channels by cells: 7x7 by 2
# on 8x112x112 5.3, scattered 32; 3x3 by 2 on 64x32x32 0.7 and 1.2.
ZEROS = 1.5
# dw by shifted products of the whole batch from so many channels on, if the input is within CACHE: 3x3 on 64x8x8x16 0.35 ms, patches
# 0.67; on 64x16x16x8 0.65 and 0.77; 5x5 on 64x10x10x16 1.4 and 2.4, on 64x7x7x32 2.2 and 3.6. With 6 channels no difference to y and
# both gradients together (B), and 8.2 for 3.7 on 64x28x28.
SHIFTED = 8

# Up to so many input channels y is made by patches of `WIDTH` outputs, and so is dw. y and dw of 3x3 on 64x16x16: 8 to 16 channels 0.23
# and 0.25 ms, by what runs else 0.40 and 0.38; 16 to 32 0.71 and 1.25, else 0.77 and 0.85. One input channel: y by shifted sums.
FEW, WIDTH = 8, 2
# Up to so many output channels dw is made four wide and dx two wide, or the products are narrow: A in the table.
NARROW = 8

# Winograd from so many channels on either side on, if the tiles are not mostly padding. y and both gradients, 64x16x16: 24 to 24 channels
# 4.0 ms, without 7.1; 16 to 32 4.1 and 5.5; 16 to 16 4.1 and 4.0.
CHANNELS, WASTE = 24, 2.0


def forward(x: Any, w: Any, b: Any, geometry: Geometry, allowed: bool) -> Any:
    """y, rounded once."""
    accumulate = accumulator(x.dtype)

    def cpu(x, w, b):
        return cpu_forward(x, w, geometry, accumulate, allowed, b)

    def library(x, w, b):
        return _finished(formulations.library_forward(x, w, geometry, accumulate), b, x.dtype)

    return lax.platform_dependent(x, w, b, cpu=cpu, default=library)


def dx(dy: Any, w: Any, b: Any, geometry: Geometry) -> Any:
    """The cotangent of x; b is added where it is the output of a transposed convolution."""
    accumulate = accumulator(dy.dtype)

    def cpu(dy, w, b):
        return _finished(cpu_dx(dy, w, geometry, accumulate), b, dy.dtype)

    def library(dy, w, b):
        return _finished(formulations.library_dx(dy, w, geometry, accumulate), b, dy.dtype)

    return lax.platform_dependent(dy, w, b, cpu=cpu, default=library)


def dw(x: Any, dy: Any, geometry: Geometry) -> Any:
    """The cotangent of w."""
    accumulate = accumulator(x.dtype)

    def cpu(x, dy):
        return cpu_dw(x, dy, geometry, accumulate).astype(x.dtype)

    def library(x, dy):
        return formulations.library_dw(x, dy, geometry, accumulate).astype(x.dtype)

    return lax.platform_dependent(x, dy, cpu=cpu, default=library)


def gradients(x: Any, w: Any, dy: Any, geometry: Geometry, allowed: bool) -> tuple[Any, Any]:
    """(dw, dx), which share their transforms where there are any."""
    accumulate = accumulator(x.dtype)

    def cpu(x, w, dy):
        dw, dx = cpu_gradients(x, w, dy, geometry, accumulate, allowed)
        return dw.astype(w.dtype), dx.astype(x.dtype)

    def library(x, w, dy):
        dw = formulations.library_dw(x, dy, geometry, accumulate)
        dx = formulations.library_dx(dy, w, geometry, accumulate)
        return dw.astype(w.dtype), dx.astype(x.dtype)

    return lax.platform_dependent(x, w, dy, cpu=cpu, default=library)


def _finished(y: Any, b: Any, dtype: Any) -> Any:
    if b is not None:
        y = y + b.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
    return y.astype(dtype)


def cpu_forward(x: Any, w: Any, geometry: Geometry, accumulate: Any, allowed: bool = True, b: Any = None) -> Any:
    """y + b in the dtype of x, finished while a chunk of it is in the cache; allowed: Winograd."""
    i, o = w.shape[-2:]
    if allowed and by_winograd(geometry, i, o):
        v = winograd.kernel_to_points(w.astype(accumulate))
        part = lambda x: (_finished(winograd.forward(x, v, geometry, accumulate), b, x.dtype), ())
        return _by_chunks(part, (x,), _tile_numbers(geometry, i), TILES, accumulate)[0]
    if i > 1 and by_width(geometry, i):
        part = lambda x: (formulations.wide_patches(x, w, b, geometry, accumulate, WIDTH).astype(x.dtype), ())
        return _whole(part, (x,), _wide_numbers(geometry, i, WIDTH), accumulate)[0]
    run, numbers = forward_part(geometry, i, o)
    part = lambda x: (_finished(run(x, w, geometry, accumulate), b, x.dtype), ())
    return _by_chunks(part, (x,), numbers, CACHE, accumulate)[0]


def cpu_dx(dy: Any, w: Any, geometry: Geometry, accumulate: Any) -> Any:
    run, numbers, budget = dx_part(geometry, *w.shape[-2:])
    return _by_chunks(lambda dy: (run(dy, w, geometry, accumulate), ()), (dy,), numbers, budget, accumulate)[0]


def cpu_dw(x: Any, dy: Any, geometry: Geometry, accumulate: Any) -> Any:
    i, o = x.shape[-1], dy.shape[-1]
    if by_width(geometry, i):
        width = 2 * WIDTH if o <= NARROW else WIDTH
        part = lambda x, dy: ((), formulations.wide_dw(x, dy, geometry, accumulate, width))
        return _whole(part, (x, dy), _wide_numbers(geometry, i, width), accumulate)[1]
    run, numbers = dw_part(geometry, i, x.size * accumulate.itemsize)
    part = lambda x, dy: ((), run(x, dy, geometry, accumulate))
    return _by_chunks(part, (x, dy), numbers, TILES, accumulate)[1]


def cpu_gradients(
    x: Any, w: Any, dy: Any, geometry: Geometry, accumulate: Any, allowed: bool = True
) -> tuple[Any, Any]:
    i, o = x.shape[-1], dy.shape[-1]
    if not (allowed and by_winograd(geometry, i, o)):
        return cpu_dw(x, dy, geometry, accumulate), cpu_dx(dy, w, geometry, accumulate)
    v = winograd.kernel_to_points(w.astype(accumulate))
    part = lambda x, dy: winograd.gradients(x, v, dy, geometry, accumulate)
    budget = max(TILES, SUMS * math.prod(v.shape) * accumulate.itemsize)
    dx, dv = _by_chunks(part, (x, dy), _tile_numbers(geometry, i + o), budget, accumulate)
    return winograd.kernel_from_points(dv), dx


def by_winograd(geometry: Geometry, i: int, o: int) -> bool:
    if not winograd.fits(geometry) or min(i, o) < CHANNELS:
        return False
    made = math.prod(winograd.tiles(geometry)) * winograd.OUT**2
    return made <= WASTE * math.prod(geometry.outputs)


def by_width(geometry: Geometry, i: int) -> bool:
    return formulations.widens(geometry) and i <= FEW


def _wide_numbers(geometry: Geometry, i: int, width: int) -> int:
    wide = formulations.widened(geometry, width)
    return math.prod((*wide.outputs, *wide.kernel)) * width * i


def _tile_numbers(geometry: Geometry, channels: int) -> int:
    return math.prod(winograd.tiles(geometry)) * winograd.TILE**2 * channels


def forward_part(geometry: Geometry, i: int, o: int) -> tuple[Part, int]:
    """The forward for w [*K, i, o], and how many numbers it makes of one example."""
    cells = math.prod(geometry.kernel)
    if cells == geometry.groups == 1:
        return formulations.patches_forward, 0  # nothing but a product
    if i == 1:
        return formulations.shifted_forward, math.prod(geometry.outputs) * o
    if geometry.groups > 1 or i * cells < 100:
        return formulations.patches_forward, math.prod(geometry.outputs) * cells * i * geometry.groups
    return formulations.library_forward, 0


def dx_part(geometry: Geometry, i: int, o: int) -> tuple[Part, int, int]:
    """The same for dx, and how many bytes of them at a time."""
    cells, strided = math.prod(geometry.kernel), max(geometry.strides) > 1
    if cells == geometry.groups == 1:
        return formulations.scattered_dx, 0, WHOLE
    if geometry.groups > 1:
        if i == 1 and not strided and o == geometry.groups:
            return formulations.gathered_dx(formulations.shifted_forward), math.prod(geometry.inputs) * o, CACHE
        return formulations.scattered_dx, math.prod(geometry.used) * i * geometry.groups, CACHE
    made = math.prod(geometry.phases.kernel) * math.prod(geometry.strides)
    if i * made < 256:
        width = WIDTH if o <= NARROW and formulations.widens(geometry.phases) else 1
        run = formulations.wide_forward(formulations.cells_forward, width) if width > 1 else formulations.cells_forward
        return formulations.gathered_dx(run), math.prod(geometry.outputs) * made * i * width, WHOLE
    if strided and (made > ZEROS * cells):
        return formulations.scattered_dx, math.prod(geometry.used) * i, WHOLE
    return formulations.gathered_dx(formulations.library_forward), 0, WHOLE


def dw_part(geometry: Geometry, channels: int, size: int) -> tuple[Part, int]:
    """The same for dw; size: the bytes of x."""
    if geometry.groups == channels > 1:
        return formulations.shifted_dw, math.prod(geometry.outputs) * channels
    if geometry.groups == 1 and (math.prod(geometry.kernel) == 1 or (channels >= SHIFTED and size <= CACHE)):
        return formulations.shifted_dw, 0
    return formulations.patches_dw, math.prod((*geometry.outputs, *geometry.kernel)) * channels


def _by_chunks(function: Callable, arrays: tuple, numbers: int, budget: int, dtype: Any) -> Any:
    """The function makes `numbers` of one example; 0 if it needs no chunks."""
    examples = arrays[0].shape[0]
    if not isinstance(examples, int):  # a symbol, of jax.export: only one at a time divides every number
        return formulations.cut_up(function, arrays, 1) if numbers else function(*arrays)
    chunk = max(1, min(budget // (numbers * dtype.itemsize), examples // 2)) if numbers else examples
    return formulations.in_chunks(function, arrays, chunk)


def _whole(function: Callable, arrays: tuple, numbers: int, dtype: Any) -> Any:
    """For a product of patches, which XLA fuses with nothing: without chunks as long as they are within `WHOLE`."""
    examples = arrays[0].shape[0]
    if isinstance(examples, int) and numbers * examples * dtype.itemsize <= WHOLE:
        return function(*arrays)
    return _by_chunks(function, arrays, numbers, WHOLE, dtype)
