"""A pytree as numpy arrays with names, and back.

A leaf is called by its path, "params/dense_0/w". Typed keys are kept as their key data, and dtypes that the array format does
not know as bytes, so that every bit comes back.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdl.errors import is_array, refuse, refuse_type, shown

# what is stored as it is; anything else as bytes
_STORED = frozenset(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 bfloat16 float16 float32 float64 complex64 complex128".split()
)
_WHERE = "train.checkpoint"


class Leaf(NamedTuple):
    """`key`: how random bits are made from a typed key ("threefry2x32"), None for an array."""

    name: str
    array: np.ndarray
    key: str | None

    @property
    def stored(self) -> np.ndarray:
        return self.array if self.array.dtype.name in _STORED else as_bytes(self.array)


def as_bytes(array: np.ndarray) -> np.ndarray:
    """uint8 [number of bytes], in C order, without a copy."""
    return array.reshape(-1).view(np.uint8)


def from_stored(stored: np.ndarray, shape: Sequence[int], dtype: str) -> np.ndarray:
    return stored if dtype in _STORED else stored.view(np.dtype(dtype)).reshape(shape)


def leaves_of(tree: Any) -> list[Leaf]:
    """All leaves on the host. Errors: InputTypeError for a leaf that is no array, InputError for two of the same name."""
    return [Leaf(name, _on_host(name, leaf), _key_kind(leaf)) for name, leaf in named(tree)]


def named(tree: Any) -> list[tuple[str, Any]]:
    """(name, leaf), in the order of `jax.tree.leaves`."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    pairs = [
        (jax.tree_util.keystr(path, simple=True, separator="/") or "the tree itself", leaf) for path, leaf in paths
    ]
    seen = set()
    for name, leaf in pairs:
        if name in seen:
            refuse(_WHERE, f"two leaves are called {name!r}; give them names that differ as text")
        seen.add(name)
        if not is_array(leaf):
            refuse_type(_WHERE, f"{name} is {shown(leaf)}, wanted an array; convert it with jnp.asarray")
    return pairs


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_kind(leaf: Any) -> str | None:
    return str(jax.random.key_impl(leaf)) if _is_key(leaf) else None


def _on_host(name: str, leaf: Any) -> np.ndarray:
    leaf = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        from jax.experimental import multihost_utils

        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    array = np.asarray(leaf, order="C")
    if array.dtype != bool and not jnp.issubdtype(array.dtype, jnp.number):
        refuse_type(_WHERE, f"{name} is {shown(array)}, wanted numbers")
    return array


def structure_of(tree: Any) -> Any:
    """The nesting without the arrays, for JSON: a leaf is its number, a list ["list", ...], a dict ["dict", [key, ...], ...]
    (named tuples as well), nothing null."""
    numbers = iter(range(len(jax.tree.leaves(tree))))

    def one(node):
        if node is None:
            return None
        if jax.tree_util.all_leaves([node]):
            return next(numbers)
        children = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda other: other is not node)[0]
        keys = [_plain_key(path[0]) for path, _ in children]
        listed = all(isinstance(path[0], jax.tree_util.SequenceKey) for path, _ in children)
        if listed and isinstance(node, list | tuple) and not hasattr(node, "_fields"):
            return ["list", *(one(child) for _, child in children)]
        return ["dict", *([key, one(child)] for key, (_, child) in zip(keys, children, strict=True))]

    return one(tree)


def _plain_key(entry: Any) -> str | int:
    key = next((getattr(entry, name) for name in ("key", "name", "idx") if hasattr(entry, name)), entry)
    return key if isinstance(key, str | int) else str(key)


def plain_tree(structure: Any, leaves: Sequence[Any]) -> Any:
    """Dicts and lists around the leaves, as `structure_of` described them."""
    if structure is None:
        return None
    if isinstance(structure, int):
        return leaves[structure]
    kind, *children = structure
    if kind == "list":
        return [plain_tree(child, leaves) for child in children]
    return {key: plain_tree(child, leaves) for key, child in children}


def as_value(leaf: Leaf) -> Any:
    """The array, or the typed key."""
    return leaf.array if leaf.key is None else jax.random.wrap_key_data(jnp.asarray(leaf.array), impl=leaf.key)


def misfit(like: Any, leaves: Sequence[Leaf]) -> str | None:
    """Why the leaves are not those of `like`; None if they are."""
    wanted, got = dict(named(like)), {leaf.name: leaf for leaf in leaves}
    for name, want in wanted.items():
        if name not in got:
            return f"it has no leaf {name!r}, wanted {shown(want)}"
        found = shown(as_value(got[name]))
        if found != shown(want) or (got[name].key is not None and as_value(got[name]).dtype != want.dtype):
            return f"its leaf {name!r} is {found}, wanted {shown(want)}"
    extra = [name for name in got if name not in wanted]
    return f"its leaf {extra[0]!r} is not wanted" if extra else None


def placed(like: Any, leaves: Sequence[Leaf]) -> Any:
    """The leaves in the structure of `like`, each where the leaf of `like` is: numpy for numpy, else on its devices."""
    by_name = {leaf.name: leaf for leaf in leaves}
    values = [_placed(want, by_name[name]) for name, want in named(like)]
    return jax.tree.unflatten(jax.tree.structure(like), values)


def _placed(want: Any, leaf: Leaf) -> Any:
    if isinstance(want, np.ndarray | np.generic):
        return leaf.array
    sharding = getattr(want, "sharding", None)
    if isinstance(want, jax.Array) and not want.committed:
        sharding = None  # it may move to where it is used, as it could before
    if sharding is not None and not sharding.is_fully_addressable and leaf.key is None:
        return jax.make_array_from_callback(leaf.array.shape, sharding, lambda index: leaf.array[index])
    array = jax.device_put(leaf.array, may_alias=False)  # a loop that donates it must not write into numpy's memory
    if array.dtype != leaf.array.dtype:
        refuse_type(
            _WHERE, f"{leaf.name} is {shown(leaf.array)}, which needs jax.config.update('jax_enable_x64', True)"
        )
    value = as_value(leaf._replace(array=array))
    return value if sharding is None else jax.device_put(value, sharding)
