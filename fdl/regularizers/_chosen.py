"""Which parameters a penalty sees, and the sum over them: what all penalties share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import refuse, refuse_type
from fdl.op import accumulator

Filter = Callable[[str, Any], bool]


def weights_only(path: str, array: Any) -> bool:
    """The default filter: floating arrays of rank 2 and more.

    >>> fdl.regularizers.weights_only("dense_0/w", jnp.ones((2, 3))), fdl.regularizers.weights_only("dense_0/b", jnp.ones((3,)))
    (True, False)
    """
    return array.ndim >= 2 and _is_float(array)


def mask(params: Any, filter: Filter = weights_only) -> Any:
    """A tree of booleans: what the filter chooses. For optax: `optax.adamw(1e-3, mask=fdl.regularizers.mask)`.

    >>> fdl.regularizers.mask({"w": jnp.ones((2, 3)), "b": jnp.ones((3,))})
    {'b': False, 'w': True}
    """
    return jax.tree.unflatten(jax.tree.structure(params), [seen for seen, _ in chosen("mask", params, filter)])


def sparsity(params: Any, filter: Filter = weights_only) -> Any:
    """The share of the chosen entries that are exactly 0, a float32 scalar.

    >>> fdl.regularizers.sparsity({"w": jnp.float32([[0, 1], [0, 2]])})
    Array(0.5, dtype=float32)
    """
    arrays = [w for seen, w in chosen("sparsity", params, filter) if seen]
    zeros = [jnp.sum(w == 0, dtype=jnp.float32) for w in arrays]
    return added(zeros) / max(1, sum(w.size for w in arrays))


def chosen(name: str, params: Any, filter: Filter) -> list[tuple[bool, Any]]:
    """(does the penalty see it, array) for every leaf of params, in the order of the tree."""
    leaves = [(_path(path), w) for path, w in jax.tree_util.tree_flatten_with_path(params)[0]]
    pairs = [(bool(filter(path, w)), w) for path, w in leaves]
    where = f"regularizers.{name}"
    if not any(seen for seen, _ in pairs):
        names = [path for path, _ in leaves]
        refuse(where, f"the filter matches none of the parameters {names}; pass filter=lambda path, array: ...")
    for (path, w), (seen, _) in zip(leaves, pairs, strict=True):
        if seen and not _is_float(w):
            refuse_type(where, f"the filter chooses {path}, which is {w.dtype}, wanted a floating dtype; leave it out")
    return pairs


def total(name: str, params: Any, filter: Filter, of: Callable[[Any], Any]) -> Any:
    """The sum of of(w) over the chosen arrays, each in the dtype of its sum."""
    return added([of(wide(w)) for seen, w in chosen(name, params, filter) if seen])


def pulled(name: str, params: Any, filter: Filter, of: Callable[[Any], Any]) -> Any:
    """The cotangent of params: of(w) where the penalty sees w, 0 elsewhere, None where there is no derivative."""

    def pull(seen, w):
        if seen:
            return of(wide(w)).astype(w.dtype)
        return jnp.zeros_like(w) if _is_float(w) else None

    pairs = chosen(name, params, filter)
    return jax.tree.unflatten(jax.tree.structure(params), [pull(seen, w) for seen, w in pairs])


def added(terms: list[Any]) -> Any:
    """The sum of scalars, in the widest of their dtypes."""
    widest = max((term.dtype for term in terms), key=lambda dtype: jnp.finfo(dtype).bits)
    value = terms[0].astype(widest)
    for term in terms[1:]:
        value = value + term.astype(widest)
    return value


def wide(w: Any) -> Any:
    return w.astype(accumulator(w.dtype))


def like(strength: Any, w: Any) -> Any:
    """A strength, Python's or traced, in the dtype of w: a traced one may have another."""
    return jnp.asarray(strength, w.dtype)


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _is_float(w: Any) -> bool:
    return jnp.issubdtype(w.dtype, jnp.floating)
