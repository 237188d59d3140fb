"""The first weights of a layer, from an initialiser `(key, shape, dtype) -> array`.

`jax.nn.initializers` has them; a layer's `w_init` takes any of them as it is, and any function of that form.

| `jax.nn.initializers.` | variance of w                | for                                      | source                           |
|------------------------|------------------------------|------------------------------------------|----------------------------------|
| `glorot_uniform()`     | 2 / (fan in + fan out)       | sigmoid, tanh, linear; fdl's default     | Glorot & Bengio 2010, eq. 16     |
| `he_normal()`          | 2 / fan in                   | relu and its kin                         | He et al. 2015, eq. 10           |
| `lecun_normal()`       | 1 / fan in                   | selu, linear                             | LeCun et al. 1998, section 4.6   |
| `orthogonal()`         | 1 / max(fan in, fan out)     | deep or recurrent: lengths stay the same | Saxe, McClelland & Ganguli 2014  |
| `normal(0.01)`         | 0.01^2                       | "small random Gaussian"                  |                                  |

For a kernel [*K, I, O] fan in is |K| I and fan out |K| O. Every call of these makes a new function, and two layers are equal,
and compiled once, only if they have the same one: call it once and pass that.
"""

from collections.abc import Callable
from typing import Any

from fdl.errors import is_array, refuse, refuse_type, shown


def drawn(where: str, w_init: Callable, key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """w of this shape and dtype. Errors: InputTypeError where w_init gives no array, InputError where one of another shape."""
    w = w_init(key, shape, dtype)
    if not is_array(w):
        hint = "call it: w_init=jax.nn.initializers.he_normal(), with the parentheses"
        refuse_type(where, f"w_init returned {shown(w)}, wanted an array; {hint if callable(w) else 'return w'}")
    if w.shape != shape or w.dtype != dtype:
        refuse(where, f"w_init returned {shown(w)}, wanted {dtype}{list(shape)}: use the shape and dtype it is given")
    return w
