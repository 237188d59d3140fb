"""What stock mistakes do to an array: turned round, moved, averaged, multiplied by one of another rank, or its largest alone."""

from collections.abc import Callable, Iterator

import numpy as np


def turned(x: np.ndarray, own: bool) -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """An argument turned round. Its own gradient would be the same turned as well, but for a transposition."""
    for one in range(x.ndim):
        for other in range(one + 1, x.ndim):
            if x.shape[one] == x.shape[other] > 1:
                last = one == x.ndim - 2 and other == x.ndim - 1
                how = "transposed" if last else f"transposed: axes {one} and {other} are swapped"
                yield how, lambda x, a=one, b=other: np.swapaxes(x, a, b)
    for axis in range(x.ndim if not own and x.ndim < 5 else 0):
        yield f"in reverse order along axis {axis}", lambda x, a=axis: np.flip(x, a)


def _hit(pick: Callable) -> Callable:
    """1 where a maximum or a minimum is, the first of several; 0 elsewhere."""

    def share(x, axis):
        places = np.arange(x.shape[axis]).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        return (places == np.expand_dims(pick(x, axis), axis)).astype(np.float64)

    return share


REDUCTIONS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "maximum": _hit(np.argmax),
    "minimum": _hit(np.argmin),
    "sum": lambda x, axis: np.ones(x.shape),
    "mean": lambda x, axis: np.full(x.shape, 1 / x.shape[axis]),
}
FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the square": lambda y: 2 * y,
    "half the square": lambda y: y,
    "the exponential": np.exp,
    "the logarithm": lambda y: 1 / y,
    "the square root": lambda y: 0.5 / np.sqrt(y),
}


def aligned(m: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """m in a form that multiplies what has that shape: of the same trailing axes, or of the same leading ones."""
    if m.size == 1 or m.ndim > len(shape):
        return None
    if m.shape == shape[len(shape) - m.ndim :]:
        return m
    return m.reshape(m.shape + (1,) * (len(shape) - m.ndim)) if m.shape == shape[: m.ndim] else None


def joined(join: Callable, g: np.ndarray, m: np.ndarray | None) -> np.ndarray:
    with np.errstate(all="ignore"):
        return join(g, m)


def averaged(x: np.ndarray, axis: int) -> np.ndarray:
    return np.broadcast_to(np.mean(x, axis, keepdims=True), x.shape)


def shifted(g: np.ndarray, by: int, axis: int) -> np.ndarray:
    moved = np.roll(g, by, axis)
    np.moveaxis(moved, axis, 0)[0 if by > 0 else -1] = 0.0
    return moved
