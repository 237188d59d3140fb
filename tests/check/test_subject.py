"""What is passed in: modules and other trees with leaves that are no arrays, and functions that return them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import check
from fdl.errors import InputTypeError
from tests.check.zoo import custom, normal


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Dense:
    """A module as users write them: its activation, its rate and its name are leaves."""

    w: Any
    b: Any
    activation: Callable
    rate: float
    name: str
    steps: int = 3


def dense() -> Dense:
    return Dense(normal(1, 3, 2), normal(2, 2), jnp.tanh, 2.5, "first")


def applied(module, x):
    if not isinstance(module.rate, float) or module.name != "first":
        raise TypeError("a setting was traced")
    return module.rate * module.activation(x @ module.w + module.b[None])


@pytest.mark.parametrize("modes", ["quick", pytest.param("all", marks=pytest.mark.optimized)])
def test_leaves_that_are_no_arrays_are_constants_and_listed(modes):
    report = check.gradients(applied, dense(), normal(3, 5, 3), reference=applied, modes=modes)
    assert report.ok, report
    assert {leaf.leaf for leaf in report.leaves if leaf.quantity == "gradient"} == {"module.w", "module.b", "x"}
    constants = (
        "module.activation (function tanh)",
        "module.rate (float 2.5)",
        "module.name (str 'first')",
        "module.steps (int 3)",
    )
    assert report.not_differentiated == constants
    assert "Not differentiated: module.activation (function tanh), module.rate (float 2.5)" in str(report)


def test_a_wrong_gradient_of_a_module_is_found_in_its_leaf():
    def backward(r, dy):
        return r[1].T @ dy, 0.7 * jnp.sum(dy, axis=0), dy @ r[0].T

    plain = lambda w, b, x: x @ w + b[None]
    half = custom(plain, lambda w, b, x: (plain(w, b, x), (w, x)), backward)
    candidate = lambda module, x: module.activation(half(module.w, module.b, x))
    reference = lambda module, x: module.activation(plain(module.w, module.b, x))
    report = check.gradients(candidate, dense(), normal(3, 5, 3), reference=reference, modes="quick")
    assert report.verdict == "wrong" and {failure.leaf for failure in report.failures} == {"module.b"}
    assert "module.b is 0.7 times" in str(report)


def test_without_a_reference_and_a_module_that_is_returned():
    moved = lambda module, x: (dataclasses.replace(module, w=module.w**2), applied(module, x))
    report = check.gradients(moved, dense(), normal(3, 5, 3), modes="quick")
    assert report.ok and {"output[0].w", "output[1]"} <= {leaf.leaf for leaf in report.leaves}
    origin = check.nan_origin(lambda module, x: jnp.log(module.w - module.w), dense(), normal(3, 5, 3))
    assert origin is not None and origin.primitive == "log"


def test_functions_strings_and_whole_numbers_are_arguments_too():
    how = lambda kind, function, count, x: function(x[:count]) if kind == "first" else x
    report = check.gradients(how, "first", jnp.sin, 2, normal(1, 3), modes="default")
    assert report.ok
    assert report.not_differentiated == ("kind (str 'first')", "function (function sin)", "count (int 2)")
    assert check.gradients(lambda names, x: x**2, np.asarray(["a", "b"]), normal(1, 3), modes="quick").ok


@pytest.mark.parametrize("tree", [2.0, [2.0], {"rate": 2.0}])
def test_a_float_that_jax_would_differentiate_is_refused(tree):
    with pytest.raises(InputTypeError, match="is float 2.0, wanted an array; pass jnp.asarray.*options"):
        check.gradients(lambda tree, x: x, tree, normal(1, 3))


def test_equinox_modules():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(3, 2, 4, 1, activation=jnp.tanh, key=jax.random.key(0))
    x = normal(1, 5, 3).astype(model.layers[0].weight.dtype)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        report = check.gradients(lambda model, x: jax.vmap(model)(x), model, x)
    assert report.ok and "model.activation (function tanh)" in report.not_differentiated
