"""Shrinking: the failing case becomes small and stays wrong for the same reason; its file fails, and passes once repaired."""

import dataclasses
import functools
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer

from fdl import check
from fdl.check.shrink import entry
from fdl.check.testfile import Call, importable, written
from fdl.compose import serial
from fdl.errors import InputError
from fdl.layer import Layer
from fdl.layers import activations
from fdl.layers.dense import op as dense_op
from fdl.op import Op
from tests.check.zoo import batch_norm, batch_norm_params, custom, labels, normal


@pytest.fixture(autouse=True)
def _as_long_as_it_takes(monkeypatch):
    shrink = sys.modules["fdl.check.shrink"]
    monkeypatch.setattr(shrink, "_CHECKS", 9)  # most are done by then


def run(source):
    """The test of a file, as pytest would call it."""
    namespace = {}
    exec(compile(source, "test_shrunk.py", "exec"), namespace)
    namespace["test_gradients"]()


def sizes(args):
    return [x.shape for x in jax.tree.leaves(args)]


# ---- candidates that live in a module, as a user's do


def product(x, w):
    return jnp.tanh(x @ w)


def product_forward(x, w):
    return product(x, w), (x, w)


def product_backward(residuals, dy):
    x, w = residuals
    dz = dy * (1 - jnp.tanh(x @ w) ** 2)
    return dz @ w.T, 0.5 * x.T @ dz


half_in_w = custom(product, product_forward, product_backward)
centred = Op(
    batch_norm._equation,
    batch_norm._forward,
    lambda r, dy: ({"scale": jnp.sum(dy * r[1], 0), "shift": jnp.sum(dy, 0)}, dy * r[0][None] * r[2]),
    name="centred",
)


def test_linked_axes_become_small_together_and_the_file_fails_until_repaired(monkeypatch, tmp_path):
    x, w = normal(1, 11, 7), normal(2, 7, 5)
    shrunk = check.shrink(half_in_w, x, w, reference=product)
    assert sum(map(np.prod, sizes(shrunk.args))) <= 4, sizes(shrunk.args)
    assert all(float(v) == round(float(v), 1) for leaf in shrunk.args for v in leaf.ravel())
    assert shrunk.report.verdict == "wrong" and "dw is half of what it should be." in shrunk.source
    assert "float32[11, 7], float32[7, 5] to float32[" in shrunk.sentence and "112 numbers became" in shrunk.sentence
    assert shrunk.standalone and "tests.check.test_shrink.half_in_w" in shrunk.source
    path = shrunk.save(tmp_path / "new" / "test_it.py")
    assert [p.name for p in path.parent.iterdir()] == ["test_it.py"] and path.read_text() == shrunk.source
    with pytest.raises(check.GradientError, match="dw is half of what it should be"):
        run(shrunk.source)
    monkeypatch.setattr("tests.check.test_shrink.half_in_w", product)
    run(shrunk.source)


def test_of_an_op_with_parameters_the_missing_term_stays_the_reason(monkeypatch):
    shrunk = check.shrink(centred, batch_norm_params(2), normal(3, 5, 2, mean=0.5))
    missing = "missing path"
    assert missing in shrunk.source and "gradient of x" in shrunk.report.sentence
    assert sum(map(np.prod, sizes(shrunk.args))) <= 8, sizes(shrunk.args)
    with pytest.raises(check.GradientError, match=missing):
        run(shrunk.source)
    monkeypatch.setattr("tests.check.test_shrink.centred", batch_norm)
    run(shrunk.source)


def test_a_local_function_is_carried_as_text_with_what_it_uses():
    share = 0.9
    scale = np.asarray([1.0, 2.0], np.float32)

    def cube(x):
        return scale.sum().astype(x.dtype) * x**3

    wrong = custom(cube, lambda x: (cube(x), x), lambda x, dy: (share * dy * 9.0 * x**2,))
    shrunk = check.shrink(wrong, normal(4, 9), reference=cube)
    assert shrunk.standalone, shrunk.source
    assert shrunk.args[0].size == 1 and float(shrunk.args[0].ravel()[0]) == 1
    with pytest.raises(check.GradientError, match="dx is 0.9 times what it should be"):
        run(shrunk.source)
    assert shrunk.source.count("share = 0.9") == 1
    run(shrunk.source.replace("share = 0.9", "share = 1.0"))


def test_only_the_values_that_matter_are_kept():
    def square(x, scale):
        return scale * x**2

    wrong_above_two = custom(
        square,
        lambda x, scale: (square(x, scale), (x, scale)),
        lambda r, dy: (dy * r[1] * jnp.where(r[0] > 2, 3.0, 2.0).astype(dy.dtype) * r[0], jnp.sum(dy * r[0] ** 2)),
    )
    x = normal(5, 4, 6).at[2, 3].set(2.718)
    shrunk = check.shrink(wrong_above_two, x, jnp.float32(1.37), reference=square)
    x, _ = shrunk.args
    assert x.size <= 4 and int((x > 2).sum()) == 1 and float(x.max()) <= 3


def test_labels_stay_inside_their_classes_and_keys_stay():
    def loss(logits, label, key):
        kept = jax.random.bernoulli(key, 0.5, logits.shape)
        logits = jnp.where(kept, logits, jnp.zeros_like(logits))
        return jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, label[:, None], axis=-1)[:, 0]

    def backward(r, dy):
        logits, label, key = r
        gradient = jax.vjp(lambda logits: loss(logits, label, key), logits)[1](dy)[0]
        return -gradient, None, None

    negated = custom(loss, lambda *args: (loss(*args), args), backward)
    shrunk = check.shrink(negated, normal(6, 2, 4), labels(7, 2, 4), jax.random.key(3), reference=loss)
    logits, label, key = shrunk.args
    assert logits.shape[-1] <= 3 and 0 <= int(label.max()) < logits.shape[-1] and label.dtype == jnp.int32
    assert jax.random.key_data(key).tolist() == [0, 3] and "wrap_key_data" in shrunk.source
    with pytest.raises(check.GradientError, match="wrong sign"):
        run(shrunk.source)


def two_pass(x):
    return jnp.sqrt(jnp.mean((x - jnp.mean(x, axis=0, keepdims=True)) ** 2, axis=0) + 1e-3)


def one_pass(x):
    return jnp.sqrt(jnp.abs(jnp.mean(x**2, axis=0) - jnp.mean(x, axis=0) ** 2) + 1e-3)


@pytest.mark.optimized
def test_what_only_rounds_badly_still_rounds_badly():
    shrunk = check.shrink(one_pass, normal(8, 16, 2, mean=1e4), reference=two_pass)
    assert "float32 rounding error" in shrunk.report.sentence and shrunk.args[0].size <= 6
    with pytest.raises(check.GradientError, match="float32 rounding error"):
        run(shrunk.source)


def test_one_entry_of_the_output_is_enough():
    def both(x):
        return {"sin": jnp.sin(x), "sum": jnp.cumsum(x)}

    def backward(x, dy):
        return (0.5 * jax.vjp(both, x)[1](dy)[0],)

    half = custom(both, lambda x: (both(x), x), backward)
    shrunk = check.shrink(half, normal(9, 3), reference=both)
    assert shrunk.entry == (0, (0,)) or shrunk.entry == (0, ())
    assert "from fdl.check.shrink import entry" in shrunk.source
    with pytest.raises(check.GradientError, match="dx is half of what it should be"):
        run(shrunk.source)
    assert entry(both, 1, (2,))(jnp.arange(4.0)) == 3


def test_an_error_and_a_mode_that_fails_alone():
    def looks(x):
        if isinstance(x, Tracer) and x.ndim > 1:
            raise TypeError("two axes are too many for me")
        return jnp.sin(x)

    shrunk = check.shrink(looks, normal(1, 5, 7), reference=jnp.sin, modes="quick")
    assert "raised TypeError" in shrunk.report.sentence and shrunk.args[0].shape == (1, 1)
    assert not shrunk.args[0].any()


def test_without_a_reference_central_differences_judge_every_step():
    zero = custom(lambda x: jnp.exp(x), lambda x: (jnp.exp(x), None), lambda _, dy: (jnp.zeros_like(dy),))
    shrunk = check.shrink(zero, normal(2, 5, 3))
    assert shrunk.args[0].size == 1 and "Judged by JAX's own derivative of it" in shrunk.source
    with pytest.raises(AssertionError, match="gets the gradient of x wrong"):
        run(shrunk.source)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Scaled:
    w: Any
    b: Any
    activation: Any


def scaled(module):
    return module.activation(jnp.sum(module.w) * module.b)


scaled_wrongly = custom(
    lambda w, b: jnp.sum(w) * b,
    lambda w, b: (jnp.sum(w) * b, (w, b)),
    lambda r, dy: (jnp.full_like(r[0], dy * r[1]), -dy * jnp.sum(r[0])),
)


def scaled_by_hand(module):
    return module.activation(scaled_wrongly(module.w, module.b))


def test_without_a_reference_the_file_asks_for_the_accused_leaf_alone(monkeypatch):
    module = Scaled(normal(1, 4, 2), jnp.asarray(0.3, jnp.float32), jnp.tanh)
    shrunk = check.shrink(scaled_by_hand, module)
    assert shrunk.standalone and "tests.check.test_shrink.Scaled(w=" in shrunk.source, shrunk.source
    assert {f.leaf for f in shrunk.report.failures} == {"module.b"} and "tanh)" in shrunk.source
    assert "could not be tried" not in shrunk.source
    with pytest.raises(AssertionError, match="gets the gradient of module.b wrong"):
        run(shrunk.source)
    # no gradient at all: it must not pass
    monkeypatch.setattr("tests.check.test_shrink.scaled_by_hand", lambda module: jnp.argmax(module.w))
    with pytest.raises((AssertionError, KeyError)):
        run(shrunk.source)
    monkeypatch.setattr("tests.check.test_shrink.scaled_by_hand", scaled)
    run(shrunk.source)


half_dense = Op(
    dense_op._equation,
    dense_op._forward,
    lambda r, dy: (lambda d, dx: ({"w": d["w"], "b": 0.5 * d["b"]}, dx))(*dense_op._backward(r, dy)),
    name="half_dense",
)


def init(key, spec, dtype):
    return {"w": jax.random.normal(key, (spec.shape[-1], 2), dtype), "b": jnp.zeros(2, dtype)}


@pytest.mark.optimized
def test_a_layer_becomes_smaller_and_its_file_passes_once_it_is_repaired(monkeypatch):
    model = serial(Layer.from_op("dense", half_dense, init), activations.tanh())
    shrunk = check.shrink(model, normal(1, 7, 5), options={"train": False})
    assert shrunk.args[0].size <= 2 and "float32[7, 5] to float32[1, " in shrunk.sentence
    assert shrunk.standalone and "fdl.check.layer(" in shrunk.source and "train=False" in shrunk.source, shrunk.source
    with pytest.raises(AssertionError, match=r"gets the gradient of params\['dense_0'\]\['b'\] wrong"):
        run(shrunk.source)
    monkeypatch.setattr("tests.check.test_shrink.half_dense", dense_op)
    run(shrunk.source)
    with pytest.raises(InputError, match="held against its own equation"):
        check.shrink(model, normal(1, 7, 5), reference=jnp.sin)


def test_a_right_gradient_is_refused():
    with pytest.raises(InputError, match="there is nothing to shrink: the verdict is right, wanted wrong"):
        check.shrink(jnp.sin, normal(1, 3), reference=jnp.sin)


# ---- the file


class Callable:
    def __call__(self, x):
        return 2 * x


def text_of(candidate, *args, reference=None, options=None, key=0):
    names = tuple(f"args[{i}]" for i in range(len(args)))
    return written(Call(candidate, reference, names, args, options or {}, "quick", key), "Title.", ["Story."])


def test_every_argument_survives_as_text():
    args = (
        {"w": jnp.asarray([[0.1, -jnp.inf], [jnp.nan, 3e-30]], jnp.float32), "none": None},
        [jnp.asarray([0.1, 2.0], jnp.bfloat16), jnp.asarray(1.5, jnp.float16), (jnp.asarray([True, False]),)],
        np.asarray([0.1, 1e-300]),
        np.asarray(2**40),
        jnp.zeros((0, 3)),
        jnp.full((3, 5), 0.25, jnp.float32),
        jax.random.split(jax.random.key(7), 2),
        jax.random.PRNGKey(1),
        None,
    )
    caught = []

    def catch(*got, options, extra):
        caught.append((got, options, extra))
        raise AssertionError

    source, standalone = text_of(jnp.sin, *args, options={"axis": -1, "name": "x", "rate": float("inf")}, key=3)
    assert standalone
    source = source.replace("fdl.check.assert_gradients(", "catch(").replace("jax.numpy.sin,", "", 1)
    namespace = {"catch": lambda *got, **settings: caught.append((got, settings))}
    exec(source, namespace)
    namespace["test_gradients"]()
    ((got, settings),) = caught
    assert settings == {"options": {"axis": -1, "name": "x", "rate": float("inf")}, "modes": "quick", "key": 3}
    assert jax.tree.structure(got) == jax.tree.structure(args)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(args), strict=True):
        if jnp.issubdtype(other.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_what_can_be_imported_is_and_what_cannot_is_named():
    assert importable(jax.nn.softmax) == ("jax.nn", "softmax")
    assert importable(half_in_w) == ("tests.check.test_shrink", "half_in_w")
    assert importable(centred) == ("tests.check.test_shrink", "centred")
    assert importable(lambda x: x) is None
    assert "functools.partial(jax.nn.softmax, axis=0)" in text_of(functools.partial(jax.nn.softmax, axis=0), 1)[0]
    source, standalone = text_of(Callable(), normal(1, 2))
    assert not standalone and "To fill in: candidate, a Callable that cannot be imported." in source
    compile(source, "test_shrunk.py", "exec")


def test_of_two_lambdas_in_a_line_the_right_one_is_carried():
    pair = (lambda x: 2 * x, lambda x: 3 * x)
    source, standalone = text_of(pair[1], normal(1, 2), reference=pair[0])
    assert standalone and "candidate = lambda x: 3 * x" in source and "reference = lambda x: 2 * x" in source


def test_only_what_a_function_takes_from_around_it_is_carried():
    x = factor = np.float32(3.0)

    def outer(y):
        x = y + 1

        def inner(z):
            return factor * x * z

        return inner(y)

    source, standalone = text_of(outer, normal(1, 2))
    assert standalone and source.count("factor = ") == 1 and "\nx = " not in source and x == factor
