"""Errors at the door: every refusal names the function, the argument, what it got, what it wanted, and the remedy.

`InputError` is a `ValueError` (a shape, a value, a name), `DataError` one of them (a file), `InputTypeError` a `TypeError` (a
dtype, a kind of object). All know where they were raised, so that a model can put the name of the layer there: "dense_2: got
features 64, its weights want 100".
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp


class _Located(Exception):
    """`where: detail`; composites prepend the layer's name to `where` on the way out."""

    def __init__(self, where: str, detail: str):
        super().__init__(where, detail)
        self.where = where
        self.detail = detail
        self.layer_known = False

    def __str__(self) -> str:
        return f"{self.where}: {self.detail}"


class InputError(_Located, ValueError):
    """A value, a shape or a name that fdl refuses."""


class InputTypeError(_Located, TypeError):
    """A dtype or a kind of object that fdl refuses."""


class DataError(InputError):
    """A file that fdl refuses: damaged, cut short or in another format. `where` is the file."""


def refuse(where: str, detail: str) -> NoReturn:
    raise InputError(where, detail)


def refuse_type(where: str, detail: str) -> NoReturn:
    raise InputTypeError(where, detail)


@contextlib.contextmanager
def inside_layer(name: str) -> Iterator[None]:
    """Errors raised inside carry the layer's name: the innermost one replaces the op's, the outer ones are prepended."""
    try:
        yield
    except (InputError, InputTypeError) as error:
        error.where = f"{name}/{error.where}" if error.layer_known else name
        error.layer_known = True
        raise
    except Exception as error:
        error.add_note(f"in layer {name!r}")
        raise


def shown(x: Any) -> str:
    """An array as an error message shows it: float32[3, 4]."""
    if hasattr(x, "dtype") and hasattr(x, "shape"):
        return f"{x.dtype}[{', '.join(map(str, x.shape))}]"
    return f"{type(x).__name__} {x!r}" if isinstance(x, bool | int | float | str | None) else type(x).__name__


def is_array(x: Any) -> bool:
    return hasattr(x, "dtype") and hasattr(x, "shape") and hasattr(x, "ndim")


def require_array(where: str, name: str, x: Any) -> None:
    if not is_array(x):
        refuse_type(where, f"{name} is {shown(x)}, wanted an array; convert it with jnp.asarray")


def require_float(where: str, name: str, x: Any) -> None:
    """A floating array of any width."""
    require_array(where, name, x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        refuse_type(where, f"{name} is {shown(x)}, wanted a floating dtype; convert it with {name}.astype(jnp.float32)")


def require_integer(where: str, name: str, x: Any) -> None:
    require_array(where, name, x)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        refuse_type(where, f"{name} is {shown(x)}, wanted an integer dtype; convert it with {name}.astype(jnp.int32)")


def require_mask(where: str, mask: Any, x: Any, dims: int = 2) -> None:
    """Booleans over the first axes of x, at most so many of them."""
    require_array(where, "mask", mask)
    if not 1 <= mask.ndim <= min(dims, x.ndim) or mask.shape != x.shape[: mask.ndim]:
        wanted = "[N]" if dims < 2 else "[N] or, for sequences, [N, T] with the T of x (strides before it change T)"
        refuse(where, f"mask has shape {list(mask.shape)}, x has shape {list(x.shape)}; wanted {wanted}")
    if mask.dtype != jnp.bool_:
        refuse_type(where, f"mask is {shown(mask)}, wanted booleans (True: counts); pass mask != 0")


def require_same_dtype(where: str, first: str, x: Any, second: str, y: Any) -> None:
    if x.dtype != y.dtype:
        refuse_type(
            where,
            f"{first} is {x.dtype} and {second} is {y.dtype}; cast one of them, "
            f"for example {second}.astype({first}.dtype)",
        )


def require_same_shape(where: str, first: str, x: Any, second: str, y: Any) -> None:
    """Equal shapes: nothing is broadcast silently ([N] against [N, 1] would give [N, N])."""
    if x.shape != y.shape:
        refuse(
            where,
            f"{first} has shape {list(x.shape)} and {second} has shape {list(y.shape)}; they must be equal, "
            "nothing is broadcast: reshape one of them",
        )


def require_rank_at_least(where: str, name: str, x: Any, rank: int, meaning: str) -> None:
    if x.ndim < rank:
        refuse(where, f"{name} has shape {list(x.shape)}, wanted at least {rank} dimension(s): {meaning}")


def require_classes(where: str, name: str, x: Any, axis: int = -1) -> None:
    if x.shape[axis] == 0:
        refuse(where, f"{name} has shape {list(x.shape)}, wanted at least one class along axis {axis}")


def require_key(where: str, key: Any, remedy: str) -> None:
    """A PRNG key, new style (`jax.random.key`) or old (uint32[2])."""
    if key is None:
        refuse(where, f"key is missing; {remedy}")
    is_key = hasattr(key, "dtype") and (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.dtype == jnp.uint32)
    if not is_key:
        refuse_type(where, f"key is {shown(key)}, wanted a PRNG key; make one with jax.random.key(0)")
    if key.shape != (() if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else (2,)):
        refuse(where, f"key is {shown(key)}, wanted one key; pass one of them, keys[0]")


def require_number(
    where: str, name: str, value: Any, low: float, high: float, *, remedy: str, exclusive: bool = False
) -> None:
    """A numeric option inside [low, high], or (low, high) if exclusive; a traced one passes, its value is not known yet.

    NaN and infinities are refused.
    """
    if isinstance(value, bool) or not (isinstance(value, int | float) or (is_array(value) and value.ndim == 0)):
        refuse_type(where, f"{name} is {shown(value)}, wanted a number; {remedy}")
    try:
        value = float(value) if is_array(value) else value
    except jax.errors.ConcretizationTypeError:
        return
    inside = low < value < high if exclusive else low <= value <= high
    if not inside or math.isinf(value):
        less = "<" if exclusive else "<="
        below = "<" if math.isinf(high) else less
        refuse(where, f"{name} is {value}, wanted {low} {less} {name} {below} {high}; {remedy}")


def require_count(where: str, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        refuse(where, f"{name} is {value!r}, wanted a whole number of at least 1")


def require_bool(where: str, name: str, value: Any) -> None:
    if not isinstance(value, bool):
        refuse_type(
            where, f"{name} is {shown(value)}, wanted True or False; it shapes the program and cannot be traced"
        )


def require_axis(where: str, axis: Any, x: Any) -> None:
    """An axis of x, counted from either end."""
    if isinstance(axis, bool) or not isinstance(axis, int):
        refuse_type(where, f"axis is {shown(axis)}, wanted an integer")
    if not -x.ndim <= axis < x.ndim:
        refuse(where, f"axis is {axis}, but the array is {shown(x)}; wanted {-x.ndim} <= axis < {x.ndim}")


def require_pair(where: str, first: str, x: Any, second: str, y: Any, rank: int, meaning: str) -> None:
    """Two floating arrays of the same shape and dtype, of at least this rank."""
    require_float(where, first, x)
    require_float(where, second, y)
    require_rank_at_least(where, first, x, rank, meaning)
    require_same_shape(where, first, x, second, y)
    require_same_dtype(where, first, x, second, y)
