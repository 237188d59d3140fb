"""How large the rounding error of a computation is, entry by entry: Monte Carlo arithmetic.

Every rounded operation is thought to return its exact result times 1 + delta n, with n normal and delta a few units of
roundoff u. What that does to an output y[i], measured over a few draws, is

    scale[i] = rms over draws of (y_shaken[i] - y[i]) / delta

and u scale[i] is the rounding error to expect of y[i], in whatever precision has the roundoff u. Cancellation shows (a
difference of two numbers near 1 has the scale 1, however small it is), a decision that hangs on a rounded number shows (the
scale is then enormous), and an entry that came out exact by luck has the scale of its neighbours. There is no step to
choose, nothing overflows that does not overflow anyhow, and nothing has to be known about the computation.

Operations that do not round (copies, comparisons, sign changes, maxima) are left alone, and so are the inputs, which are
exact. In sums the terms are shaken too, each on its own: the rounding of a sum grows with its terms and not with its result.

The computation is a jaxpr, so it is what JAX would run: `Shaken(run)` is `run` with an extra first argument, the pool of
factors. A pool of ones shakes nothing, so one compilation gives both the value and its scale.

Source: Parker, Monte Carlo Arithmetic, 1997; Higham 2002, section 4.2 for the growth of sums.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.check.interpreter import CALLS, Interpreter, call_of, opened

POOL = 1 << 14  # factors; larger arrays repeat them

# A sequential sum of m terms in float32 was 4, 15, 32 and 185 u wrong at m = 1e2, 1e3, 1e4, 1e5 (dot on CPU): 0.4 sqrt(m).
# Pairwise sums stay at 2 u. sqrt(m) / 8 keeps a candidate that sums by `dot` and a reference that sums by pairs within reach.
_GROWTH = 1 / 8

_EXACT = frozenset(
    """abs neg sign max min clamp floor ceil round is_finite select_n reshape broadcast_in_dim broadcast transpose squeeze
    expand_dims concatenate pad slice dynamic_slice dynamic_update_slice gather scatter rev copy copy_p stop_gradient
    convert_element_type reduce_precision bitcast_convert_type iota sort top_k reduce_max reduce_min cummax cummin
    reduce_window_max reduce_window_min select_and_scatter optimization_barrier device_put real imag conj nextafter
    sharding_constraint mesh_cast pvary pcast random_bits random_seed random_wrap random_unwrap random_fold_in split
    """.split()
)
_SUMS = frozenset(
    """dot_general ragged_dot ragged_dot_general conv_general_dilated reduce_sum reduce_prod cumsum cumprod cumlogsumexp
    reduce_window_sum scatter-add scatter_add scatter_mul scatter-mul select_and_scatter_add fft cholesky triangular_solve lu
    """.split()
)
_INLINED = CALLS | {
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
}


def unit_roundoff(dtype: Any) -> float:
    """Half the distance from 1 to the next number: 2^-24 for float32."""
    return float(jnp.finfo(dtype).eps) / 2


def ones(dtype: Any) -> np.ndarray:
    """The pool that shakes nothing."""
    return np.ones(POOL, dtype)


def factors(noise: np.ndarray, delta: float, dtype: Any) -> np.ndarray:
    """A pool that shakes by `delta`, from normal numbers."""
    return (1 + delta * noise).astype(dtype)


@dataclasses.dataclass(frozen=True)
class Shaken:
    """`run(*args)` as `shaken(pool, *args)`: every rounded result is multiplied by a factor of the pool."""

    run: Callable

    def __call__(self, pool: Any, *args: Any) -> Any:
        jaxpr, shape = jax.make_jaxpr(self.run, return_shape=True)(*args)
        outs = _Shaking(pool).evaluate(jaxpr, (), jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), outs)


class _Shaking(Interpreter):
    """Each operation takes its factors from another place in the pool."""

    calls = _INLINED

    def __init__(self, pool: Any):
        self.pool = pool
        self.taken = 0

    def apply(self, equation: Any, path: tuple[int, ...], args: list) -> list:
        name, params = equation.primitive.name, equation.params
        if name == "scan" or call_of(equation, self.calls) is not None:
            return super().apply(equation, path, args)
        if name == "while":
            return self._while(params, path, args)
        if name == "cond":
            return jax.lax.switch(args[0], [self._inner(branch, path) for branch in params["branches"]], *args[1:])
        growth = 1.0
        if name in _SUMS:
            growth = max(1.0, _GROWTH * math.sqrt(_terms(equation)))
            args = [self._shake(arg) for arg in args]
        outs = super().apply(equation, path, args)
        return outs if name in _EXACT else [self._shake(out, growth) for out in outs]

    def _inner(self, jaxpr: Any, path: tuple[int, ...]) -> Callable[..., list]:
        """A jaxpr inside an equation as a function."""
        return lambda *args: self.evaluate(jaxpr, path, args)

    def _while(self, params: Any, path: tuple[int, ...], args: list) -> list:
        of_condition, of_body = params["cond_nconsts"], params["body_nconsts"]
        condition_consts, body_consts = args[:of_condition], args[of_condition : of_condition + of_body]
        condition, body = self._inner(params["cond_jaxpr"], path), self._inner(params["body_jaxpr"], path)
        return jax.lax.while_loop(
            lambda carry: condition(*condition_consts, *carry)[0],
            lambda carry: body(*body_consts, *carry),
            args[of_condition + of_body :],
        )

    def _shake(self, x: Any, growth: float = 1.0) -> Any:
        dtype = getattr(x, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.inexact) or np.size(x) == 0:
            return x
        size, start = int(np.size(x)), (977 * self.taken) % (POOL // 2)
        self.taken += 1
        pool = self.pool if start + size <= POOL else jnp.tile(self.pool, 1 + math.ceil(size / POOL))
        factors = jax.lax.slice(pool, (start,), (start + size,))
        if growth != 1.0:
            factors = 1 + growth * (factors - 1)
        shaken = x * factors.reshape(np.shape(x)).astype(dtype)
        # the largest number is a constant in some programs, and stays finite
        return jax.lax.select(jax.lax.is_finite(shaken), shaken, jnp.asarray(x))


def _terms(equation: Any) -> float:
    """How many numbers are added up into one entry of the result."""
    total = max((np.prod(atom.aval.shape) for atom in equation.invars if hasattr(atom.aval, "shape")), default=1)
    out = max(np.prod(equation.outvars[0].aval.shape), 1)
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return float(np.prod([equation.invars[0].aval.shape[axis] for axis in contracted]))
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        return float(np.prod(kernel) / max(kernel[equation.params["dimension_numbers"].rhs_spec[0]], 1))
    return float(max(total / out, 1))


def working_precision(run: Callable, *args: Any) -> list[float]:
    """For every output leaf of `run(*args)`, the largest unit roundoff on the way from the inputs to it.

    2^-24 for an output that is float64 but was computed from a float32 copy; 0 for integers and for constants.
    """
    jaxpr = jax.make_jaxpr(run)(*args)
    return _precision(jaxpr, [_own(atom) for atom in jaxpr.jaxpr.invars])


def _own(atom: Any) -> float:
    dtype = getattr(atom.aval, "dtype", None)
    return unit_roundoff(dtype) if dtype is not None and jnp.issubdtype(dtype, jnp.floating) else 0.0


def _precision(jaxpr: Any, args: list[float]) -> list[float]:
    jaxpr, _ = opened(jaxpr)
    # constants have none: a float32 constant is exact in float64
    known = dict(zip(jaxpr.invars, args, strict=True))

    def read(atom):
        return 0.0 if hasattr(atom, "val") else known.get(atom, 0.0)

    for equation in jaxpr.eqns:
        ins = [read(atom) for atom in equation.invars]
        known.update(zip(equation.outvars, _precision_after(equation, ins), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _precision_after(equation: Any, ins: list[float]) -> list[float]:
    name, params = equation.primitive.name, equation.params
    if (inner := call_of(equation, _INLINED)) is not None:
        return _precision(inner, ins)
    if name == "cond":
        branches = [_precision(branch, ins[1:]) for branch in params["branches"]]
        return [max(outs) for outs in zip(*branches, strict=True)]
    if name == "scan":
        return _precision_of_loop(params["jaxpr"], ins, params["num_consts"], params["num_carry"])
    if name == "while":
        ins = ins[params["cond_nconsts"] :]
        consts = params["body_nconsts"]
        return _precision_of_loop(params["body_jaxpr"], ins, consts, len(ins) - consts)
    floats = [u for u in ins if u > 0]
    if name == "reduce_precision" and floats:
        floats.append(2.0 ** -(params["mantissa_bits"] + 1))
    return [max(*floats, _own(out)) if floats and _own(out) > 0 else 0.0 for out in equation.outvars]


def _precision_of_loop(body: Any, ins: list[float], consts: int, carries: int) -> list[float]:
    """The carry's precision after the loop; it can only get worse from step to step, and soon stays."""
    while True:
        outs = _precision(body, ins)
        carry = [max(pair) for pair in zip(ins[consts : consts + carries], outs[:carries], strict=True)]
        if carry == ins[consts : consts + carries]:
            return [*carry, *outs[carries:]]
        ins = [*ins[:consts], *carry, *ins[consts + carries :]]
