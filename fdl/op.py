"""Op: an equation with its proof obligation.

    huber = Op(equation, forward, backward)

    huber(pred, target, delta=1.0)                  the fast path: jax.grad goes through `backward` (custom_vjp)
    huber.equation(pred, target, delta=1.0)         the formula as the textbook writes it, the oracle
    out, residuals = huber.forward(pred, target)    what the fast path computes and what it keeps
    dpred, dtarget = huber.backward(residuals, dout)
    huber.bind(delta=2.0)                           an Op again

The three functions are plain and pure. Positional arguments are differentiable pytrees; options are keyword-only and have
their defaults in `equation` alone. `backward` returns a tuple with one cotangent per positional argument, in argument
order and of the same structure, shape and dtype as the argument; `None` stands for an integer, boolean or key argument.

Options. A hashable value (number, string, tuple, None) is static: it shapes the program. An array, concrete or traced,
enters as an operand without a derivative, so that it can be swept by `vmap`.

Derivatives. The first derivative is `backward`; higher ones in reverse, and `jax.hessian`, differentiate the code of
`forward` and `backward`. Forward mode (`jax.jvp`) of the fast path is refused by `custom_vjp`; `equation` has it.

Devices. Under `shard_map` the arguments are cast to their common varying axes at the door, whose transpose is the sum over
devices that a replicated parameter needs. Under explicit sharding the backward runs with automatic axes and its cotangents
take the shardings of the primals.
"""

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from fdl.errors import refuse, refuse_type, shown


@jax.tree_util.register_static
class Static:
    """A hashable fact that travels in a pytree without becoming an array: residuals cross `jit`, `scan`, `checkpoint`.

    Two are equal when types and values are, inside tuples too: 1, 1.0 and True make different programs.

        >>> fdl.Static((2, 2)) == fdl.Static((2, 2)), fdl.Static(1) == fdl.Static(1.0)
        (True, False)
    """

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and _exactly(self.value) == _exactly(other.value)

    def __hash__(self) -> int:
        return hash(_exactly(self.value))

    def __repr__(self) -> str:
        return f"Static({self.value!r})"


def _exactly(value: Any) -> tuple:
    if isinstance(value, tuple):
        return (type(value), *map(_exactly, value))
    # 0.0 == -0.0 for Python, not for a program
    return (type(value), value.hex() if isinstance(value, float) else value)


class Operand:
    """A bound array option. It may be traced, so it is compared by identity and never hashed by value."""

    def __init__(self, value: Any):
        self.value = value

    def __repr__(self) -> str:
        return shown(self.value)


def accumulator(dtype: Any) -> Any:
    """The dtype in which sums over this dtype are kept: float32 for 16-bit, else itself."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else jnp.dtype(dtype)


Options = tuple[tuple[str, "Static | Operand"], ...]


@dataclasses.dataclass(frozen=True)
class _Signature:
    arguments: tuple[str, ...]  # positional, differentiable
    optional: dict[str, Any]  # those of them that have a default
    variadic: bool
    options: tuple[str, ...]  # keyword-only
    defaults: tuple[tuple[str, Any], ...]
    any_option: bool  # takes **options


@functools.lru_cache(maxsize=4096)
def _signature(function: Callable) -> _Signature:
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keyword_only = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    return _Signature(
        arguments=tuple(p.name for p in positional),
        optional={p.name: p.default for p in positional if p.default is not p.empty},
        variadic=any(p.kind is p.VAR_POSITIONAL for p in parameters),
        options=tuple(p.name for p in keyword_only),
        defaults=tuple((p.name, p.default) for p in keyword_only if p.default is not p.empty),
        any_option=any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Op:
    """An equation, its forward pass and its hand-written backward pass (see the module's docstring).

    Frozen, hashable and registered as static: an ordinary argument of a jitted function. Two Ops are equal when their
    functions and bound options are.

    Errors: at construction if `forward` does not take an option of `equation`; at trace time if `backward` returns the
    wrong number of cotangents, or one of the wrong structure, shape or dtype.

        >>> square = fdl.Op(lambda x: x**2, lambda x: (x * x, x), lambda x, dy: (2 * x * dy,), name="square")
        >>> jax.grad(square)(jnp.float32(3))
        Array(6., dtype=float32)
    """

    _equation: Callable
    _forward: Callable
    _backward: Callable
    name: str
    options: Options

    def __init__(
        self,
        equation: Callable,
        forward: Callable,
        backward: Callable,
        name: str | None = None,
        options: Options = (),
    ):
        for role, function in (("equation", equation), ("forward", forward), ("backward", backward)):
            if not callable(function):
                refuse_type("Op", f"{role} is {shown(function)}, wanted a function")
        fields = {
            "_equation": equation,
            "_forward": forward,
            "_backward": backward,
            "name": name or _name_of(equation),
            "options": options,
            "__doc__": _described(equation),
        }
        for field, value in fields.items():
            object.__setattr__(self, field, value)
        self._check_signatures()

    def _check_signatures(self) -> None:
        known = _signature(self._equation)
        forward, backward = _signature(self._forward), _signature(self._backward)
        missing = [name for name in known.options if name not in forward.options]
        if missing and not forward.any_option:
            refuse_type(self.where, f"forward does not take the option(s) {missing} of equation; add them after a `*`")
        for role, signature in (("forward", forward), ("backward", backward)):
            unknown = [name for name in signature.options if name not in known.options]
            if unknown and not known.any_option:
                refuse_type(self.where, f"{role} takes the option(s) {unknown} that equation lacks; add them there")

    @property
    def where(self) -> str:
        return f"fdl.Op {self.name!r}"

    def __repr__(self) -> str:
        bound = "".join(f", {name}={kept.value!r}" for name, kept in self.options)
        return f"Op({self.name}{bound})"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the positional arguments, in order."""
        return _signature(self._equation).arguments

    @property
    def option_names(self) -> tuple[str, ...]:
        """The names of the keyword-only options, bound or not."""
        return _signature(self._equation).options

    def bind(self, **options: Any) -> "Op":
        """This Op with some options fixed."""
        kept = dict(self.options) | {name: self._kept(name, value) for name, value in options.items()}
        return Op(self._equation, self._forward, self._backward, self.name, tuple(sorted(kept.items())))

    def equation(self, *args: Any, **options: Any) -> Any:
        """The plain formula: the oracle, differentiable by JAX's own rules to any order and in forward mode."""
        args, resolved = self._resolve(args, options)
        return self._equation(*args, **_values(resolved))

    def forward(self, *args: Any, **options: Any) -> tuple[Any, Any]:
        """(out, residuals): the value and what `backward` needs."""
        args, resolved = self._resolve(args, options)
        return self._paired(self._forward(*args, **_values(resolved)))

    def recorded(self, *args: Any, **options: Any) -> tuple[Any, "Recorded"]:
        """As `forward`, but `backward` checks what it gets and returns against the arguments and the output of this call."""
        args, resolved = self._resolve(args, options)
        out, residuals = self._paired(self._forward(*args, **_values(resolved)))
        return out, Recorded(residuals, _Primals.of(args), _Primals.of((out,)))

    def backward(self, residuals: Any, dout: Any, **options: Any) -> tuple:
        """One cotangent per positional argument, for the cotangent `dout` of the output."""
        pull = functools.partial(self._backward, **self._of_backward(_values(self._resolve_options(options))))
        if not isinstance(residuals, Recorded):
            return pull(residuals, dout)
        residuals.output.check_cotangent(self, dout)
        return residuals.arguments.pull_back(self, pull, residuals.kept, dout)

    def _paired(self, result: Any) -> tuple[Any, Any]:
        if not isinstance(result, tuple) or len(result) != 2:
            got = f"a tuple of {len(result)}" if isinstance(result, tuple) else shown(result)
            refuse_type(self.where, f"forward returned {got}, wanted (out, residuals); with nothing to keep, (out, ())")
        return result

    def __call__(self, *args: Any, **options: Any) -> Any:
        args, resolved = self._resolve(args, options)
        static = tuple((name, kept) for name, kept in resolved.items() if isinstance(kept, Static))
        operands = {name: kept.value for name, kept in resolved.items() if isinstance(kept, Operand)}
        args, operands = _with_common_varying_axes((args, operands))
        return _fast_path(Op(self._equation, self._forward, self._backward, self.name), static)(operands, *args)

    def _of_backward(self, options: dict[str, Any]) -> dict[str, Any]:
        signature = _signature(self._backward)
        return options if signature.any_option else {n: options[n] for n in signature.options if n in options}

    def _kept(self, name: str, value: Any) -> Static | Operand:
        signature = _signature(self._equation)
        if name not in signature.options and not signature.any_option:
            known = ", ".join(signature.options) or "none"
            refuse_type(self.where, f"unknown option {name!r}; its options are: {known}")
        if isinstance(value, np.generic):
            value = value.item()
        value = _as_tuple(value)
        if isinstance(value, jax.Array | np.ndarray):
            return Operand(value)
        try:
            hash(value)
        except TypeError:
            refuse_type(
                self.where, f"option {name} is {shown(value)}, wanted a number, string, tuple, None or an array"
            )
        return Static(value)

    def _resolve(self, args: tuple, options: dict[str, Any]) -> tuple[tuple, dict[str, Static | Operand]]:
        """Every positional argument in order, and every option: defaults of `equation`, then bound, then given here."""
        signature = _signature(self._equation)
        named = {name: value for name, value in options.items() if name in signature.arguments[len(args) :]}
        given = {name: value for name, value in options.items() if name not in named}
        resolved = self._resolve_options(given)
        if len(args) > len(signature.arguments) and not signature.variadic:
            wanted = f"wanted {', '.join(signature.arguments)}; options are passed by keyword"
            refuse_type(self.where, f"got {len(args)} positional arguments, {wanted}")
        missing = [name for name in signature.options if name not in resolved]
        rest = signature.arguments[len(args) :]
        missing += [name for name in rest if name not in named and name not in signature.optional]
        if missing:
            refuse_type(self.where, f"missing {', '.join(missing)}")
        return (*args, *(named.get(name, signature.optional.get(name)) for name in rest)), resolved

    def _resolve_options(self, options: dict[str, Any]) -> dict[str, Static | Operand]:
        resolved: dict[str, Static | Operand] = {name: Static(v) for name, v in _signature(self._equation).defaults}
        resolved.update(self.options)
        resolved.update({name: self._kept(name, value) for name, value in options.items()})
        return resolved


def _as_tuple(value: Any) -> Any:
    """Lists, nested ones too, as tuples, which are hashable."""
    return tuple(map(_as_tuple, value)) if type(value) in (list, tuple) else value


def _name_of(equation: Callable) -> str:
    """A concept's file names its Op: fdl/losses/huber.py holds a function `equation` and makes the Op huber."""
    name = getattr(equation, "__name__", "op")
    if name == "equation":
        return equation.__module__.rsplit(".", 1)[-1]
    return "op" if name == "<lambda>" else name


def _described(equation: Callable) -> str | None:
    """What `help` says of an Op: the docstring of its equation, or of the concept's file."""
    if equation.__doc__ or getattr(equation, "__name__", "") != "equation":
        return equation.__doc__
    return getattr(sys.modules.get(equation.__module__), "__doc__", None)


def _values(options: dict[str, Static | Operand]) -> dict[str, Any]:
    return {name: kept.value for name, kept in options.items()}


@functools.lru_cache(maxsize=4096)
def _fast_path(op: Op, static: tuple[tuple[str, Static], ...]) -> Callable:
    """The custom_vjp of one op with one set of static options, made once: jit's caches then hold its traces."""
    fixed = {name: kept.value for name, kept in static}

    @jax.custom_vjp
    def primal(operands, *args):
        return _batched_as_one(op._paired(op._forward(*args, **fixed, **operands))[0], (operands, args))

    def forward(operands, *args):
        out, residuals = op._paired(op._forward(*args, **fixed, **operands))
        return _batched_as_one(out, (operands, args)), (residuals, operands, Static(_Primals.of(args)))

    def backward(kept, dout):
        residuals, operands, primals = kept
        pull = functools.partial(op._backward, **op._of_backward(fixed | operands))
        return (None, *primals.value.pull_back(op, pull, residuals, dout))

    primal.defvjp(forward, backward)
    # inline: inside a user's jit the op's equations stand in the jaxpr as if written there
    return jax.jit(primal, inline=True)


def _batched_as_one(out: Any, inputs: Any) -> Any:
    """`out`, of which `vmap` batches all arrays if it batches any input.

    JAX counts the cotangent of an output that is not batched beside one that is once for every member of the batch: the
    batch's statistics beside y, under vmap over the parameters. XLA removes what is added here.
    """
    leaves, structure = jax.tree.flatten(out)
    if len(leaves) < 2:
        return out
    arrays = [x for x in jax.tree.leaves(inputs) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
    either = functools.reduce(jnp.logical_or, (jnp.any(x != x) for x in map(jnp.asarray, arrays)))
    return jax.tree.unflatten(structure, [jax.lax.select_n(either, leaf, leaf) for leaf in leaves])


@dataclasses.dataclass(frozen=True)
class _Leaf:
    shape: tuple[int, ...]
    dtype: Any
    sharding: Any  # the spec on a mesh with explicit axes, else None

    @classmethod
    def of(cls, x: Any) -> "_Leaf | None":
        if x is None:
            return None
        aval = jax.typeof(x)
        return cls(aval.shape, aval.dtype, _explicit_spec(aval))

    @property
    def differentiable(self) -> bool:
        return jnp.issubdtype(self.dtype, jnp.inexact)

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def _flatten(tree: Any) -> tuple[list, Any]:
    """None is a leaf here: an argument may hold one, and a cotangent says None where there is no derivative."""
    return jax.tree.flatten(tree, is_leaf=lambda leaf: leaf is None)


@dataclasses.dataclass(frozen=True)
class _Primals:
    """What the cotangents have to match: structure, shapes, dtypes and, on an explicit mesh, shardings."""

    structures: tuple[Any, ...]
    leaves: tuple[tuple["_Leaf | None", ...], ...]

    @classmethod
    def of(cls, args: tuple) -> "_Primals":
        flat = [_flatten(arg) for arg in args]
        return cls(tuple(structure for _, structure in flat), tuple(tuple(map(_Leaf.of, xs)) for xs, _ in flat))

    def pull_back(self, op: Op, pull: Callable, residuals: Any, dout: Any) -> tuple:
        run = lambda residuals, dout: self._checked(op, pull(residuals, dout))
        if any(leaf and leaf.sharding is not None for leaves in self.leaves for leaf in leaves):
            specs = tuple(
                jax.tree.unflatten(
                    structure, [leaf.sharding or P() if leaf and leaf.differentiable else None for leaf in leaves]
                )
                for structure, leaves in zip(self.structures, self.leaves, strict=True)
            )
            return with_automatic_axes(run, specs)(residuals, dout)
        return run(residuals, dout)

    def check_cotangent(self, op: Op, dout: Any) -> None:
        """These are the outputs of an op: their cotangent has to be alike."""
        got, structure = _flatten(dout)
        if structure != self.structures[0]:
            refuse(op.where, f"backward got a cotangent of structure {structure}, its output has {self.structures[0]}")
        for value, leaf in zip(got, self.leaves[0], strict=True):
            if leaf is None or not leaf.differentiable:
                continue
            if value is None or np.shape(value) != leaf.shape or jnp.result_type(value) != leaf.dtype:
                refuse(op.where, f"backward got the cotangent {shown(value)}, its output is {leaf}; they must be alike")

    def _checked(self, op: Op, cotangents: Any) -> tuple:
        arguments = op.arguments + tuple(f"args[{i}]" for i in range(len(op.arguments), len(self.leaves)))
        names = arguments[: len(self.leaves)]
        wanted = "(" + ", ".join("d" + name for name in names) + ("," if len(names) == 1 else "") + ")"
        if not isinstance(cotangents, tuple):
            refuse_type(
                op.where,
                f"backward returned {shown(cotangents)}, wanted a tuple with one cotangent per argument; return {wanted}",
            )
        if len(cotangents) != len(names):
            refuse(
                op.where,
                f"backward returned {len(cotangents)} cotangent(s) for {len(names)} argument(s) ({', '.join(names)}); "
                f"return {wanted}, in this order",
            )
        return tuple(
            _checked_cotangent(op, name, cotangent, structure, leaves)
            for name, cotangent, structure, leaves in zip(names, cotangents, self.structures, self.leaves, strict=True)
        )


@functools.partial(jax.tree_util.register_dataclass, data_fields=["kept"], meta_fields=["arguments", "output"])
@dataclasses.dataclass(frozen=True)
class Recorded:
    """Residuals, and what the arguments and the output were that they belong to."""

    kept: Any
    arguments: _Primals
    output: _Primals


def _checked_cotangent(op: Op, name: str, cotangent: Any, structure: Any, leaves: tuple) -> Any:
    if cotangent is None and not any(leaf and leaf.differentiable for leaf in leaves):
        return jax.tree.unflatten(structure, [None] * len(leaves))
    got, got_structure = _flatten(cotangent)
    if got_structure != structure:
        refuse(
            op.where,
            f"backward returned d{name} with structure {got_structure}, but {name} has structure {structure}; return "
            f"the structure of {name} (None stands only for what has no derivative: integers, booleans, keys)",
        )
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(cotangent, is_leaf=lambda leaf: leaf is None)[0]]
    for path, value, leaf in zip(paths, got, leaves, strict=True):
        _check_leaf(op, name + jax.tree_util.keystr(path), value, leaf)
    return cotangent


def _check_leaf(op: Op, name: str, cotangent: Any, leaf: "_Leaf | None") -> None:
    if leaf is None or not leaf.differentiable:
        if cotangent is not None and getattr(cotangent, "dtype", None) != jax.dtypes.float0:
            refuse_type(
                op.where, f"backward returned {shown(cotangent)} for {name}, which is {leaf} and has none; return None"
            )
        return
    if cotangent is None:
        refuse_type(
            op.where, f"backward returned None for {name}, which is {leaf}; return zeros if its derivative is zero"
        )
    shape, dtype = np.shape(cotangent), jnp.result_type(cotangent)
    if shape != leaf.shape:
        refuse(
            op.where,
            f"backward returned d{name} with shape {list(shape)}, but {name} has shape {list(leaf.shape)}; return a "
            f"cotangent of shape {list(leaf.shape)} (sum over the axes along which {name} was broadcast)",
        )
    if dtype != leaf.dtype:
        refuse_type(
            op.where,
            f"backward returned d{name} with dtype {dtype}, but {name} is {leaf}; return it as {leaf.dtype}, "
            "for example with .astype",
        )


def on_explicit_mesh(tree: Any) -> bool:
    """Whether an array of the tree lives on a mesh with explicit axes."""
    return any(_explicit_spec(jax.typeof(x)) is not None for x in jax.tree.leaves(tree))


def with_automatic_axes(function: Callable, out_specs: Any) -> Callable:
    """The function with every explicit mesh axis automatic inside, and these shardings on what comes out."""
    wrapped: Any = jax.sharding.auto_axes(function, out_sharding=out_specs)
    return wrapped


def specs(tree: Any) -> Any:
    """The shardings of the arrays on a mesh with explicit axes, as a tree of specs."""
    return jax.tree.map(lambda x: _explicit_spec(jax.typeof(x)) or P(), tree)


def _explicit_spec(aval: Any) -> Any:
    sharding = getattr(aval, "sharding", None)
    if sharding is None or AxisType.Explicit not in sharding.mesh.axis_types:
        return None
    return sharding.spec


def _varying_axes(x: Any) -> frozenset:
    aval = jax.typeof(x)
    # this property moved between releases of jax
    return aval.vma if hasattr(aval, "vma") else aval.manual_axis_type.varying


def _with_common_varying_axes(tree: Any) -> Any:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    common = frozenset().union(*map(_varying_axes, leaves))
    if not common:
        return tree

    def cast(leaf):
        missing = tuple(sorted(common - _varying_axes(leaf)))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, tree)
