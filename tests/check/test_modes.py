"""Every mode: what is wrong in it alone is caught and said to be, and what is right is not accused."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters import ad, batching, mlir

from benchmarks import zoo
from fdl import check
from fdl.check.modes import MODES
from fdl.op import Op, _varying_axes
from tests.check.zoo import batch_norm, batch_norm_params, custom, labels, normal, rnn

pytestmark = pytest.mark.optimized


def sine_with(slope):
    """sin, whose hand-written slope is `slope(x, dy)` instead of cos(x) dy."""
    return custom(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, dy: (slope(x, dy),))


def scaled(x, share=0.9):
    return x * jnp.asarray(share, x.dtype)


def product_with(rule):
    """x * w, whose backward runs `custom_vmap` functions with the rule for batches `rule`."""

    def times(a, b):
        return a * b

    batched = jax.custom_batching.custom_vmap(times)
    batched.def_vmap(functools.partial(rule, times))
    return custom(times, lambda x, w: (x * w, (x, w)), lambda r, dy: (batched(dy, r[1]), batched(dy, r[0])))


def primitive(name, run):
    """An operation of its own."""
    made = jax.extend.core.Primitive(name)
    made.def_impl(run)
    made.def_abstract_eval(lambda *args: args[0])
    mlir.register_lowering(made, mlir.lower_fun(run, multiple_results=False))
    return made


def only(report, *, twice=True):
    """The modes that failed, if any. twice=False: but second derivatives, which `custom_vmap` does not have."""
    second = () if twice else ("second derivative", "forward over reverse")
    return {failure.mode for failure in report.failures if failure.mode not in second}


# ---- wrong in one mode alone ----


def test_a_rule_for_batches_that_takes_for_granted_that_all_is_batched():
    def right(times, size, batched, a, b):
        a, b = (x if own else jnp.broadcast_to(x, (size, *x.shape)) for x, own in zip((a, b), batched, strict=True))
        return jax.vmap(times)(a, b), True

    def wrong(times, size, batched, a, b):
        # what is not batched is taken for the batch's mean
        a, b = (
            x if own else jnp.broadcast_to(scaled(x, 1 / size), (size, *x.shape))
            for x, own in zip((a, b), batched, strict=True)
        )
        return jax.vmap(times)(a, b), True

    args = normal(1, 4), normal(2, 4)
    product = lambda x, w: x * w
    assert not only(check.gradients(product_with(right), *args, reference=product, modes="all"), twice=False)
    report = check.gradients(product_with(wrong), *args, reference=product, modes="all")
    assert {"vmap over a", "vmap over b", "vmap over the cotangent"} <= only(report)
    assert all(mode.startswith(("vmap over", "grad inside vmap over")) for mode in only(report, twice=False))
    assert check.gradients(product_with(wrong), *args, reference=product).ok  # by default all is batched


def test_an_unbatched_argument_whose_gradient_is_not_summed():
    def batch_kernel(x, w):  # what the batch runs instead: its cotangent of w is that of the first example
        return x * w[None]

    def forward(x, w):
        return batch_kernel(x, w), (x, w)

    kernel = custom(batch_kernel, forward, lambda r, dy: (dy * r[1][None], dy[0] * r[0][0]))

    product = primitive("product_of_tests", lambda x, w: x * w)

    def forward_mode(xs, ts):
        dx, dw = map(ad.instantiate_zeros, ts)
        return product.bind(*xs), dx * xs[1] + xs[0] * dw

    ad.primitive_jvps[product] = forward_mode

    def batched(args, dims):
        if dims[1] is None:
            return kernel(jnp.moveaxis(args[0], dims[0], 0), args[1]), 0
        return jax.vmap(lambda x, w: x * w, in_axes=dims)(*args), 0

    batching.primitive_batchers[product] = batched
    args = normal(1, 4), normal(2, 4)
    report = check.gradients(lambda x, w: product.bind(x, w), *args, reference=lambda x, w: x * w, modes="all")
    assert only(report) == {"vmap over x"}
    assert {failure.leaf for failure in report.failures} == {"w"}
    assert "in vmap over x (float64) alone" in report.sentence


def test_a_rule_for_batches_that_counts_on_the_first_axis():
    cosine = primitive("cosine_of_tests", jnp.cos)
    ad.primitive_jvps[cosine] = lambda xs, ts: (cosine.bind(*xs), -ts[0] * jnp.sin(xs[0]))

    def batched(args, dims):
        (x,), (dim,) = args, dims
        return scaled(cosine.bind(x), 1.0 if dim == 0 else 0.9), dim

    batching.primitive_batchers[cosine] = batched
    sine = sine_with(lambda x, dy: dy * cosine.bind(x))
    report = check.gradients(sine, normal(1, 4, 3), reference=jnp.sin, modes="all")
    assert only(report) == {"vmap over x", "grad inside vmap over x"}
    assert check.gradients(sine, normal(1, 4, 3), reference=jnp.sin).ok


def test_a_batch_of_cotangents():
    @jax.custom_batching.custom_vmap
    def times(dy, slope):
        return dy * slope

    @times.def_vmap
    def _(size, batched, dy, slope):
        if batched == [True, False]:
            return dy * scaled(slope)[None], True
        return jax.vmap(lambda a, b: a * b, in_axes=[0 if own else None for own in batched])(dy, slope), True

    sine = sine_with(lambda x, dy: times(dy, jnp.cos(x)))
    report = check.gradients(sine, normal(1, 4), reference=jnp.sin, modes="all")
    assert only(report, twice=False) == {"vmap over the cotangent"}


def test_inside_shard_map():
    def slope(x, dy):
        return dy * (scaled(jnp.cos(x)) if _varying_axes(x) else jnp.cos(x))

    report = check.gradients(sine_with(slope), normal(1, 4), reference=jnp.sin, modes="all")
    assert only(report) == {"shard_map"}
    assert "in shard_map (float64) alone" in report.sentence
    if jax.local_device_count() == 1:
        assert any("mesh of one device" in note for note in report.notes)


def test_when_one_argument_is_differentiated():
    @functools.partial(jax.custom_vjp)
    def product(x, w):
        return x * w

    def forward(x, w):
        kept = (x.value, w.value, x.perturbed and w.perturbed)
        return x.value * w.value, (kept[0], kept[1], None if kept[2] else jnp.zeros(()))

    def backward(residuals, dy):
        x, w, alone = residuals
        share = 1.0 if alone is None else 0.9
        return scaled(dy * w, share), scaled(dy * x, share)

    product.defvjp(forward, backward, symbolic_zeros=True)

    def call(x, w):
        return product(x, w)

    report = check.gradients(call, normal(1, 4), normal(2, 4), reference=lambda x, w: x * w, modes="all")
    assert only(report) == {"one argument differentiated"}
    assert {failure.leaf for failure in report.failures} == {"x", "w"}


def test_when_an_output_is_not_used():
    @jax.custom_vjp
    def both(x):
        return jnp.sin(x), jnp.cos(x)

    def forward(x):
        return both(x.value), x.value

    def backward(x, cotangents):
        first, second = cotangents
        unused = [type(c) is jax.custom_derivatives.SymbolicZero for c in cotangents]
        dx = jnp.zeros_like(x)
        if not unused[0]:
            dx += first * jnp.cos(x)
        if not unused[1]:
            dx -= second * jnp.sin(x)
        return (scaled(dx) if unused[0] and not unused[1] else dx,)

    both.defvjp(forward, backward, symbolic_zeros=True)
    report = check.gradients(both, normal(1, 4), reference=lambda x: (jnp.sin(x), jnp.cos(x)), modes="all")
    assert only(report) == {"one output unused"}
    # a backward that does not look at the cotangent of a single output
    constant = sine_with(lambda x, dy: dy * jnp.cos(x) + jnp.where(jnp.all(dy == 0), jnp.ones_like(x), 0))
    report = check.gradients(constant, normal(1, 4), reference=jnp.sin, modes="all")
    assert only(report) == {"one output unused"}


def test_another_result_for_the_same_inputs():
    calls = iter(range(1_000_000))

    def drifting(x):
        # changes in the last place, which rounding would excuse
        return np.asarray(x * (1 + 2 * np.finfo(x.dtype).eps * (next(calls) % 2)), x.dtype)

    def slope(x, dy):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return dy * jax.pure_callback(drifting, shape, jnp.cos(x), vmap_method="sequential")

    report = check.gradients(sine_with(slope), normal(1, 40), reference=jnp.sin, modes="all")
    (failure,) = [failure for failure in report.failures if failure.mode == "same inputs twice"]
    assert failure.leaf == "x" and "another gradient of x for the same inputs" in failure.message


def test_a_backward_that_is_wrong_in_bfloat16_alone():
    def slope(x, dy):
        return dy * (jnp.cos(x) if x.dtype != jnp.bfloat16 else scaled(jnp.cos(x), 0.7))

    report = check.gradients(sine_with(slope), normal(1, 40), reference=jnp.sin, modes="all")
    assert only(report) == {"bfloat16"} and "in bfloat16 alone" in report.sentence


def test_a_backward_that_overflows_in_float16_alone():
    def norm(x):  # the square of 300 does not fit
        top = jnp.max(jnp.abs(x))
        return top * jnp.sqrt(jnp.sum((x / top) ** 2))

    naive = custom(norm, lambda x: (norm(x), x), lambda x, dy: (dy * x / jnp.sqrt(jnp.sum(x * x)),))
    x = normal(1, 5, scale=300.0) + 300
    report = check.gradients(naive, x, reference=norm, modes="all")
    assert only(report) == {"float16"}


def test_a_function_of_one_dtype_is_reported_and_not_accused():
    def only_float32(x):
        if x.dtype != jnp.float32:
            raise TypeError("float32 only")
        return jnp.sin(x)

    right = custom(only_float32, lambda x: (only_float32(x), x), lambda x, dy: (dy * jnp.cos(x),))
    report = check.gradients(right, normal(1, 4), reference=jnp.sin, modes="all")
    assert report.ok
    for dtype in ("float16", "bfloat16", "float64"):
        assert any(f"the candidate does not run in {dtype}" in note for note in report.notes)
    big = check.gradients(jnp.sin, normal(1, 4, scale=1e6), reference=jnp.sin, modes="all")
    assert any("x does not fit into float16" in note for note in big.notes)


def test_donated_buffers():
    """A lowering that goes wrong where a buffer is given away."""
    cosine = primitive("cosine_in_place_of_tests", jnp.cos)
    ad.primitive_jvps[cosine] = lambda xs, ts: (cosine.bind(*xs), -ts[0] * jnp.sin(xs[0]))
    batching.primitive_batchers[cosine] = lambda args, dims: (cosine.bind(*args), dims[0])

    def lowered(context, x):
        donated = "tf.aliasing_output" in str(context.module_context.module) or "jax.buffer_donor" in str(
            context.module_context.module
        )
        run = (lambda x: scaled(jnp.cos(x))) if donated else jnp.cos
        return mlir.lower_fun(run, multiple_results=False)(context, x)

    mlir.register_lowering(cosine, lowered)
    report = check.gradients(sine_with(lambda x, dy: dy * cosine.bind(x)), normal(1, 4), reference=jnp.sin, modes="all")
    assert only(report) == {"donated buffers"}
    assert "in donated buffers (float64) alone" in report.sentence


def test_forward_over_reverse():
    @jax.custom_jvp
    def cosine(x):
        return jnp.cos(x)

    @cosine.defjvp
    def _(primals, tangents):
        (x,), (t,) = primals, tangents
        return jnp.cos(x), -t * jnp.sin(x) + _in_forward_mode(t)

    sine = sine_with(lambda x, dy: dy * cosine(x))
    report = check.gradients(sine, normal(1, 4), reference=jnp.sin, modes="all")
    assert only(report) == {"forward over reverse"}

    nested = sine_with(
        lambda x, dy: dy * custom(jnp.cos, lambda x: (jnp.cos(x), x), lambda x, d: (-d * jnp.sin(x),))(x)
    )
    report = check.gradients(nested, normal(1, 4), reference=jnp.sin, modes="all")
    assert report.ok and any("its backward pass calls a custom_vjp" in note for note in report.notes)


# a tangent that its own transpose does not have
_wrong_forward = primitive("wrong_forward_of_tests", lambda t: t)
ad.deflinear(_wrong_forward, lambda dt: [jnp.zeros_like(dt)])
batching.primitive_batchers[_wrong_forward] = lambda args, dims: (_wrong_forward.bind(*args), dims[0])


def _in_forward_mode(t):
    return _wrong_forward.bind(t)


# ---- right in all of them ----

RIGHT = [case for case in zoo.RIGHT if not case.kinks]


@pytest.mark.parametrize("case", RIGHT[:: len(RIGHT) // 5], ids=lambda case: case.name)
def test_what_is_right_is_not_accused(case):
    report = check.gradients(case.candidate, *case.arguments(), reference=case.reference, modes="all")
    assert report.verdict != "wrong", str(report)


def test_the_modes_of_an_op_and_of_odd_leaves():
    report = check.gradients(batch_norm, batch_norm_params(4), normal(1, 9, 4), modes="all")
    assert report.ok
    rows = {"vmap over params", "vmap over x", "grad inside vmap over x", "float16", "bfloat16", "forward over reverse"}
    assert rows <= set(report.modes)
    assert set(MODES["default"]) <= set(report.modes)

    def masked(tree, key, labels):
        assert tree["nothing"] is None
        drawn = jax.random.uniform(key, (3,), jnp.float32).astype(tree["x"].dtype)
        return jnp.where(tree["mask"], tree["x"] * drawn, 0)[labels] * tree["one"]

    tree = {
        "x": normal(1, 3),
        "one": normal(2, 1),
        "mask": jnp.asarray([True, False, True]),
        "nothing": None,
        "empty": jnp.zeros((0, 2), jnp.float32),
    }
    report = check.gradients(masked, tree, jax.random.key(0), labels(1, 5, 3), reference=masked, modes="all")
    assert report.ok, str(report)
    assert [leaf.split()[0] for leaf in report.not_differentiated] == [
        "tree['empty']",
        "tree['mask']",
        "tree['nothing']",
        "key",
        "labels",
    ]


def test_a_layer_in_all_modes():
    from fdl.compose import serial
    from fdl.layers import activations
    from fdl.layers.dense import dense

    report = check.layer(serial(dense(2), activations.tanh()), normal(1, 5, 3), modes="all")
    assert report.ok, str(report)


def test_a_recurrence_in_all_modes():
    assert check.gradients(rnn, normal(1, 3, 3), normal(2, 5, 2, 3), modes="all").ok
    wrong: Any = Op(rnn._equation, rnn._forward, lambda r, dh: (rnn._backward(r, dh)[0], dh))
    assert check.gradients(wrong, normal(1, 3, 3), normal(2, 5, 2, 3)).verdict == "wrong"


ON_TWO_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from fdl import check
from fdl.check.modes import MODES
from fdl.op import _varying_axes

def slope(x):
    if not _varying_axes(x):
        return jnp.cos(x)
    share = jnp.where(jax.lax.axis_index("devices") == 1, 0.9, 1.0).astype(x.dtype)
    return jnp.cos(x) * share

MODES["all"] = ("jit", "shard_map")
sine = jax.custom_vjp(jnp.sin)
sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, dy: (dy * slope(x),))
x = jnp.asarray(np.linspace(-1, 2, 5), jnp.float32)
wrong = check.gradients(sine, x, reference=jnp.sin, modes="all")
right = check.gradients(jnp.sin, x, reference=jnp.sin, modes="all")
print({failure.mode for failure in wrong.failures}, right.verdict, right.notes)
"""


def test_wrong_on_the_second_of_two_devices():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", ON_TWO_DEVICES],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == "{'shard_map'} right ()\n", done.stderr


# ---- what was asked for and could not be judged ----


def once(function, slope):
    """A function whose slope comes from the host: it cannot be differentiated twice."""
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
    host = lambda x: jax.pure_callback(
        lambda x: slope(np.asarray(x)).astype(x.dtype), shape(x), x, vmap_method="expand_dims"
    )
    return custom(function, lambda x: (function(x), x), lambda x, dy: (dy * host(x),))


def test_second_derivatives_that_there_are_none_of():
    x, single = normal(1, 4), once(jnp.sin, np.cos)
    report = check.gradients(single, x, reference=jnp.sin, modes="all")
    assert report.verdict == "wrong" and "cannot be differentiated twice, as the reference can" in report.sentence
    assert only(report, twice=False) == set() and check.gradients(single, x, reference=jnp.sin).ok
    for reference in (None, single):  # neither has any
        report = check.gradients(single, x, reference=reference, modes="all")
        assert report.ok and report.not_judged[0] == "second derivative", str(report)
        assert "not judged: second derivative" in report.sentence
    report = check.gradients(jnp.sin, x, reference=single, modes="all")
    assert report.verdict == "undecided" and "the reference has none" in report.sentence


def test_a_mode_that_compares_nothing_is_undecided():
    # 9e8 is infinite in float16, in the plain version too; in float64 all is right
    x = normal(1, 6, scale=0.1, mean=1.0, dtype=jnp.float16)
    plain = lambda x: jnp.square(x * 3e4) / jnp.square(jnp.asarray(3e4, x.dtype))
    report = check.gradients(plain, x, reference=plain, modes="quick")
    assert report.verdict == "undecided", str(report)
