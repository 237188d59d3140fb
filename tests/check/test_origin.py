"""Where a number stops being finite: the equation, its line, what went in, and the step of a loop."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import check
from fdl.errors import InputError
from fdl.op import Op
from tests.check.zoo import custom, normal

HERE = "test_origin.py"


def origin_of(function, *args):
    origin = check.nan_origin(function, *args)
    assert origin is not None
    return origin


def line_of(function, text):
    lines, start = inspect.getsourcelines(function)
    return start + next(i for i, line in enumerate(lines) if text in line)


def holds(origin, function, text, *, backward, **operands):
    """The origin is `text` on its line in `function`, with these operands."""
    assert origin.expression == text, origin
    assert origin.file.endswith(HERE) and origin.line == line_of(function, text)
    assert origin.backward == backward
    shown = dict(origin.operands)
    assert {name: shown[name] for name in operands} == operands, origin


def test_the_logarithm_of_zero():
    def loss(p):
        weights = p * 2
        return -jnp.sum(weights * jnp.log(p))

    p = jnp.asarray([0.5, 0.0, 0.25], jnp.float32)
    origin = origin_of(loss, p)
    holds(origin, loss, "jnp.log(p)", backward=False, p=0.0)
    assert str(origin) == f"`jnp.log(p)` at {HERE}:{line_of(loss, 'jnp.log')}, where p = 0"
    assert check.nan_origin(loss, p + 0.1) is None


def test_zero_by_zero():
    def ratio(x, y):
        return (x - y) / (x + y)

    x = jnp.asarray([1.0, 0.0], jnp.float32)
    origin = origin_of(ratio, x, jnp.zeros(2, jnp.float32))
    holds(origin, ratio, "(x - y) / (x + y)", backward=False)
    assert dict(origin.operands) == {"x - y": 0.0, "x + y": 0.0} and np.isnan(origin.value)


def test_an_exponential_that_overflows():
    def softmax(z):
        total = jnp.sum(jnp.exp(z))
        return jnp.exp(z) / total

    z = jnp.asarray([1.0, 200.0], jnp.float32)
    origin = origin_of(softmax, z)
    holds(origin, softmax, "jnp.exp(z)", backward=False, z=200.0)
    assert np.isposinf(origin.value)


def test_a_square_root_behind_a_where():
    def safe(x):
        return jnp.where(x > 0, jnp.sqrt(x), 0.0)

    x = jnp.asarray([4.0, 0.0], jnp.float32)
    origin = origin_of(safe, x)
    holds(origin, safe, "jnp.sqrt(x)", backward=True, x=0.0)
    assert str(origin).endswith("where x = 0, on the way back")
    assert check.nan_origin(lambda x: jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0), x) is None


def test_the_norm_of_nothing():
    def unit(x):
        length = jnp.sqrt(jnp.sum(x * x))
        return x * length

    origin = origin_of(unit, jnp.zeros(3, jnp.float32))
    holds(origin, unit, "jnp.sqrt(jnp.sum(x * x))", backward=True)
    assert origin.operands == (("jnp.sum(x * x)", 0.0),)


def rnn(x):
    def step(h, x_t):
        h = jnp.log(x_t) + h
        return h, h

    return jax.lax.scan(step, jnp.zeros_like(x[0]), x)[1]


def test_a_later_step_of_a_loop():
    x = jnp.abs(normal(1, 6, 3)).at[4, 1].set(0)
    origin = origin_of(rnn, x)
    holds(origin, rnn, "jnp.log(x_t)", backward=False, x_t=0.0)
    assert origin.steps == (4,) and ", in step 4" in str(origin)
    assert origin_of(jax.jit(rnn), x) == origin


def test_a_step_on_the_way_back():
    def run(x):
        def step(h, x_t):
            h = h + jnp.where(x_t > 0, jnp.sqrt(x_t), 0.0)
            return h, h

        return jax.lax.scan(step, jnp.zeros_like(x[0]), x)[0]

    x = jnp.abs(normal(1, 6, 3)).at[2, 1].set(0)
    origin = origin_of(run, x)
    holds(origin, run, "jnp.sqrt(x_t)", backward=True, x_t=0.0)
    assert origin.steps == (2,)
    holds(origin_of(jax.jit(run), x), run, "jnp.sqrt(x_t)", backward=True, x_t=0.0)


def test_branches_and_loops_without_a_length():
    def branch(x):
        return jax.lax.cond(jnp.sum(x) > 0, lambda x: 1 / x, lambda x: x, x)

    origin = origin_of(branch, jnp.asarray([1.0, 0.0], jnp.float32))
    holds(origin, branch, "1 / x", backward=False, x=0.0)
    assert check.nan_origin(branch, jnp.asarray([-1.0, 0.0], jnp.float32)) is None

    def squared(x):
        return jax.lax.while_loop(lambda c: c[0] < 9, lambda c: (c[0] + 1, jnp.square(c[1])), (0, x))[1]

    origin = origin_of(squared, jnp.asarray([1.0, 10.0], jnp.float32))
    holds(origin, squared, "jnp.square(c[1])", backward=False)
    assert origin.steps == (5,)  # 10^32 squared


def test_inside_a_hand_written_backward():
    def length(x):
        return jnp.sqrt(jnp.sum(x * x))

    def backward(x, dy):
        n = length(x)
        return (dy * x / n,)

    norm = custom(length, lambda x: (length(x), x), backward)
    for run in (norm, jax.jit(norm), lambda x: norm(x) * jnp.float32(2)):
        origin = origin_of(run, jnp.zeros(3, jnp.float32))
        holds(origin, backward, "dy * x / n", backward=True, n=0.0)
    op = Op(length, lambda x: (length(x), x), backward)
    holds(origin_of(op, jnp.zeros(3, jnp.float32)), backward, "dy * x / n", backward=True, n=0.0)


def test_inside_a_hand_written_forward():
    def forward(x):
        y = jnp.log(x)
        return y, 1 / x

    log = custom(lambda x: forward(x)[0], forward, lambda r, dy: (dy * r,))
    origin = origin_of(log, jnp.zeros(2, jnp.float32))
    holds(origin, forward, "jnp.log(x)", backward=False, x=0.0)


def test_infinities_that_were_given_are_no_fault():
    def masked(z, mask):
        z = jnp.where(mask, z, -jnp.inf)
        return jnp.exp(z - jnp.max(z))

    z = normal(1, 4)
    assert check.nan_origin(masked, z, jnp.asarray([True, True, False, True])) is None
    origin = origin_of(masked, z, jnp.zeros(4, bool))
    holds(origin, masked, "z - jnp.max(z)", backward=False)
    origin = origin_of(lambda x: x * 2, jnp.asarray([1.0, np.nan], jnp.float32))
    assert str(origin) == "the argument x, which holds nan"
    with pytest.raises(InputError, match="got no arguments"):
        check.nan_origin(jnp.sin)


def test_a_check_says_where_the_candidate_stops_being_finite():
    def length(x):
        return jnp.sqrt(jnp.sum(x * x, axis=-1))

    def backward(x, dy):
        n = length(x)
        return (dy[:, None] * x / n[:, None],)

    def safe(x):
        return length(jnp.where(jnp.all(x == 0, axis=-1, keepdims=True), 1e-100, x))

    candidate = custom(safe, lambda x: (safe(x), x), backward)
    x = normal(1, 4, 3, dtype=np.float64).at[2].set(0)
    report = check.gradients(candidate, x, reference=safe, modes="quick")
    assert report.verdict == "wrong"
    said = f"first in `dy[:, None] * x / n[:, None]` at {HERE}:{line_of(backward, 'n[:, None]')}"
    assert said in report.sentence and said in report.failures[0].message

    def log(x):
        return jnp.log(x)

    report = check.gradients(log, jnp.asarray([1.0, 0.0], jnp.float32), reference=log, modes="quick")
    note = f"the reference is not finite everywhere: first in `jnp.log(x)` at {HERE}:{line_of(log, 'jnp.log')}, where x = 0"
    assert note in report.notes


# ---- inside libraries: the caller's line, and then the library's


def test_a_function_of_jax_is_named_by_the_line_that_calls_it():
    def scaled(x):
        length = jnp.linalg.norm(x)
        return 2 * length

    zero = jnp.zeros(3, jnp.float32)
    for run in (scaled, jax.jit(scaled), jax.checkpoint(scaled)):
        origin = origin_of(run, zero)
        holds(origin, scaled, "jnp.linalg.norm(x)", backward=True, x=0.0)
        assert origin.inside == "jax.numpy.linalg.norm" and origin.primitive == "sqrt"
        assert "sqrt" in origin.detail and " at linalg.py:" in origin.detail
    assert str(origin).endswith(f"on the way back, inside jax.numpy.linalg.norm, in {origin.detail}")
    alone = origin_of(jnp.linalg.norm, zero)  # there is no line of a caller
    assert alone.inside == "jax.numpy.linalg.norm" and alone.file.endswith("linalg.py") and not alone.detail


def test_an_activation_and_a_step_of_a_loop():
    def share(z):
        return jax.nn.softmax(z)

    origin = origin_of(share, jnp.full(3, -jnp.inf, jnp.float32))
    holds(origin, share, "jax.nn.softmax(z)", backward=False)
    assert origin.inside == "jax.nn.softmax" and " at functions.py:" in origin.detail

    def run(x):
        return jax.lax.scan(lambda h, t: (h + jnp.std(t), None), jnp.zeros((), x.dtype), x)[0]

    origin = origin_of(run, normal(1, 4, 3).at[2].set(1))
    holds(origin, run, "jnp.std(t)", backward=True)
    assert origin.steps == (2,) and origin.inside == "jax.numpy.std"


def test_what_does_one_operation_is_not_inside_of_anything():
    for run in (lambda x: jnp.log(x), lambda x: 1 / x, lambda x: jnp.sqrt(x), lambda x: x**0.5):
        assert not origin_of(run, jnp.zeros(2, jnp.float32)).inside


def test_a_layer_of_flax_and_one_of_equinox():
    linen = pytest.importorskip("flax.linen")

    def normalized(x):
        return linen.LayerNorm(epsilon=0.0)(0 * x)

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            return normalized(linen.Dense(4)(x))

    x = normal(1, 2, 3)
    net = Net()
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        params = net.init(jax.random.key(0), x)
        origin = origin_of(lambda params, x: net.apply(params, x), params, x)
    holds(origin, normalized, "linen.LayerNorm(epsilon=0.0)(0 * x)", backward=False)
    assert origin.inside == "flax.linen.LayerNorm" and " at normalization.py:" in origin.detail

    nn = pytest.importorskip("equinox").nn

    def applied(layer, x):
        return layer(x)

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        origin = origin_of(applied, nn.LayerNorm(3, eps=0.0), jnp.ones(3))
    holds(origin, applied, "layer(x)", backward=False)
    assert origin.inside == "equinox.nn.LayerNorm"
