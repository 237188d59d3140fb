"""A cell over time and back.

    state[t] = cell(state[t-1], x[t])        t = 1 .. T, y[t] = state[t]["h"]

Backward: backpropagation through time. The state of step t reaches the loss through y[t] and through the next state,

    dstate[t] = dy[t] + (d state[t+1] / d state[t])^T dstate[t+1]        from t = T down, dstate[T] = dfinal
    dtheta    = sum_t (d state[t] / d theta)^T dstate[t]                 the same weights at every step: their errors add up

Only dstate goes around the loop. Each step leaves its errors at the pre-activations, and the gradients of the weights, sums
over steps of outer products, are made of many steps at once: one matrix product for CHUNK steps, whose errors are still in the
cache, instead of one thin product per step.

What is kept: `keep="gates"` keeps the gates of every step; `keep="states"` keeps the states alone, and a chunk's gates are
computed again, all its steps at once (every state is known, so nothing has to wait for the step before).

Masked steps ([N, T]) leave the state as it is: y repeats the last one, and the error passes through to the step before. A reset
([N, T]) empties the state before its step, a masked one too. truncate=k cuts the error's way between steps k-1 and k, 2k-1 and
2k, ...: truncated backpropagation through time. reverse runs from the last step to the first; y[t] stays at its place.

16-bit inputs: the state, the gates and all sums are kept in float32, and y, dx and the gradients are rounded once.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import (
    refuse,
    refuse_type,
    require_array,
    require_bool,
    require_count,
    require_float,
    require_same_dtype,
)
from fdl.layers._recurrent.cell import Cell, transposed
from fdl.op import Static, accumulator

# Forward and backward of reset_after, N 32, I = D = 128, float32, 2 CPU cores, time against that of 20: of 1,000 steps 1.13 for 5,
# 1.04 for 10, 1.00 for 50, 1.13 for 100, 1.14 for all at once; of 100 steps 0.97 to 1.08 for all of these.
CHUNK = 20
_RUN = ("reverse", "truncate", "keep")

State = dict[str, Any]


def equation(cell: Cell, params, x, state, mask, resets, *, reverse, truncate, keep):
    x, mask, resets = _in_running_order(reverse, *jax.tree.map(jnp.asarray, (x, mask, resets)))
    state = _empty(cell, params, x, x.dtype) if state is None else state

    def step(before, i):
        if resets is not None:
            before = _where(resets[:, i], _filled(before, cell.empty), before)
        before = _held(before, i, truncate)
        after = cell.equation(params, before, x[:, i])
        if mask is not None:
            after = _where(mask[:, i], after, before)
        return after, after["h"]

    if mask is not None:
        x = jnp.where(mask[..., None], x, jnp.zeros_like(x))
    final, y = jax.lax.scan(step, state, jnp.arange(x.shape[1]))
    return _in_running_order(reverse, jnp.swapaxes(y, 0, 1))[0], final


def forward(cell: Cell, params, x, state, mask, resets, *, reverse, truncate, keep):
    check(cell, params, x, state, mask, resets, reverse, truncate, keep)
    wide = accumulator(x.dtype)
    weights = cell.split(_cast(params, wide))
    w = params["w"].astype(wide) if "w" in params else None
    first = _empty(cell, params, x, wide) if state is None else _cast(state, wide)
    x, mask, resets = _in_running_order(reverse, x, mask, resets)

    def step(before, i):
        if resets is not None:
            before = _where(_at(resets, i), _filled(before, cell.empty), before)
        before = _held(before, i, truncate)  # for second derivatives: the first does not pass here
        after, kept = cell.step(weights, before, _driven(w, _entering(x, mask, i), wide))
        if mask is not None:
            after = _where(_at(mask, i), after, before)
        return after, (after["h"], before, kept if keep == "gates" else ())

    # time is an index, not the leading axis of x: a scan over x itself would need it transposed
    final, (h, befores, kept) = jax.lax.scan(step, first, jnp.arange(x.shape[1]))
    (y,) = _in_running_order(reverse, jnp.swapaxes(h, 0, 1).astype(x.dtype))
    return (y, _cast(final, x.dtype)), (params, x, Static(state is None), mask, resets, befores, kept)


def backward(cell: Cell, residuals, dout, *, reverse, truncate, keep):
    params, x, no_state, mask, resets, befores, kept = residuals
    dy, dfinal = dout
    wide = accumulator(x.dtype)
    (dy,) = _in_running_order(reverse, dy)
    wide_params = _cast(params, wide)
    weights = cell.split(wide_params)
    flipped, w = transposed(weights), wide_params.get("w")
    examples, steps = x.shape[:2]

    def back(length):
        def of_steps(carry, start):
            dstate, dparams = carry
            cut = lambda values: jax.lax.dynamic_slice_in_dim(values, start, length, 0)
            rows = lambda tree: jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), tree)
            apart = lambda tree: jax.tree.map(lambda v: v.reshape(length, examples, *v.shape[1:]), tree)
            x_rows = rows(_chunk(x, start, length)).astype(wide)  # [C N, I]
            before = jax.tree.map(cut, befores)
            held = rows(jax.tree.map(cut, kept)) if keep == "gates" else None
            if mask is not None:
                counts = rows(_chunk(mask, start, length))
                x_rows = jnp.where(counts[:, None], x_rows, jnp.zeros_like(x_rows))
            if held is None:
                held = cell.step(weights, rows(before), x_rows if w is None else x_rows @ w)[1]

            def step(dstate, now):
                i, before, kept = now
                dstate = dstate | {"h": dstate["h"] + _at(dy, i).astype(wide)}
                through = dstate if mask is None else _where(_at(mask, i), dstate, _filled(dstate, 0.0))
                dbefore, errors = cell.back(flipped, before, kept, through)
                if mask is not None:
                    passed = _where(_at(mask, i), _filled(dstate, 0.0), dstate)
                    dbefore = jax.tree.map(jnp.add, dbefore, passed)
                if resets is not None:
                    dbefore = _where(_at(resets, i), _filled(dbefore, 0.0), dbefore)
                if truncate is not None:
                    dbefore = jax.tree.map(lambda d: jnp.where(_cut(i, truncate), jnp.zeros_like(d), d), dbefore)
                return dbefore, errors

            places = start + jnp.arange(length, dtype=jnp.int32)
            dstate, errors = jax.lax.scan(step, dstate, (places, before, apart(held)), reverse=True)
            found, da = cell.gradients(rows(before), held, rows(errors))
            if w is not None:
                found["w"] = x_rows.T @ da
                da = da @ w.T
            dparams = {name: dparams[name] + found[name] for name in dparams}
            return (dstate, dparams), apart(da).astype(x.dtype)

        return of_steps

    carry = (_cast(dfinal, wide), jax.tree.map(jnp.zeros_like, wide_params))
    length = _chunk_length(steps)
    rest = steps % length
    pieces = []
    if steps >= length:
        starts = rest + length * jnp.arange(steps // length, dtype=jnp.int32)
        carry, dx = jax.lax.scan(back(length), carry, starts, reverse=True)
        pieces = [dx.reshape(-1, *dx.shape[2:])]
    if rest:
        carry, dx = back(rest)(carry, jnp.int32(0))
        pieces = [dx, *pieces]
    dstate, dparams = carry
    dx = jnp.concatenate(pieces) if len(pieces) > 1 else pieces[0]
    (dx,) = _in_running_order(reverse, jnp.swapaxes(dx, 0, 1))
    dparams = {name: dparams[name].astype(params[name].dtype) for name in params}
    return dparams, dx, None if no_state.value else _cast(dstate, x.dtype), None, None


def passes(cell_of: Callable[..., Cell]) -> tuple[Callable, Callable]:
    """The forward and the backward of an op: its options are those of the run, and those that choose the cell."""

    def chosen(options):
        run = {name: options[name] for name in _RUN}
        return cell_of(**{name: value for name, value in options.items() if name not in run}), run

    def run_forward(params, x, state, mask, resets, **options):
        cell, run = chosen(options)
        return forward(cell, params, x, state, mask, resets, **run)

    def run_backward(residuals, dout, **options):
        cell, run = chosen(options)
        return backward(cell, residuals, dout, **run)

    return run_forward, run_backward


# ---- pieces


def _chunk_length(steps: int) -> int:
    """A divisor of the number of steps near CHUNK if there is one: a rest costs a second loop."""
    near = [length for length in range(CHUNK // 2, 2 * CHUNK) if steps % length == 0]
    return min(near, key=lambda length: abs(length - CHUNK), default=min(CHUNK, steps))


def _in_running_order(reverse: bool, *arrays: Any) -> tuple:
    return tuple(jnp.flip(a, 1) if reverse and a is not None else a for a in arrays)


def _at(values: Any, i: Any) -> Any:
    return jax.lax.dynamic_index_in_dim(values, i, 1, keepdims=False)


def _chunk(values: Any, start: Any, length: int) -> Any:
    """[N, T, ...] -> [C, N, ...], C steps from start."""
    return jnp.swapaxes(jax.lax.dynamic_slice_in_dim(values, start, length, 1), 0, 1)


def _entering(x: Any, mask: Any, i: Any) -> Any:
    # what is masked may be NaN
    now = _at(x, i)
    return now if mask is None else jnp.where(_at(mask, i)[:, None], now, jnp.zeros_like(now))


def _driven(w: Any, x: Any, wide: Any) -> Any:
    return x.astype(wide) if w is None else x.astype(wide) @ w


def _cut(i: Any, truncate: int) -> Any:
    return (i > 0) & (i % truncate == 0)


def _held(state: State, i: Any, truncate: int | None) -> State:
    """The state, a constant where the error's way is cut."""
    if truncate is None:
        return state
    return {name: jnp.where(_cut(i, truncate), jax.lax.stop_gradient(s), s) for name, s in state.items()}


def _where(which: Any, one: State, other: State) -> State:
    return {name: jnp.where(which[:, None], one[name], other[name]) for name in one}


def _filled(state: State, value: float) -> State:
    return {name: jnp.full_like(s, value) for name, s in state.items()}


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda v: v.astype(dtype), tree)


def _features(params: Any) -> int:
    return params["u"].shape[0]


def _empty(cell: Cell, params: Any, x: Any, dtype: Any) -> State:
    # made of x, so that it is spread over a mesh, and varies over its axes, as the examples are
    nothing = jnp.broadcast_to(jnp.full_like(x[:, 0, :1], cell.empty, dtype), (x.shape[0], _features(params)))
    return dict.fromkeys(cell.state, nothing)


def check(cell: Cell, params, x, state, mask, resets, reverse, truncate, keep):
    """The door of every recurrent op."""
    where = cell.name
    require_float(where, "x", x)
    if x.ndim != 3 or 0 in x.shape:
        refuse(where, f"x has shape {list(x.shape)}, wanted [N, T, I]: examples, time steps, features, none of them 0")
    if not isinstance(params, dict) or "u" not in params or getattr(params["u"], "ndim", 0) != 2:
        got = sorted(params) if isinstance(params, dict) else type(params).__name__
        refuse(where, f"params is {got}, wanted the dict that init makes, with u [D, ...]")
    features = _features(params)
    wanted = cell.shapes(x.shape[2], features)
    optional = {"w"} if "w" not in params and x.shape[2] == wanted["w"][1] else set()
    if set(params) != set(wanted) - optional:
        refuse(where, f"params has {sorted(params)}, wanted {sorted(wanted)}; init makes them")
    for name in params:
        require_array(where, name, params[name])
        require_same_dtype(where, "x", x, name, params[name])
        if params[name].shape != wanted[name]:
            refuse(
                where, f"{name} has shape {list(params[name].shape)}, wanted {list(wanted[name])} for x {list(x.shape)}"
            )
    if state is not None:
        _check_state(cell, state, (x.shape[0], features), x)
    for name, steps in (("mask", mask), ("resets", resets)):
        if steps is not None:
            require_array(where, name, steps)
            if steps.dtype != jnp.bool_:
                refuse_type(where, f"{name} is {steps.dtype}, wanted booleans")
            if steps.shape != x.shape[:2]:
                refuse(where, f"{name} has shape {list(steps.shape)}, wanted [N, T], here {list(x.shape[:2])}")
    require_bool(where, "reverse", reverse)
    if truncate is not None:
        require_count(where, "truncate", truncate)
    if keep not in ("gates", "states"):
        refuse(where, f'keep is {keep!r}, wanted "gates" (faster) or "states" (less memory)')


def _check_state(cell: Cell, state: Any, shape: tuple, x: Any) -> None:
    if not isinstance(state, dict) or set(state) != set(cell.state):
        got = sorted(state) if isinstance(state, dict) else type(state).__name__
        refuse(cell.name, f"state is {got}, wanted a dict of {list(cell.state)}, as a run returns it, or None")
    for name, s in state.items():
        require_float(cell.name, f"state[{name!r}]", s)
        require_same_dtype(cell.name, "x", x, f"state[{name!r}]", s)
        if s.shape != shape:
            refuse(cell.name, f"state[{name!r}] has shape {list(s.shape)}, wanted [N, D], here {list(shape)}")
