"""A computation in float64 throughout, whatever it casts its numbers to.

`x.astype(jnp.float32)` inside of a function leaves no digits for a step. The same equations on float64 numbers have them all,
and differ from it by what rounding does: that is the truth for a function which is its own reference. Casts between floating
types are left out, and so are derivatives with rules of their own, whose dtypes are those of their first trace.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.check.interpreter import CALLS, Interpreter, call_of
from fdl.check.subject import Differentiated

_INLINED = CALLS | {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr", "custom_vmap_call": "call"}


def widened(subject: Differentiated) -> Differentiated:
    """The subject with every floating number in float64; for float64 arguments, with x64 on. Raises what does not widen."""

    @functools.wraps(subject.function)
    def wide(*args: Any, **options: Any) -> Any:
        jaxpr, out = jax.make_jaxpr(lambda: subject.function(*args, **options), return_shape=True)()
        return jax.tree.unflatten(jax.tree.structure(out), _Widening().evaluate(jaxpr, (), ()))

    return Differentiated(wide, subject.layout, subject.settings, subject.with_aux)


class _Widening(Interpreter):
    calls = _INLINED

    def evaluate(self, jaxpr: Any, path: tuple[int, ...], args: Any) -> list:
        return [_wide(x) for x in super().evaluate(jaxpr, path, [_wide(x) for x in args])]

    def hook(self, path: tuple[int, ...], kind: str, values: list, equation: Any) -> list:
        return [_wide(x) for x in values]

    def apply(self, equation: Any, path: tuple[int, ...], args: list) -> list:
        name, params = equation.primitive.name, equation.params
        if name == "scan" or call_of(equation, self.calls) is not None:
            return super().apply(equation, path, args)
        if name == "cond":
            return jax.lax.switch(args[0], [self._inner(branch, path) for branch in params["branches"]], *args[1:])
        if name == "while":
            of_condition, of_body = params["cond_nconsts"], params["body_nconsts"]
            ends = args[:of_condition], args[of_condition : of_condition + of_body]
            condition, body = self._inner(params["cond_jaxpr"], path), self._inner(params["body_jaxpr"], path)
            return jax.lax.while_loop(
                lambda carry: condition(*ends[0], *carry)[0],
                lambda carry: body(*ends[1], *carry),
                args[of_condition + of_body :],
            )
        if name == "convert_element_type" and jnp.issubdtype(params["new_dtype"], jnp.floating):
            return [jnp.asarray(args[0]).astype(jnp.float64)]
        if name == "reduce_precision":
            return list(args)
        if name == "bitcast_convert_type":  # bits have a meaning in their own dtype alone
            args = [jnp.asarray(x).astype(atom.aval.dtype) for x, atom in zip(args, equation.invars, strict=True)]
        else:
            changed = {key: jnp.dtype(jnp.float64) for key, value in params.items() if _is_floating(value)}
            equation = equation.replace(params=params | changed)
        return super().apply(equation, path, args)

    def _inner(self, jaxpr: Any, path: tuple[int, ...]) -> Callable[..., list]:
        return lambda *args: self.evaluate(jaxpr, path, args)


def _wide(x: Any) -> Any:
    dtype = getattr(x, "dtype", None)
    narrow = dtype is not None and jnp.issubdtype(dtype, jnp.floating) and dtype != jnp.float64
    return jnp.asarray(x).astype(jnp.float64) if narrow else x


def _is_floating(value: Any) -> bool:
    """Whether a parameter is a floating dtype."""
    is_dtype = isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic))
    return is_dtype and bool(jnp.issubdtype(value, jnp.floating))
