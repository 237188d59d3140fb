"""What is judged: something that turns arguments and the cotangents of its outputs into values and gradients.

A subject is called as `subject(active, fixed, w) -> Result`:

    active   the arrays that are differentiated, a list
    fixed    everything else the computation needs: integer, boolean, key and empty leaves, constants, state, array options
    w        the cotangents of the floating outputs, a list, in a dtype that holds them exactly

`Layout` says how active and fixed leaves make up the arguments again. A `Differentiated` function is judged through
`jax.vjp`; other subjects (the hand-written backward of a layer) bring their gradients themselves. `transformed.py` makes a
subject out of a subject: batched, inside scan, under checkpoint, differentiated once more.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from fdl.errors import is_array, refuse, refuse_type, shown
from fdl.op import Op


class Result(NamedTuple):
    values: list  # floating outputs
    others: list  # outputs without a derivative
    gradients: list  # one per active leaf


class Subject(Protocol):
    def __call__(self, active: list, fixed: Any, w: list) -> Result: ...


# ---- arguments ----


@jax.tree_util.register_static
class Constant:
    """A leaf that is no array, on its way through `jit`: the activation, the rate or the name that a module holds."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One leaf of the arguments: its path as a user would write it, whether it is differentiated, and whose leaf it is.

    constant: it is no array, and the same in every run.
    """

    path: str
    active: bool
    shown: str
    argument: str = ""
    constant: bool = False


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the arguments are taken apart into active and fixed leaves, and put together again."""

    structure: Any
    leaves: tuple[Leaf, ...]

    @property
    def active(self) -> tuple[str, ...]:
        return tuple(leaf.path for leaf in self.leaves if leaf.active)

    @property
    def not_differentiated(self) -> tuple[str, ...]:
        return tuple(f"{leaf.path} {leaf.shown}" for leaf in self.leaves if not leaf.active)

    def split(self, args: tuple) -> tuple[list, list]:
        flat = jax.tree.leaves(args, is_leaf=_is_none)
        pairs = list(zip(self.leaves, flat, strict=True))
        fixed = [Constant(x) if leaf.constant else x for leaf, x in pairs if not leaf.active]
        return [x for leaf, x in pairs if leaf.active], fixed

    def join(self, active: list, fixed: list) -> tuple:
        of_active, of_fixed = iter(active), (x.value if isinstance(x, Constant) else x for x in fixed)
        return jax.tree.unflatten(self.structure, [next(of_active if x.active else of_fixed) for x in self.leaves])

    def gradients(self, cotangents: tuple) -> list:
        """The gradients of the active leaves, from a tuple like the arguments."""
        flat, structure = jax.tree.flatten(cotangents, is_leaf=_is_none)
        if structure != self.structure:
            refuse("backward", f"returned the structure {structure}, wanted that of the arguments, {self.structure}")
        return [x for leaf, x in zip(self.leaves, flat, strict=True) if leaf.active]


def _is_none(x: Any) -> bool:
    return x is None


def layout_of(where: str, names: tuple[str, ...], args: tuple, frozen: tuple[str, ...] = ()) -> Layout:
    """The layout of the arguments; those named in `frozen` are not differentiated, whatever they are.

    Leaves that are no arrays are constants: functions, strings, whole numbers, and the Python floats that a module (any
    registered class) holds, which are its settings. A Python float elsewhere, which `jax.grad` would differentiate in a
    precision of its choice, is refused.
    Errors: InputTypeError for such a float, and for a leaf that is traced, complex, or an array of another library.
    """
    pairs, structure = jax.tree_util.tree_flatten_with_path(args, is_leaf=_is_none)
    leaves = []
    for path, x in pairs:
        name = names[path[0].idx]
        of_module = any(isinstance(key, jax.tree_util.GetAttrKey | jax.tree_util.FlattenedIndexKey) for key in path)
        leaf = _leaf(where, name + jax.tree_util.keystr(path[1:]), x, name in frozen, of_module)
        leaves.append(dataclasses.replace(leaf, argument=name))
    return Layout(structure, tuple(leaves))


def _leaf(where: str, path: str, x: Any, frozen: bool, of_module: bool) -> Leaf:
    if x is None:
        return Leaf(path, False, "None", constant=True)
    if is_constant(x):
        foreign = not is_array(x) and hasattr(x, "__array__")
        if isinstance(x, complex) or foreign or (isinstance(x, float) and not of_module):
            setting = ", or options={...} if it is a setting" if isinstance(x, float) else ""
            refuse_type(where, f"{path} is {shown(x)}, wanted an array; pass jnp.asarray({path}){setting}")
        return Leaf(path, False, f"({_named(x)})", constant=True)
    if isinstance(x, jax.core.Tracer):
        refuse_type(where, f"{path} is traced; a check compares numbers, call it outside jit, grad and vmap")
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        refuse_type(where, f"{path} is {shown(x)}, wanted real arrays; pass its real and imaginary parts")
    return Leaf(path, bool(jnp.issubdtype(x.dtype, jnp.floating) and x.size and not frozen), shown(x))


def is_constant(x: Any) -> bool:
    """Whether a leaf is no array, or one of text and objects that NumPy alone has."""
    return not is_array(x) or (isinstance(x, np.ndarray | np.generic) and x.dtype.kind in "OUSMm")


def _named(x: Any) -> str:
    name = getattr(x, "__name__", None)
    return f"function {name}" if callable(x) and isinstance(name, str) and not isinstance(x, type) else shown(x)


def signed(function: Callable) -> Callable:
    """What has the signature: an Op takes *args, its equation says their names."""
    return function._equation if isinstance(function, Op) else inspect.unwrap(function)


def argument_names(function: Callable, count: int, reference: Callable | None = None) -> tuple[str, ...]:
    """The names of the positional arguments, from the signature: x, w, args[2]. A reference names what *args leaves open."""
    names = _positional(function, count)
    names += () if reference is None else _positional(reference, count)[len(names) :]
    rest = next((p.name for p in _parameters(function) if p.kind is p.VAR_POSITIONAL), "args")
    return names + tuple(f"{rest}[{i - len(names)}]" for i in range(len(names), count))


def _positional(function: Callable, count: int) -> tuple[str, ...]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(p.name for p in _parameters(function) if p.kind in kinds)[:count]


def _parameters(function: Callable) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some callables have none
        return []


# ---- subjects ----


@dataclasses.dataclass(frozen=True, eq=False)
class Differentiated:
    """A function, judged through `jax.vjp`. `fixed` is (leaves, array options); `settings` are its other options.

    with_aux: the function returns (out, aux), and cotangents reach `out` alone.
    """

    function: Callable
    layout: Layout
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    with_aux: bool = False

    def out(self, active: list, fixed: Any) -> tuple[Any, Any]:
        """(what the function returns, aux)."""
        leaves, arrays = fixed
        out = self.function(*self.layout.join(active, leaves), **self.settings, **arrays)
        out = without_constants(out)
        return out if self.with_aux else (out, ())

    def outputs(self, active: list, fixed: Any) -> tuple[list, tuple[list, list]]:
        """(outputs that get a cotangent, (other floating outputs, outputs without a derivative))."""
        out, aux = self.out(active, fixed)
        floats, others = parted(out)
        aux_floats, aux_others = parted(aux)
        return floats, (aux_floats, others + aux_others)

    def __call__(self, active: list, fixed: Any, w: list) -> Result:
        return pulled(lambda active: self.outputs(active, fixed), active, w)


def without_constants(out: Any) -> Any:
    """An output without the leaves that are neither arrays nor numbers: the activation of a module that is returned."""
    is_number = lambda x: isinstance(x, bool | int | float | complex)
    return jax.tree.map(lambda x: None if is_constant(x) and not is_number(x) else x, out)


def pulled(run: Callable, active: list, w: list) -> Result:
    """Values and gradients of `run(active) -> (outputs, (aux, others))`."""
    floats, pull, (aux, others) = jax.vjp(run, active, has_aux=True)
    (gradients,) = pull([cotangent.astype(out.dtype) for cotangent, out in zip(w, floats, strict=True)])
    return Result([*floats, *aux], others, gradients)


def parted(out: Any) -> tuple[list, list]:
    """The leaves that carry a derivative, and the others."""
    leaves = [x if is_array(x) else jnp.asarray(x) for x in jax.tree.leaves(out)]
    floats = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]
    return floats, [x for x in leaves if not jnp.issubdtype(x.dtype, jnp.inexact)]


def is_countable(x: Any) -> bool:
    """Integers and booleans: in a batch each example has its own; keys, state and options are shared by all."""
    return is_array(x) and (jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == np.bool_)
