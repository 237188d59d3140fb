"""Layer: a record of pure functions. A model is a Layer made of Layers.

    params, state = model.init(key, (784,))                                   # the shape of ONE example
    y, state      = model.apply(params, state, x, train=True, key=key)        # fast: every op through its hand backward
    y, state      = model.equation(params, state, x, train=True, key=key)     # plain math: the oracle for jax.grad
    y, state, res = model.forward(params, state, x, train=True, key=key)
    dparams, dx   = model.backward(res, dy)                                   # hand-written backprop

The alphabet of dimensions, for the whole project: N batch, T time, H W spatial height and width, K kernel size, C channels,
I in, O out, D features, V classes or vocabulary. Arrays are batch first; images NHWC, sequences NTD; weights [I, O].

`apply`, `equation` and `forward` are the same walk through a layer's `run`: only what is done with each Op differs, and that
is what a `Pass` carries. So a layer is written once:

    init(key, spec, dtype) -> (params, state)            spec: jax.ShapeDtypeStruct of one example
    run(walk, params, state, x) -> (y, state, residuals) every Op called as walk.evaluate(op, *args)
    backward(residuals, dy) -> (dparams, dx)
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import refuse, refuse_type, require_array, require_key, require_mask, shown
from fdl.op import Op, Static

Params = dict[str, Any]
State = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Bound:
    """A function with some keyword arguments fixed; two are equal when function and arguments are.

    `functools.partial` is compared by identity, and a model built twice would compile twice.
    """

    function: Callable
    settings: tuple[tuple[str, Static], ...]

    def __call__(self, *args: Any, **more: Any) -> Any:
        return self.function(*args, **{name: kept.value for name, kept in self.settings}, **more)


def bind(function: Callable, **settings: Any) -> Bound:
    return Bound(function, tuple((name, Static(value)) for name, value in sorted(settings.items())))


@dataclasses.dataclass(frozen=True)
class Pass:
    """One walk through a model: what is done with each Op, and what layers may ask for."""

    evaluate: Callable[..., tuple[Any, Any]]  # (op, *args, **options) -> (out, residuals)
    train: bool
    key: Any = None
    mask: Any = None  # [N] or [N, T]

    def child(self, index: int, layer: "Layer") -> "Pass":
        """The walk as the index-th child sees it: a key of its own, if it is stochastic."""
        key = jax.random.fold_in(self.key, index) if layer.stochastic and self.key is not None else None
        return dataclasses.replace(self, key=key)


def _fast(op: Op, *args: Any, **options: Any) -> tuple[Any, Any]:
    return op(*args, **options), None


def _plain(op: Op, *args: Any, **options: Any) -> tuple[Any, Any]:
    return op.equation(*args, **options), None


def _kept(op: Op, *args: Any, **options: Any) -> tuple[Any, Any]:
    return op.recorded(*args, **options)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Layer:
    """A layer or a whole model (see the module's docstring).

    Frozen, hashable, registered as static: an ordinary argument of a jitted function, equal to another built alike.
    `layers` are the children of a composite, by name and in order; a stochastic layer needs a key when training; `examples` is
    the batch size of a layer that remembers something of each example, else None.

        >>> model = fdl.serial(fdl.dense(2), fdl.tanh())
        >>> params, state = model.init(jax.random.key(0), (3,))
        >>> y, state, residuals = model.forward(params, state, jnp.ones((4, 3), jnp.float32))
        >>> dparams, dx = model.backward(residuals, jnp.ones_like(y))
        >>> dparams["dense_0"]["w"].shape, dx.shape
        ((3, 2), (4, 3))
    """

    name: str
    layers: tuple[tuple[str, "Layer"], ...]
    stochastic: bool
    examples: int | None
    _init: Callable
    _run: Callable
    _backward: Callable

    def __init__(
        self,
        name: str,
        *,
        init: Callable,
        run: Callable,
        backward: Callable,
        layers: tuple[tuple[str, "Layer"], ...] = (),
        stochastic: bool = False,
        examples: int | None = None,
    ):
        fields: dict[str, Any] = {"name": name, "layers": layers}
        fields["stochastic"] = stochastic or any(x.stochastic for _, x in layers)
        fields["examples"] = examples or next((x.examples for _, x in layers if x.examples), None)
        for field, value in (fields | {"_init": init, "_run": run, "_backward": backward}).items():
            object.__setattr__(self, field, value)

    @staticmethod
    def from_op(name: str, op: Op, init: Callable | None = None) -> "Layer":
        """The layer of one Op. With `init(key, spec, dtype) -> params` the op takes (params, x), without it (x,)."""
        if init is None:
            return Layer(name, init=no_parameters, run=bind(_run_op, op=op), backward=bind(_backward_op, op=op))
        return Layer(
            name,
            init=bind(_init_params, init=init),
            run=bind(_run_params_op, op=op),
            backward=bind(_backward_params_op, op=op),
        )

    def __repr__(self) -> str:
        if not self.layers:
            return self.name
        return f"{self.name}({', '.join(f'{name}={layer!r}' for name, layer in self.layers)})"

    @property
    def names(self) -> tuple[str, ...]:
        """The layers in the order of execution; nested ones are "block/dense_1"."""
        return tuple(name for name, _ in self.leaves)

    @property
    def leaves(self) -> tuple[tuple[str, "Layer"], ...]:
        """(name, layer) of every layer that is not a composite, in the order of `names`."""
        flat = []
        for name, layer in self.layers:
            flat += [(f"{name}/{inner}", leaf) for inner, leaf in layer.leaves] if layer.layers else [(name, layer)]
        return tuple(flat)

    def init(self, key: Any, shape: Any, dtype: Any = None) -> tuple[Params, State]:
        """(params, state) for examples of this shape.

        shape: of ONE example, without the batch axis; a `jax.ShapeDtypeStruct` says the dtype of x too (token ids).
        dtype: of the parameters; by default that of x if it is floating, else float32.
        """
        require_key(f"{self.name}.init", key, "pass jax.random.key(0)")
        spec = input_spec(self.name, shape, dtype)
        if dtype is None:
            dtype = spec.dtype if jnp.issubdtype(spec.dtype, jnp.floating) else jnp.dtype(jnp.float32)
        if 0 in spec.shape or not jnp.issubdtype(dtype, jnp.floating):
            refuse(
                f"{self.name}.init",
                f"got the shape {spec.shape} and the dtype {dtype}, wanted sizes of at least 1 and a float",
            )
        output_spec(self, spec, jnp.dtype(dtype))  # shapes that do not fit are refused here, before any training
        return _initialise(self, key, spec, jnp.dtype(dtype))

    def apply(
        self, params: Params, state: State, x: Any, *, train: bool = False, key: Any = None, mask: Any = None
    ) -> tuple[Any, State]:
        """(y, state): the fast path; `jax.grad` goes through the hand-written backwards."""
        return self._walk(_fast, params, state, x, train, key, mask)[:2]

    def equation(
        self, params: Params, state: State, x: Any, *, train: bool = False, key: Any = None, mask: Any = None
    ) -> tuple[Any, State]:
        """(y, state): plain math, differentiated by JAX's own rules. The oracle."""
        return self._walk(_plain, params, state, x, train, key, mask)[:2]

    def forward(
        self, params: Params, state: State, x: Any, *, train: bool = False, key: Any = None, mask: Any = None
    ) -> tuple[Any, State, Any]:
        """(y, state, residuals): the forward pass that keeps what `backward` needs."""
        return self._walk(_kept, params, state, x, train, key, mask)

    def backward(self, residuals: Any, dy: Any, *, deltas: dict | None = None) -> tuple[Params, Any]:
        """(dparams, dx): the layers' backwards in reverse.

        deltas: a dict that receives {name: the error at that layer's output} on the way.
        """
        if deltas is not None and self.layers:
            return self._backward(residuals, dy, deltas=deltas)
        return self._backward(residuals, dy)

    def _walk(self, evaluate: Callable, params: Params, state: State, x: Any, train: bool, key: Any, mask: Any):
        require_array(self.name, "x", x)
        if x.ndim == 0:
            refuse(self.name, "x has shape [], wanted a batch axis first: x[None] makes a batch of one")
        for name, tree in (("params", params), ("state", state)):
            if not isinstance(tree, dict):
                refuse_type(self.name, f"{name} is {shown(tree)}, wanted the dict that init returned")
        if train and self.stochastic:
            require_key(self.name, key, f"{self._first_stochastic()!r} draws at random in training: pass key=")
        if mask is None:
            return self._run(Pass(evaluate, bool(train), key), params, state, x)
        require_mask(self.name, mask, x)
        # masked examples may hold NaN, and 0 * NaN is NaN: they enter as zeros
        x = jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, jnp.zeros((), x.dtype))
        y, state, residuals = self._run(Pass(evaluate, bool(train), key, mask), params, state, x)
        return y, state, residuals

    def _first_stochastic(self) -> str:
        return next((name for name, layer in self.leaves if layer.stochastic), self.name)


def input_spec(where: str, shape: Any, dtype: Any) -> jax.ShapeDtypeStruct:
    if isinstance(shape, jax.ShapeDtypeStruct):
        return shape
    if isinstance(shape, int):
        refuse_type(f"{where}.init", f"shape is {shape}, wanted the shape of one example, a tuple: ({shape},)")
    if not isinstance(shape, tuple | list) or not all(isinstance(n, int) and n >= 0 for n in shape):
        refuse_type(f"{where}.init", f"shape is {shape!r}, wanted a tuple of sizes like (784,) or a ShapeDtypeStruct")
    return jax.ShapeDtypeStruct(tuple(shape), dtype or jnp.float32)


def no_parameters(key: Any, spec: jax.ShapeDtypeStruct, dtype: Any) -> tuple[Params, State]:
    return {}, {}


def _run_op(walk: Pass, params: Params, state: State, x: Any, *, op: Op) -> tuple[Any, State, Any]:
    y, residuals = walk.evaluate(op, x)
    return y, state, residuals


def _backward_op(residuals: Any, dy: Any, *, op: Op) -> tuple[Params, Any]:
    (dx,) = op.backward(residuals, dy)
    return {}, dx


def _init_params(key: Any, spec: jax.ShapeDtypeStruct, dtype: Any, *, init: Callable) -> tuple[Params, State]:
    return init(key, spec, dtype), {}


def _run_params_op(walk: Pass, params: Params, state: State, x: Any, *, op: Op) -> tuple[Any, State, Any]:
    y, residuals = walk.evaluate(op, params, x)
    return y, state, residuals


def _backward_params_op(residuals: Any, dy: Any, *, op: Op) -> tuple[Params, Any]:
    dparams, dx = op.backward(residuals, dy)
    return dparams, dx


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _initialise(layer: Layer, key: Any, spec: jax.ShapeDtypeStruct, dtype: Any) -> tuple[Params, State]:
    # one program: drawn op by op, a new model would compile dozens
    return layer._init(key, spec, dtype)


@functools.lru_cache(maxsize=1024)
def output_spec(layer: Layer, spec: jax.ShapeDtypeStruct, dtype: Any) -> jax.ShapeDtypeStruct:
    """The shape and dtype of one example after the layer."""

    def batch(key, x):
        params, state = layer._init(key, spec, dtype)
        return layer.apply(params, state, x)[0]

    x = jax.ShapeDtypeStruct((layer.examples or 2, *spec.shape), spec.dtype)
    y = jax.eval_shape(batch, jax.eval_shape(lambda: jax.random.key(0)), x)
    return jax.ShapeDtypeStruct(y.shape[1:], y.dtype)
