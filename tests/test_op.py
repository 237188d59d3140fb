"""Op: the fast path under every transformation, options, and the errors of a wrong backward."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.errors import InputError, InputTypeError
from fdl.op import Op, Static


def cube_equation(params, x, *, gain=2.0, power=3):
    return gain * jnp.sum(params["w"] * x**power, axis=-1)


def cube_forward(params, x, *, gain, power):
    return cube_equation(params, x, gain=gain, power=power), (params["w"], x, Static(power))


def cube_backward(residuals, dy, *, gain, power):
    w, x, kept = residuals
    assert kept.value == power
    dw = gain * dy[..., None] * x**power
    dx = gain * dy[..., None] * w * power * x ** (power - 1)
    return {"w": dw.sum(axis=tuple(range(x.ndim - 1))) if w.ndim < x.ndim else dw}, dx


untyped_op: Any = Op
cube = Op(cube_equation, cube_forward, cube_backward, name="cube")


@pytest.fixture
def args(getkey):
    w = jax.random.normal(getkey(), (5,), jnp.float64)
    return {"w": w}, jax.random.normal(getkey(), (5,), jnp.float64)


def plain(params, x):
    return cube.equation(params, x)


def close(a, b, rtol=1e-12):
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=rtol, atol=1e-14), a, b)


def pull(function, args, dy):
    return jax.vjp(function, *args)[1](dy)


def test_the_three_functions_and_the_fast_path_agree(args, getkey):
    dy = jax.random.normal(getkey(), (), jnp.float64)
    out, residuals = cube.forward(*args, gain=1.5)
    close(out, cube.equation(*args, gain=1.5))
    close(out, cube(*args, gain=1.5))
    want = pull(lambda p, x: cube.equation(p, x, gain=1.5), args, dy)
    close(cube.backward(residuals, dy, gain=1.5), want)
    close(pull(lambda p, x: cube(p, x, gain=1.5), args, dy), want)


def test_defaults_are_those_of_the_equation(args):
    close(cube(*args), cube_equation(*args))
    close(cube.bind(gain=3.0)(*args), cube_equation(*args, gain=3.0))
    close(cube.bind(gain=3.0, power=2).bind(gain=1.0)(*args), cube_equation(*args, gain=1.0, power=2))
    close(cube(args[0], x=args[1]), cube_equation(*args))


def test_grad_goes_through_the_hand_written_backward(args):
    doubled = Op(cube_equation, cube_forward, lambda r, dy, *, gain, power: jax.tree.map(
        lambda d: 2 * d, cube_backward(r, dy, gain=gain, power=power)), name="doubled")  # fmt: skip
    close(jax.grad(lambda x: doubled(args[0], x))(args[1]), 2 * jax.grad(lambda x: plain(args[0], x))(args[1]))


@pytest.mark.parametrize("outer", [jax.jit, jax.checkpoint, lambda f: jax.jit(jax.checkpoint(f))])
def test_under_jit_and_checkpoint(args, outer):
    grad = jax.grad(lambda p, x: outer(cube)(p, x), argnums=(0, 1))
    close(grad(*args), jax.grad(plain, argnums=(0, 1))(*args))


@pytest.mark.parametrize("axes", [(None, 0), (None, 1), (0, None), (0, 0)])
def test_vmap_over_any_axis(getkey, axes):
    w = jax.random.normal(getkey(), (3, 5) if axes[0] == 0 else (5,), jnp.float64)
    x = jax.random.normal(getkey(), {0: (3, 5), 1: (5, 3), None: (5,)}[axes[1]], jnp.float64)
    mapped = lambda f: jax.vmap(jax.grad(f, argnums=(0, 1)), in_axes=({"w": axes[0]}, axes[1]))({"w": w}, x)
    close(mapped(cube), mapped(plain))
    of_sum = lambda f: jax.grad(lambda p, x: jnp.sum(jnp.sin(jax.vmap(f, in_axes=({"w": axes[0]}, axes[1]))(p, x))))
    close(of_sum(cube)({"w": w}, x), of_sum(plain)({"w": w}, x))


def two_outputs(params, x, *, gain=2.0):
    return gain * params["w"] * x, jnp.sin(x)  # the second does not depend on w


def test_vmap_over_an_argument_that_some_outputs_do_not_depend_on(getkey):
    op = Op(
        two_outputs,
        lambda params, x, *, gain: (two_outputs(params, x, gain=gain), (params["w"], x)),
        lambda kept, dout, *, gain: (
            {"w": gain * dout[0] * kept[1]},
            gain * dout[0] * kept[0] + dout[1] * jnp.cos(kept[1]),
        ),
    )
    w, (x, dy, ds) = jax.random.normal(getkey(), (3, 5), jnp.float64), jax.random.normal(getkey(), (3, 5), jnp.float64)

    def dx(f):
        members = lambda x: jax.vmap(lambda w: f({"w": w}, x))(w)
        return jax.grad(
            lambda x: sum(jnp.vdot(a, b) for a, b in zip(members(x), (w * dy[None], w * ds[None]), strict=True))
        )(x)

    close(dx(op), dx(op.equation))


def test_second_derivatives_in_reverse_and_hessian(args):
    scalar = lambda f: lambda x: jnp.sin(f(args[0], x))
    twice = lambda f: jax.jacrev(jax.grad(scalar(f)))(args[1])
    close(twice(cube), twice(plain))
    close(jax.hessian(scalar(cube))(args[1]), jax.hessian(scalar(plain))(args[1]))


def test_forward_mode_of_the_fast_path_is_refused_and_of_the_equation_works(args):
    with pytest.raises(TypeError, match="forward-mode|jvp"):
        jax.jvp(lambda x: cube(args[0], x), (args[1],), (args[1],))
    jax.jvp(lambda x: plain(args[0], x), (args[1],), (args[1],))


def test_inside_scan(args, getkey):
    xs = jax.random.normal(getkey(), (4, 5), jnp.float64)
    start = jnp.asarray(0.3, jnp.float64)
    run = lambda f: lambda xs: jax.lax.scan(lambda c, x: (c + jnp.sin(f(args[0], x * c)), c), start, xs)[0]
    close(jax.grad(run(cube))(xs), jax.grad(run(plain))(xs), rtol=1e-10)


def test_donated_buffers(args):
    step = jax.jit(lambda p, x: jax.tree.map(lambda w, d: w - 0.1 * d, p, jax.grad(cube)(p, x)), donate_argnums=0)
    want = args[0]["w"] - 0.1 * jax.grad(plain)(*args)["w"]
    close(step({"w": jnp.array(args[0]["w"])}, args[1])["w"], want)


def test_a_traced_option_enters_as_an_operand_without_derivative(args):
    gains = jnp.asarray([0.5, 2.0, -1.0], jnp.float64)
    swept = jax.vmap(lambda gain: jax.grad(lambda x: cube(args[0], x, gain=gain))(args[1]))(gains)
    want = jnp.stack([jax.grad(lambda x, g=float(g): plain_with(args[0], x, g))(args[1]) for g in gains])
    close(swept, want)
    assert jax.grad(lambda gain: cube(*args, gain=gain))(gains[0]) == 0
    bound = jax.jit(lambda gain: cube.bind(gain=gain)(*args))(gains[1])
    close(bound, plain_with(args[0], args[1], 2.0))


def plain_with(params, x, gain):
    return cube.equation(params, x, gain=gain)


def test_integer_boolean_and_key_arguments_have_no_cotangent(getkey):
    pick = Op(
        lambda x, index, flag, key: jnp.where(flag, x[index], jnp.zeros((), x.dtype)),
        lambda x, index, flag, key: (jnp.where(flag, x[index], jnp.zeros((), x.dtype)), (x, index, flag)),
        lambda r, dy: (jnp.where(r[2], jnp.zeros_like(r[0]).at[r[1]].set(dy), jnp.zeros_like(r[0])), None, None, None),
        name="pick",
    )
    x = jax.random.normal(getkey(), (4,), jnp.float64)
    grads = jax.vjp(pick, x, jnp.asarray(2), jnp.asarray(True), getkey())[1](jnp.asarray(1.7, jnp.float64))
    close(grads[0], jnp.asarray([0, 0, 1.7, 0], jnp.float64))
    assert [g.dtype for g in grads[1:]] == [jax.dtypes.float0] * 3


def test_no_retracing_with_the_same_options(args):
    traces = []

    def forward(params, x, *, gain, power):
        traces.append(1)
        return cube_forward(params, x, gain=gain, power=power)

    op = Op(cube_equation, forward, cube_backward)
    for _ in range(3):
        op(*args, gain=2.5)
        jax.grad(op)(*args, gain=2.5)
    once = len(traces)
    op(*args, gain=2.5)
    jax.grad(op)(*args, gain=2.5)
    assert len(traces) == once
    op(*args, gain=3.5)
    assert len(traces) > once, "another static option is another program"


def test_static_options_are_told_apart_by_type():
    kinds = Op(
        lambda x, *, by=1: x * (2.0 if isinstance(by, float) else 3.0),
        lambda x, *, by: (x * (2.0 if isinstance(by, float) else 3.0), None),
        lambda r, dy: (dy,),
    )
    x = jnp.ones(2, jnp.float64)
    assert kinds(x, by=1)[0] == 3
    assert kinds(x, by=1.0)[0] == 2


def test_an_op_is_static_hashable_and_equal_to_its_like(args):
    assert hash(cube.bind(gain=2.0)) == hash(cube.bind(gain=2.0))
    assert cube.bind(gain=2.0) == cube.bind(gain=2.0) != cube.bind(gain=3.0)
    close(jax.jit(lambda op, p, x: op(p, x))(cube, *args), plain(*args))
    assert jax.tree.leaves(cube) == []


def test_residuals_with_static_facts_cross_jit(args):
    out, residuals = jax.jit(cube.forward)(*args)
    dy = jnp.asarray(0.3, jnp.float64)
    close(jax.jit(cube.backward)(residuals, dy), pull(plain, args, dy))


# ---- the tester must fail ----

WRONG = {
    "too few": (lambda r, dy: (dy,), r"returned 1 cotangent.*2 argument.*\(a, b\).*return \(da, db\)"),
    "no tuple": (lambda r, dy: [dy, dy], r"list.*tuple"),
    "structure": (lambda r, dy: ({"w": dy}, dy), r"da with structure.*but a has structure"),
    "shape": (lambda r, dy: (dy, dy[:1]), r"db with shape \[1\].*b has shape \[3\]"),
    "dtype": (lambda r, dy: (dy.astype(jnp.float16), dy), r"da with dtype float16.*a is float64"),
    "none": (lambda r, dy: (dy, None), r"None for b.*zeros"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_backward_of_the_wrong_form_is_refused_at_trace_time(case):
    backward, message = WRONG[case]
    if case == "none":
        message = "db with structure|None for b"
    op = Op(lambda a, b: a * b, lambda a, b: (a * b, None), backward, name="product")
    x = jnp.arange(3.0, dtype=jnp.float64)
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        jax.eval_shape(jax.grad(lambda a: op(a, x).sum()), x)
    assert "product" in str(caught.value)


def test_a_cotangent_for_an_integer_is_refused():
    op = Op(lambda a, n: a * 1.0, lambda a, n: (a * 1.0, n), lambda r, dy: (dy, r.astype(jnp.float64)), name="op")
    with pytest.raises(TypeError, match="for n, which is int64.*None"):
        jax.grad(lambda a: op(a, jnp.arange(3)).sum())(jnp.ones(3, jnp.float64))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: cube(*a, gian=2.0), "unknown option 'gian'.*gain, power"),
        (lambda a: cube(*a, 2.0), "3 positional arguments.*params, x"),
        (lambda a: cube(a[0]), "missing x"),
        (lambda a: cube(*a, power={}), "option power is dict"),
        (lambda a: cube.bind(nope=1), "unknown option"),
        (lambda a: Op(cube_equation, lambda p, x: None, cube_backward), "forward does not take.*gain"),
        (lambda a: Op(cube_equation, cube_forward, lambda r, dy, *, other: None), "backward takes.*other"),
        (lambda a: untyped_op(cube_equation, None, cube_backward), "forward is NoneType"),
    ],
)
def test_errors_at_the_door(args, call, message):
    with pytest.raises(TypeError, match=message):
        call(args)


def test_names():
    assert fdl.losses.mean_squared_error.name == "mean_squared_error"
    assert Op(lambda x: x, lambda x: (x, None), lambda r, d: (d,)).name == "op"
    assert repr(cube.bind(gain=1.0)) == "Op(cube, gain=1.0)"
    assert cube.arguments == ("params", "x")


def test_a_forward_without_residuals_is_refused():
    op = fdl.Op(lambda x: x * 2, lambda x: x * 2, lambda r, dy: (dy * 2,), name="forgot")
    for call in (op, op.forward, jax.grad(lambda x: op(x).sum())):
        with pytest.raises(InputTypeError, match=r"'forgot': forward returned .*wanted \(out, residuals\)"):
            call(jnp.ones((2, 2)))


def test_options_that_differ_inside_a_tuple_make_different_programs():
    op = fdl.Op(
        lambda x, *, p=(1.0,): x / p[0], lambda x, *, p: (x / p[0], ()), lambda r, d, *, p: (d / p[0],), name="d"
    )
    assert op(jnp.ones(3), p=(0.0,))[0] == jnp.inf and op(jnp.ones(3), p=(-0.0,))[0] == -jnp.inf


FAULTS = {
    "shape": (lambda r, d: ({"s": (d * r[1]).sum()}, d), r"dparams\['s'\] with shape \[\]"),
    "dtype": (lambda r, d: ({"s": (d * r[1]).sum(0).astype(jnp.float16)}, d), "with dtype float16"),
    "structure": (lambda r, d: ({"q": (d * r[1]).sum(0)}, d), "with structure"),
    "count": (lambda r, d: (d,), r"returned 1 cotangent\(s\) for 2"),
    "none": (lambda r, d: (None, d), "dparams"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_backward_is_refused_by_hand_too(fault):
    """Backprop by hand calls it directly, not through custom_vjp."""
    backward, message = FAULTS[fault]
    forward = lambda params, x: (x * params["s"][None], (params, x))
    op = fdl.Op(lambda params, x: x * params["s"][None], forward, backward, name="scale")
    layer = fdl.Layer.from_op("scale", op, lambda key, spec, dtype: {"s": jnp.ones(spec.shape, dtype)})
    model, x = fdl.serial(fdl.dense(3), layer), jnp.ones((2, 4), jnp.float32)
    params, state = model.init(jax.random.key(0), (4,), jnp.float32)
    mse = fdl.losses.mean_squared_error
    with pytest.raises((InputError, InputTypeError), match=f"scale_1: .*{message}"):
        fdl.backprop.value_and_grad(model, mse)(params, state, x, jnp.zeros((2, 3), jnp.float32))


def test_a_cotangent_unlike_the_output_is_refused_by_hand():
    model = fdl.serial(fdl.dense(3))
    params, state = model.init(jax.random.key(0), (4,), jnp.float32)
    _, _, residuals = model.forward(params, state, jnp.ones((2, 4), jnp.float32))
    for dy in (jnp.ones((2, 4), jnp.float32), jnp.ones((2, 3), jnp.float16)):
        with pytest.raises(InputError, match="dense_0: .*its output is float32"):
            model.backward(residuals, dy)
