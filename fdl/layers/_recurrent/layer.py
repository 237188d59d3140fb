"""The layer of a cell: sequences in, sequences out, or the last state alone."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from fdl.errors import refuse, require_bool, require_count
from fdl.layer import Layer, Params, Pass, State, bind
from fdl.layers._recurrent.cell import Cell, first_weights
from fdl.op import Op, Static


def recurrent(
    op: Op,
    cell: Cell,
    features: Any,
    *,
    return_final: bool,
    stateful: Any,
    init: Callable,
) -> Layer:
    """[N, T, I] -> [N, T, D], or [N, D], the state after the last step that counts, with return_final.

    init(key, inputs, dtype) -> params. stateful: the batch size of a layer that begins where its last call ended.
    """
    where = op.name
    require_count(where, "features", features)
    require_bool(where, "return_final", return_final)
    if stateful is not None:
        require_count(where, "stateful", stateful)
    carried = tuple((name, cell.empty) for name in cell.state) if stateful is not None else ()
    return Layer(
        where,
        init=bind(_init, where=where, init=init, features=features, carried=carried, examples=stateful),
        run=bind(_run, op=op, return_final=return_final),
        backward=bind(_backward, op=op, return_final=return_final),
        examples=stateful,
    )


def weights(
    key: Any,
    inputs: int,
    dtype: Any,
    *,
    cell: Cell,
    features: int,
    w_init: Callable,
    u_init: Callable,
    project: bool = True,
) -> Params:
    """The parameters of a cell: w by w_init, u by u_init, the rest 0. Without `project` x is the input part, and w not needed."""
    shapes = {name: shape for name, shape in cell.shapes(inputs, features).items() if project or name != "w"}
    return first_weights(cell.name, key, shapes, dtype, w_init, u_init)


def _init(key, spec, dtype, *, where: str, init: Callable, features: int, carried: tuple, examples: Any):
    if len(spec.shape) != 2:
        refuse(where, f"one example has shape {list(spec.shape)}, wanted [T, I]: time steps, features")
    state = {name: jnp.full((examples, features), value, dtype) for name, value in carried}
    return init(key, spec.shape[1], dtype), state


def _run(walk: Pass, params: Params, state: State, x: Any, *, op: Op, return_final: bool) -> tuple[Any, State, Any]:
    mask = walk.mask
    if mask is not None and mask.ndim == 1:
        mask = jnp.broadcast_to(mask[:, None], x.shape[:2])
    (y, final), residuals = walk.evaluate(op, params, x, state or None, mask)
    kept = Static((y.shape, y.dtype))
    return final["h"] if return_final else y, final if state else state, (residuals, final, kept)


def _backward(residuals: Any, dy: Any, *, op: Op, return_final: bool) -> tuple[Params, Any]:
    residuals, final, kept = residuals
    shape, dtype = kept.value
    dfinal = {name: jnp.zeros_like(s) for name, s in final.items()}
    if return_final:
        dy, dfinal["h"] = jnp.zeros(shape, dtype), dy
    return op.backward(residuals, (dy, dfinal))[:2]
