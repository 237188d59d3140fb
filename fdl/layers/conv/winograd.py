"""3x3 kernels of stride 1 with a quarter of the multiplications: Winograd's F(4x4, 3x3), here for the forward and both gradients.

    y = A^T [ (G w G^T) (B^T x B) ] A        for each tile of 4x4 outputs, which sees 6x6 inputs; [ ] per cell, a product over channels

A correlation of length 3 with 4 outputs is, transposed, a product of polynomials of degree 2 and 3. That product has degree 5: its
values at 6 points determine it. G evaluates the kernel there, A the outputs, and B interpolates (Toom and Cook's algorithm; its
transpose is the correlation). Per tile 36 multiplications take the place of 144, at the price of the transforms, which are sums.

Backward: the map is linear in x and in w, so its adjoint is the same chain of matrices, transposed and in reverse order:

    E = A dy A^T        dw = G^T [ (B^T x B)^T E ] G, summed over tiles        dx = B [ E (G w G^T)^T ] B^T, overlapping tiles added

The points decide the error. The usual 0, 1, -1, 2, -2 have 8.4e-6 of the largest output in float32 (128 channels; the plain product
3e-7); 0, +-2/3, +-3/2 and infinity have 1.6e-6, 14 eps. (0, +-3/4, +-4/3: 2.1e-6; 0, 1, -1, 1/2, -2: 2.9e-6; 0, +-5/8, +-11/8:
2.1e-6.)

Speed and error against the plain products (winograd=False), float32 in one run in a loop on two shared cores; errors in 1e-6 of the
largest entry of y, dw, dx:

| 3x3, NHWC x and outputs | y    | y and gradients | error         | plain         |
|-------------------------|------|-----------------|---------------|---------------|
| 64x32x32x32, 32         | 1.4x | 1.6x            | 0.8, 1.9, 0.8 | 0.3, 0.5, 0.4 |
| 64x16x16x32, 64         | 1.5x | 1.7x            | 1.0, 2.3, 0.9 | 0.6, 0.4, 0.6 |
| 64x16x16x64, 64         | 2.1x | 1.9x            | 1.5, 1.3, 1.3 | 0.7, 0.4, 0.8 |
| 128x8x8x128, 128        | 1.6x | 1.9x            | 1.7, 1.4, 1.7 | 0.5, 0.4, 0.7 |

Source: Winograd 1980; Lavin & Gray 2016, section 4; Barabasz, Anderson, Soodhalter & Gregg 2020 on the points.
"""

import functools
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from fdl.layers.conv.geometry import Geometry

OUT, KERNEL = 4, 3
TILE = OUT + KERNEL - 1
POINTS = (Fraction(0), Fraction(2, 3), Fraction(-2, 3), Fraction(3, 2), Fraction(-3, 2))  # and infinity


@functools.cache
def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(A [6, 4], G [6, 3], B [6, 6]): values at the points of polynomials with 4, 3 coefficients, and the interpolation."""
    values = lambda n: [[p**j for j in range(n)] for p in POINTS] + [[Fraction(j == n - 1) for j in range(n)]]
    a, g = (np.array(values(n), float) for n in (OUT, KERNEL))
    b = np.array(_inverse(values(TILE)), float)  # [6, 6], column of a point: its share in each coefficient
    # rows of G and columns of B of like size, by powers of 2, which are exact
    scale = 2.0 ** np.round(np.log2(np.linalg.norm(b, axis=0) / np.linalg.norm(g, axis=1)) / 2)
    return a, g * scale[:, None], b / scale[None, :]


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """By Gauss and Jordan, in fractions: zeros stay zeros and cost nothing."""
    size = len(matrix)
    rows = [[*row, *(Fraction(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        pivot = next(r for r in range(i, size) if rows[r][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [entry / rows[i][i] for entry in rows[i]]
        for r in range(size):
            if r != i and rows[r][i]:
                rows[r] = [a - rows[r][i] * b for a, b in zip(rows[r], rows[i], strict=True)]
    return [row[size:] for row in rows]


def fits(geometry: Geometry) -> bool:
    """Whether it applies: 3x3, stride 1, no dilation, no groups."""
    plain = geometry.strides == geometry.dilation == (1, 1) and geometry.groups == 1
    return plain and geometry.kernel == (KERNEL, KERNEL)


def tiles(geometry: Geometry) -> tuple[int, int]:
    height, width = geometry.outputs
    return -(-height // OUT), -(-width // OUT)


def _combined(matrix: np.ndarray, terms: list[Any]) -> list[Any]:
    """For every row of the matrix, the sum of its multiples of the terms."""
    found = []
    for row in matrix:
        parts = [t if c == 1 else t * jnp.asarray(c, t.dtype) for c, t in zip(row, terms, strict=True) if c]
        found.append(sum(parts[1:], start=parts[0]))
    return found


def _every(x: Any, start: int, count: int, axis: int) -> Any:
    """The cell `start` of every tile."""
    return lax.slice_in_dim(x, start, start + OUT * (count - 1) + 1, OUT, axis)


def _to_points(matrix: np.ndarray, x: Any, counts: tuple[int, int]) -> Any:
    """x [H, W, N, C] to its values at the points, [36, tiles N, C]; matrix [6, cells of a tile]."""
    cells = range(matrix.shape[1])
    rows = jnp.stack(_combined(matrix, [_every(x, a, counts[0], 0) for a in cells]))  # [6, t, W, N, C]
    both = jnp.stack(_combined(matrix, [_every(rows, b, counts[1], 2) for b in cells]), axis=1)
    return both.reshape(TILE * TILE, -1, x.shape[-1])


def kernel_to_points(w: Any) -> Any:
    """G w G^T: [3, 3, I, O] to [36, I, O]. Sums: as products of so small matrices, H of choice.py took 25 ms
    for 21."""
    g = matrices()[1]
    rows = jnp.stack(_combined(g, [w[a] for a in range(KERNEL)]))  # [6, 3, I, O]
    return jnp.stack(_combined(g, [rows[:, b] for b in range(KERNEL)]), axis=1).reshape(TILE * TILE, *w.shape[2:])


def kernel_from_points(dv: Any) -> Any:
    """G^T dv G, the adjoint."""
    g = matrices()[1].T
    dv = dv.reshape(TILE, TILE, *dv.shape[1:])
    rows = jnp.stack(_combined(g, [dv[p] for p in range(TILE)]))  # [3, 6, I, O]
    return jnp.stack(_combined(g, [rows[:, q] for q in range(TILE)]), axis=1)


def _images(x: Any, geometry: Geometry, pads: Any, dtype: Any) -> Any:
    """[N, H, W, C] to [H, W, N, C]: a tile's cell is then one long row; padded."""
    around = [*((lo, hi, 0) for lo, hi in pads), (0, 0, 0), (0, 0, 0)]
    return lax.pad(jnp.transpose(x, (1, 2, 0, 3)).astype(dtype), jnp.zeros((), dtype), around)


def _tiled_inputs(x: Any, geometry: Geometry, dtype: Any) -> Any:
    pads = zip(geometry.padding, geometry.inputs, tiles(geometry), strict=True)
    return _images(x, geometry, [(lo, OUT * t + KERNEL - 1 - size - lo) for (lo, _), size, t in pads], dtype)


def _tiled_outputs(dy: Any, geometry: Geometry, dtype: Any) -> Any:
    pads = zip(geometry.outputs, tiles(geometry), strict=True)
    return _images(dy, geometry, [(0, OUT * t - size) for size, t in pads], dtype)


def forward(x: Any, v: Any, geometry: Geometry, accumulate: Any) -> Any:
    """y for the kernel at the points, v = kernel_to_points(w)."""
    a, _, b = matrices()
    counts = tiles(geometry)
    u = _to_points(b.T, _tiled_inputs(x, geometry, accumulate), counts)
    # one product for all points: as 36 the same rows took 3.4 to 5.5 times as long, with the gradients' 2.0 to 2.6 times
    m = jnp.matmul(u, v).reshape(TILE, TILE, *counts, x.shape[0], -1)  # [6, 6, t, t, N, O]
    m = jnp.stack(_combined(a.T, [m[:, q] for q in range(TILE)]), axis=3)  # [6, t, t, 4, N, O]
    m = jnp.stack(_combined(a.T, [m[p] for p in range(TILE)]), axis=1)  # [t, 4, t, 4, N, O]
    height, width = geometry.outputs
    y = m.reshape(OUT * counts[0], OUT * counts[1], *m.shape[4:])[:height, :width]
    return jnp.transpose(y, (2, 0, 1, 3))


def gradients(x: Any, v: Any, dy: Any, geometry: Geometry, accumulate: Any) -> tuple[Any, Any]:
    """(dx, dv), with dw = kernel_from_points(dv); the transformed error serves both."""
    a, _, b = matrices()
    counts = tiles(geometry)
    e = _to_points(a, _tiled_outputs(dy, geometry, accumulate), counts)  # [36, tiles N, O]
    u = _to_points(b.T, _tiled_inputs(x, geometry, accumulate), counts)
    dv = jnp.einsum("ptc,pto->pco", u, e)
    du = jnp.einsum("pto,pco->ptc", e, v).reshape(TILE, TILE, *counts, x.shape[0], -1)
    du = _overlapped(_combined(b, [du[:, q] for q in range(TILE)]), 2)  # [6, t, W, N, C]
    du = _overlapped(_combined(b, [du[p] for p in range(TILE)]), 0)  # [H, W, N, C]
    cut = [(lo, lo + size) for (lo, _), size in zip(geometry.padding, geometry.inputs, strict=True)]
    return jnp.transpose(_window(du, cut), (2, 0, 1, 3)), dv


def _overlapped(cells: list[Any], axis: int) -> Any:
    """The 6 cells of every tile along `axis`, tiles 4 apart: the last two of a tile lie on the first two of the next."""
    edge = [(0, 0, 0)] * cells[0].ndim
    zero = jnp.zeros((), cells[0].dtype)
    first, last = list(edge), list(edge)
    first[axis], last[axis] = (1, 0, 0), (0, 1, 0)
    laid = []
    for i in range(OUT):
        here = lax.pad(cells[i], zero, last)
        laid.append(here + lax.pad(cells[OUT + i], zero, first) if OUT + i < TILE else here)
    stacked = jnp.stack(laid, axis + 1)
    return stacked.reshape(*stacked.shape[:axis], -1, *stacked.shape[axis + 2 :])


def _window(x: Any, cut: list[tuple[int, int]]) -> Any:
    """x[lo:hi] along the first axes; cells beyond the end are zeros (no tile saw them)."""
    around = [(-lo, hi - size, 0) for (lo, hi), size in zip(cut, x.shape[: len(cut)], strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [*around, *[(0, 0, 0)] * (x.ndim - len(cut))])
