"""Composition: Layers made of Layers. `forward` collects residuals by name, `backward` walks them in reverse.

    serial(f, g)            y = g(f(x))                 dx = df(dg(dy))         the chain rule, one path
    residual(f)             y = f(x) + x                dx = df(dy) + dy        two paths, so their errors add
    parallel(f, g)          y = f(x) + g(x)             dx = df(dy) + dg(dy)
    parallel(.., "concat")  y = [f(x), g(x)]            dx = df(dy[f]) + dg(dy[g])

Layers get the names dense_0, relu_1, ... from their place, or the name under which they are given. `params` and `state` are
nested dicts by these names; a layer that has none has no entry.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import inside_layer, refuse, refuse_type, shown
from fdl.layer import Layer, Params, Pass, State, bind, output_spec
from fdl.op import Static

Named = tuple[tuple[str, Layer], ...]


def serial(*layers: Layer, **named_layers: Layer) -> Layer:
    """The layers one after the other: y = f_n(... f_1(x)).

    Errors: InputError for a duplicate name, no layer at all, or a name with a slash; InputTypeError for what is no Layer.

        >>> model = fdl.serial(fdl.dense(8), fdl.relu(), out=fdl.dense(1))
        >>> model.names
        ('dense_0', 'relu_1', 'out')
    """
    children = _named("serial", layers, named_layers)
    if not children:
        refuse("serial", "got no layers, wanted at least one")
    return _composite("serial", children, _init_chain, _run_serial, _backward_chain)


def residual(*layers: Layer, shortcut: Layer | None = None, **named_layers: Layer) -> Layer:
    """y = f(x) + x with f the layers in series, or f(x) + shortcut(x) where the shape changes (He et al. 2016, eq. 1, 2).

    The error arrives by two paths, so dx is their sum: it reaches x undiminished even where f passes nothing.

        >>> block = fdl.residual(fdl.tanh())
        >>> block.apply({}, {}, jnp.float32([[0]]))[0]
        Array([[0.]], dtype=float32)
    """
    children = _named("residual", layers, named_layers)
    if not children:
        refuse("residual", "got no layers, wanted at least one")
    if shortcut is not None:
        children += _named("residual", (), {"shortcut": shortcut})
    settings = {"shortcut": shortcut is not None}
    return _composite("residual", children, _init_residual, _run_residual, _backward_residual, **settings)


def parallel(*layers: Layer, combine: str = "add", **named_layers: Layer) -> Layer:
    """Every layer gets x; their outputs are added, or concatenated along the last axis.

    >>> both = fdl.parallel(fdl.relu(), fdl.hard_tanh(), combine="concat")
    >>> both.apply({}, {}, jnp.float32([[2, -2]]))[0]
    Array([[ 2.,  0.,  1., -1.]], dtype=float32)
    """
    if combine not in ("add", "concat"):
        refuse("parallel", f'combine is {combine!r}, wanted "add" or "concat"')
    children = _named("parallel", layers, named_layers)
    if not children:
        refuse("parallel", "got no layers, wanted at least one")
    return _composite("parallel", children, _init_parallel, _run_parallel, _backward_parallel, combine=combine)


def _composite(name: str, children: Named, init: Any, run: Any, backward: Any, **settings: Any) -> Layer:
    settings = {"layers": children, **settings}
    return Layer(
        name,
        init=bind(init, **settings),
        run=bind(run, **settings),
        backward=bind(backward, **settings),
        layers=children,
    )


def rebuilt(model: Layer, layers: Named) -> Layer:
    """The composite with other children."""
    init, run, backward = (part.function for part in (model._init, model._run, model._backward))
    settings = {name: kept.value for name, kept in model._run.settings if name != "layers"}
    return _composite(model.name, layers, init, run, backward, **settings)


def _named(where: str, layers: tuple, named_layers: dict[str, Layer]) -> Named:
    for place, layer in [*enumerate(layers), *named_layers.items()]:
        if not isinstance(layer, Layer):
            remedy = f"; call it: {layer.__name__}()" if callable(layer) and hasattr(layer, "__name__") else ""
            remedy = f"; write {where}(*layers)" if isinstance(layer, list | tuple) else remedy
            refuse_type(where, f"layer {place!r} is {shown(layer)}, wanted an fdl.Layer{remedy}")
    children = tuple((f"{layer.name}_{i}", layer) for i, layer in enumerate(layers)) + tuple(named_layers.items())
    seen = set()
    for name, _ in children:
        if name in seen:
            refuse(where, f"two layers are named {name!r}; give one of them another name")
        if not name or "/" in name:
            refuse(where, f"the name {name!r} is empty or holds a slash, which separates nested names; give another")
        seen.add(name)
    return children


# ---- one child ----


def _init_child(key: Any, index: int, name: str, layer: Layer, spec: Any, dtype: Any, params: Params, state: State):
    """Initialises one child into `params` and `state`; returns the spec of its output."""
    with inside_layer(name):
        child_params, child_state = layer._init(jax.random.fold_in(key, index), spec, dtype)
        out = output_spec(layer, spec, dtype)
    if child_params:
        params[name] = child_params
    if child_state:
        state[name] = child_state
    return out


def _run_child(
    walk: Pass,
    index: int,
    name: str,
    layer: Layer,
    params: Params,
    state: State,
    x: Any,
    new_state: State,
    residuals: dict,
) -> Any:
    """One child's output; its new state and residuals go into `new_state` and `residuals`."""
    with inside_layer(name):
        y, child_state, residuals[name] = layer._run(
            walk.child(index, layer), params.get(name, {}), state.get(name, {}), x
        )
    if child_state:
        new_state[name] = child_state
    return y


def _backward_child(name: str, layer: Layer, residuals: Any, dy: Any, dparams: Params, deltas: dict | None):
    """One child's backward: its gradients go into `dparams`, the errors inside it into `deltas`."""
    inner = {} if deltas is not None and layer.layers else None
    with inside_layer(name):
        gradient, dx = layer.backward(residuals[name], dy, deltas=inner)
    if gradient:
        dparams[name] = gradient
    if deltas is not None:
        deltas.update({name: dy} if inner is None else {f"{name}/{path}": delta for path, delta in inner.items()})
    return dx


def _check_names(where: str, layers: Named, params: Params, state: State) -> None:
    names = [name for name, _ in layers]
    for what, tree in (("params", params), ("state", state)):
        if not isinstance(tree, dict):
            refuse_type(where, f"{what} is {shown(tree)}, wanted the dict that init returned")
        unknown = sorted(set(tree) - set(names))
        if unknown:
            refuse(where, f"{what} has {unknown[0]!r}, which is no layer here; the layers are {names}")


# ---- serial ----


def _init_chain(key: Any, spec: Any, dtype: Any, *, layers: Named) -> tuple[Params, State]:
    params, state = {}, {}
    for index, (name, layer) in enumerate(layers):
        spec = _init_child(key, index, name, layer, spec, dtype, params, state)
    return params, state


def _run_chain(walk: Pass, params: Params, state: State, x: Any, *, layers: Named) -> tuple[Any, State, Any]:
    new_state, residuals = {}, {}
    for index, (name, layer) in enumerate(layers):
        x = _run_child(walk, index, name, layer, params, state, x, new_state, residuals)
    return x, new_state, residuals


def _run_serial(walk: Pass, params: Params, state: State, x: Any, *, layers: Named) -> tuple[Any, State, Any]:
    _check_names("serial", layers, params, state)
    return _run_chain(walk, params, state, x, layers=layers)


def _backward_chain(residuals: Any, dy: Any, *, layers: Named, deltas: dict | None = None) -> tuple[Params, Any]:
    dparams = {}
    for name, layer in reversed(layers):
        dy = _backward_child(name, layer, residuals, dy, dparams, deltas)
    return dparams, dy


# ---- residual ----


def _split_shortcut(layers: Named, shortcut: bool) -> tuple[Named, Named]:
    return (layers[:-1], layers[-1:]) if shortcut else (layers, ())


def _init_residual(key: Any, spec: Any, dtype: Any, *, layers: Named, shortcut: bool) -> tuple[Params, State]:
    chain, side = _split_shortcut(layers, shortcut)
    params, state = _init_chain(key, spec, dtype, layers=chain)
    for name, layer in side:
        _init_child(key, len(chain), name, layer, spec, dtype, params, state)
    return params, state


def _run_residual(walk: Pass, params: Params, state: State, x: Any, *, layers: Named, shortcut: bool):
    _check_names("residual", layers, params, state)
    chain, side = _split_shortcut(layers, shortcut)
    y, new_state, residuals = _run_chain(walk, params, state, x, layers=chain)
    for name, layer in side:
        x = _run_child(walk, len(chain), name, layer, params, state, x, new_state, residuals)
    if y.shape != x.shape or y.dtype != x.dtype:
        remedy = "make both paths end alike" if shortcut else "give a shortcut= that changes x as f does"
        refuse("residual", f"f(x) is {shown(y)} and its shortcut is {shown(x)}; {remedy}")
    return y + x, new_state, residuals


def _backward_residual(residuals: Any, dy: Any, *, layers: Named, shortcut: bool, deltas: dict | None = None):
    chain, side = _split_shortcut(layers, shortcut)
    dparams, dx = _backward_chain(residuals, dy, layers=chain, deltas=deltas)
    for name, layer in side:
        dy = _backward_child(name, layer, residuals, dy, dparams, deltas)
    return dparams, dx + dy


# ---- parallel ----


def _init_parallel(key: Any, spec: Any, dtype: Any, *, layers: Named, combine: str) -> tuple[Params, State]:
    params, state = {}, {}
    for index, (name, layer) in enumerate(layers):
        _init_child(key, index, name, layer, spec, dtype, params, state)
    return params, state


def _run_parallel(walk: Pass, params: Params, state: State, x: Any, *, layers: Named, combine: str):
    _check_names("parallel", layers, params, state)
    new_state, residuals = {}, {}
    ys = [
        _run_child(walk, index, name, layer, params, state, x, new_state, residuals)
        for index, (name, layer) in enumerate(layers)
    ]
    alike = {y.shape if combine == "add" else y.shape[:-1] for y in ys}
    if len(alike) > 1 or len({y.dtype for y in ys}) > 1:
        outputs = ", ".join(f"{name} {shown(y)}" for (name, _), y in zip(layers, ys, strict=True))
        but = "" if combine == "add" else " but for the last axis"
        refuse("parallel", f"the outputs are {outputs}; combine={combine!r} wants them alike{but}")
    y = sum(ys[1:], ys[0]) if combine == "add" else jnp.concatenate(ys, axis=-1)
    return y, new_state, (residuals, Static(tuple(y.shape[-1] for y in ys)))


def _backward_parallel(residuals: Any, dy: Any, *, layers: Named, combine: str, deltas: dict | None = None):
    residuals, widths = residuals
    ends = list(itertools.accumulate(widths.value))
    dys = [dy] * len(layers) if combine == "add" else jnp.split(dy, ends[:-1], axis=-1)
    dparams, dxs = {}, []
    for (name, layer), dy_child in reversed(list(zip(layers, dys, strict=True))):
        dxs.append(_backward_child(name, layer, residuals, dy_child, dparams, deltas))
    return dparams, sum(dxs[1:], dxs[0])
