"""Each kind of fault in a backward pass gets its name, and a fault that looks like it does not.

A row of the table: an equation, its arguments, a wrong backward, what is said of it, and another wrong backward of which it
must not be said. Backwards take (arguments, dy) and return the cotangents of all arguments.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import check
from fdl.check import replay
from fdl.check.backward import Backward
from fdl.check.evaluate import WIDE, Point
from fdl.check.regions import region_of
from fdl.check.stock import Draw
from fdl.check.subject import Differentiated, layout_of
from fdl.op import Op
from tests.check.zoo import labels, normal, rnn_equation

pytestmark = pytest.mark.optimized


def op_of(equation, backward):
    return Op(equation, lambda *args: (equation(*args), args), backward, name="f")


def positive(seed, *shape):
    return 0.3 + normal(seed, *shape) ** 2


def softmax(x):
    return jax.nn.softmax(x, axis=-1)


def softmax_with(total):
    """total(g y) is what is subtracted from g; the right one sums over the last axis."""
    return lambda args, g: (softmax(args[0]) * (g - total(g * softmax(args[0]))),)


def masked_row(k, g):
    return jnp.where((jnp.arange(g.shape[0]) == k)[:, None], 0, g)


def along(g, ids):
    return jnp.take_along_axis(g, ids, axis=1)


def sort(x):
    return jnp.sort(x, axis=1)


def order(x):
    return jnp.argsort(x, axis=1)


def table_rows(table, ids):
    return table[ids]


def scattered(how):
    def backward(args, g):
        table, ids = args
        return getattr(jnp.zeros_like(table).at[ids], how)(g), None

    return backward


def mean_of_duplicates(args, g):
    table, ids = args
    count = jnp.zeros(len(table), g.dtype).at[ids].add(1)
    return jnp.zeros_like(table).at[ids].add(g) / jnp.maximum(count, 1)[:, None], None


def shared(a, b):
    return a * (1 - b[:, None]) + jnp.sin(a) * b[:, None]


def shared_with(first, second):
    """The factors that are taken for 1 - b and for b."""

    def backward(args, g):
        a, b = args
        return g * first(b)[:, None] + g * jnp.cos(a) * second(b)[:, None], jnp.sum(g * (jnp.sin(a) - a), 1)

    return backward


def centred(x):
    middle = jnp.mean(x, axis=0, keepdims=True)
    return jnp.mean((x - middle) ** 2, axis=0)


def scaled(x):
    length = jnp.sqrt(jnp.mean(x * x, axis=1, keepdims=True))
    return x / length


def scaled_with(power):
    def backward(args, g):
        (x,) = args
        length = jnp.sqrt(jnp.mean(x * x, axis=1, keepdims=True))
        y = x / length
        return ((g - y * jnp.mean(g * y, 1, keepdims=True)) / power(length),)

    return backward


def recurrence(step):
    """step(carried, dz, t) is what the backward loop carries on; the right one is dz @ u.T."""

    def backward(args, g):
        u, x = args
        h = rnn_equation(u, x)
        before = jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]])

        def back(carried, now):
            h_t, g_t, t = now
            dz = (g_t + carried) * (1 - h_t * h_t)
            return step(u, dz, t), dz

        times = jnp.arange(h.shape[0])
        dz = jax.lax.scan(back, jnp.zeros_like(h[0]), (h, g, times), reverse=True)[1]
        return jnp.einsum("tni,tno->io", before, dz), dz

    return backward


def weights(seed=1):
    return normal(seed, 3, 3, scale=0.5), normal(2, 6, 2, 3)


x, row, square = normal(1, 5, 4), normal(2, 4), normal(3, 4, 4)
mask, ids = jnp.asarray([True, False, True, True, False]), jnp.asarray([1, 4, 1, 2, 4])


def where(mask, x):
    return jnp.where(mask[:, None], jnp.sin(x), 0)


FAULTS = {
    # where a gradient is wrong
    "negative arguments": (
        jnp.sin,
        (x,),
        lambda args, g: (jnp.where(args[0] < 0, 2, 1) * g * jnp.cos(args[0]),),
        "dx is 2 times what it should be where x is negative; elsewhere it is right",
        lambda args, g: (jnp.where(jnp.sin(9 * args[0]) < 0, 2, 1) * g * jnp.cos(args[0]),),
    ),
    "between bounds": (
        jnp.sin,
        (normal(1, 40),),
        lambda args, g: (jnp.where(args[0] > 0.5, -1, 1) * g * jnp.cos(args[0]),),
        "dx has the wrong sign where x is",
        lambda args, g: (jnp.where(jnp.arange(40) % 3 == 0, -1, 1) * g * jnp.cos(args[0]),),
    ),
    "every third index": (
        jnp.sin,
        (normal(1, 40),),
        lambda args, g: (jnp.where(jnp.arange(40) % 3 == 0, -1, 1) * g * jnp.cos(args[0]),),
        "at every index along axis 0 that leaves 0 when divided by 3",
        lambda args, g: (jnp.where(jnp.arange(40) % 4 == 0, -1, 1) * g * jnp.cos(args[0]),),
    ),
    "a row": (
        jnp.sin,
        (x,),
        lambda args, g: (masked_row(3, g) * jnp.cos(args[0]),),
        "dx is zero, and should not be, at index 3 along axis 0; elsewhere it is right",
        lambda args, g: (masked_row(2, g) * jnp.cos(args[0]),),
    ),
    "a mask of the cotangent": (
        jax.nn.relu,
        (x,),
        lambda args, g: (jnp.where((args[0] > 0) & (g > 0), g, 0),),
        "is zero, and should not be, where the cotangent is negative; elsewhere it is right",
        lambda args, g: (jnp.where((args[0] > 0) & (args[0] < 0.5), g, 0),),
    ),
    "not finite at zero": (
        lambda x: jnp.prod(x, axis=1),
        (x.at[2, 1].set(0),),
        lambda args, g: ((g * jnp.prod(args[0], axis=1))[:, None] / args[0],),
        "dx is not finite where x is 0; elsewhere it is right",
        lambda args, g: ((g * jnp.prod(args[0], axis=1))[:, None] / (args[0] + 1),),
    ),
    # cotangents
    "without its sign": (
        lambda x: jnp.sin(3 * x),
        (x,),
        lambda args, g: (3 * jnp.abs(g) * jnp.cos(3 * args[0]),),
        "dx has the absolute value of the cotangent",
        lambda args, g: (3 * jnp.sqrt(jnp.abs(g)) * jnp.cos(3 * args[0]),),
    ),
    "averaged": (
        jnp.sin,
        (x,),
        lambda args, g: (jnp.mean(g, axis=1, keepdims=True) * jnp.cos(args[0]),),
        "the cotangent is averaged over axis 1 of the output in dx",
        lambda args, g: (jnp.max(g, axis=1, keepdims=True) * jnp.cos(args[0]),),
    ),
    "tiled for repeated": (
        lambda x: jnp.repeat(x, 3, axis=0),
        (x,),
        lambda args, g: (g.reshape(3, 5, 4).sum(0),),
        "dx has the cotangent along axis 0 of the output in the order of 3 times 5, not of 5 times 3",
        lambda args, g: (g.reshape(5, 3, 4)[:, 0],),
    ),
    "one of every three": (
        lambda x: jnp.repeat(x, 3, axis=0),
        (x,),
        lambda args, g: (g.reshape(5, 3, 4)[:, 0],),
        "only the first of every 3 of the 15 along axis 0 of the output counts in dx",
        lambda args, g: (g.reshape(3, 5, 4).sum(0),),
    ),
    # another function
    "the norm's square": (
        lambda x: jnp.linalg.norm(x, axis=1),
        (x,),
        lambda args, g: (2 * args[0] * g[:, None],),
        "dx is the gradient of the square of the output",
        lambda args, g: (2 * args[0] ** 3 * g[:, None],),
    ),
    "a maximum": (
        lambda x: jax.nn.logsumexp(x, axis=1),
        (x,),
        lambda args, g: (g[:, None] * jax.nn.one_hot(jnp.argmax(args[0], 1), 4, dtype=g.dtype),),
        "dx is the gradient of the maximum over axis 1",
        lambda args, g: (g[:, None] * jax.nn.one_hot(jnp.argsort(args[0], 1)[:, 1], 4, dtype=g.dtype),),
    ),
    "the diagonal": (
        softmax,
        (x,),
        lambda args, g: (g * softmax(args[0]) * (1 - softmax(args[0])),),
        "dx has the diagonal of the Jacobian alone",
        lambda args, g: (g * softmax(args[0]) * (1 - softmax(args[0]) ** 2),),
    ),
    "the identity": (
        lambda x: x.reshape(2, 10).T,
        (x,),
        lambda args, g: (g.reshape(5, 4),),
        "dx is the cotangent of the output, only reshaped: the derivative of the function is left out",
        lambda args, g: (g[::-1].reshape(5, 4),),
    ),
    # operations of the backward pass
    "a number": (
        lambda x: 0.3 * jnp.sin(x),
        (x,),
        lambda args, g: (g * jnp.cos(args[0]),),
        "the factor 0.3 in `0.3 * jnp.sin(x)` is missing",
        lambda args, g: (0.5 * g * jnp.cos(args[0]),),
    ),
    "a part": (
        jnp.tanh,
        (x,),
        lambda args, g: (g * (1 - jnp.tanh(args[0])),),
        "a missing part of the derivative of the function with the factor `1 - tanh(",
        lambda args, g: (g * (1 - jnp.tanh(args[0]) ** 4),),
    ),
    "a constant": (
        lambda x: x / jnp.sum(jnp.abs(jax.lax.stop_gradient(x)), axis=1, keepdims=True),
        (x,),
        lambda args, g: (g / 7,),
        "a constant stands in place of the factor",
        lambda args, g: (g / 7 * (1 + args[0]),),
    ),
    "a sum over the batch": (
        softmax,
        (square,),
        softmax_with(lambda gy: jnp.sum(gy, axis=0, keepdims=True)),
        "runs over axis 0 in dx",
        softmax_with(lambda gy: jnp.max(gy, axis=0, keepdims=True)),
    ),
    "a sum taken as one": (
        lambda x: jax.nn.log_softmax(x, axis=-1),
        (x,),
        lambda args, g: (g - softmax(args[0]),),
        "is taken as -1 in dx: its cotangents are ignored",
        lambda args, g: (g - softmax(args[0]) * 0.7,),
    ),
    "the order of factors": (
        lambda a, b: a @ b,
        (square, normal(4, 4, 4)),
        lambda args, g: (args[1].T @ g, args[0].T @ g),
        "the product with `b` in the derivative of `a @ b` is transposed or in the wrong order in da",
        lambda args, g: (args[0].T @ g, args[0].T @ g),
    ),
    "the largest of duplicates": (
        table_rows,
        (normal(1, 6, 3), ids),
        scattered("max"),
        "of equal indices in the derivative of `table[ids]` only the largest counts in dtable",
        scattered("min"),
    ),
    "the mean of duplicates": (
        table_rows,
        (normal(1, 6, 3), ids),
        mean_of_duplicates,
        "the mean counts, not the sum in dtable",
        scattered("max"),
    ),
    # residuals
    "a permutation": (
        sort,
        (x,),
        lambda args, g: (along(g, order(args[0])),),
        "inverted as a permutation along axis 1",
        lambda args, g: (along(g[:, ::-1], order(args[0])),),
    ),
    "in order": (
        lambda x: jax.lax.top_k(x, 3)[0],
        (normal(1, 4, 6),),
        lambda args, g: (jnp.pad(g, ((0, 0), (0, 3))),),
        "as if it were 0, 1, 2, ... along axis 1",
        lambda args, g: (jnp.pad(g, ((0, 0), (1, 2))),),
    ),
    "a mask forgotten": (
        where,
        (mask, x),
        lambda args, g: (None, g * jnp.cos(args[1])),
        "dx is the gradient with the mask mask forgotten: True everywhere",
        lambda args, g: (None, jnp.where(args[0][:, None], g, 0.3 * g) * jnp.cos(args[1])),
    ),
    "a mask inverted": (
        where,
        (mask, x),
        lambda args, g: (None, jnp.where(args[0][:, None], 0, g) * jnp.cos(args[1])),
        "dx is the gradient with the mask mask inverted",
        lambda args, g: (None, jnp.where(args[0][:, None], 0.5, 1) * g * jnp.cos(args[1])),
    ),
    "rows of another example": (
        lambda a, b: jnp.einsum("nij,njk->nik", a, b),
        (normal(1, 3, 4, 4), normal(2, 3, 4, 4)),
        lambda args, g: (
            g @ jnp.roll(args[1], 1, 0).swapaxes(1, 2),
            args[0].swapaxes(1, 2) @ g,
        ),
        "da takes `b` moved by +1 along axis 0",
        lambda args, g: (g @ jnp.flip(args[1], 0).swapaxes(1, 2), args[0].swapaxes(1, 2) @ g),
    ),
    "values swapped": (
        shared,
        (x, normal(3, 5)),
        shared_with(lambda b: b, lambda b: 1 - b),
        "in place of each other",
        shared_with(lambda b: b, lambda b: b),
    ),
    "another value": (
        jnp.tanh,
        (x,),
        lambda args, g: (g * (1 - args[0] ** 2),),
        "in place of `tanh(",
        lambda args, g: (g * (1 - jnp.sin(args[0]) ** 2),),
    ),
    "a root": (
        jnp.arctan2,
        (normal(1, 9), normal(2, 9)),
        lambda args, g: (g * args[1] / jnp.hypot(*args), -g * args[0] / jnp.hypot(*args)),
        "without its square: its root",
        lambda args, g: (g * args[1] / jnp.hypot(*args) ** 3, -g * args[0] / jnp.hypot(*args) ** 3),
    ),
    "a factor of the whole": (
        scaled,
        (x,),
        scaled_with(lambda length: length**2),
        "dx is divided by `length` once too often",
        scaled_with(lambda length: length**1.5),
    ),
    "one factor for another": (
        centred,
        (normal(1, 6, 3, mean=2.0),),
        lambda args, g: (2 * args[0] * g[None] / 6,),
        "dx has `x` in place of `x - middle` as a factor",
        lambda args, g: (2 * (args[0] + 1) * g[None] / 6,),
    ),
    # time
    "truncated": (
        rnn_equation,
        weights(),
        recurrence(lambda u, dz, t: jnp.where(t % 2 == 0, 0, dz @ u.T)),
        "what the backward loop carries is cut at every second step in du",
        recurrence(lambda u, dz, t: jnp.where(t == 2, 0, dz @ u.T)),
    ),
    "not transposed": (
        rnn_equation,
        weights(),
        recurrence(lambda u, dz, t: dz @ u),
        "the product with `u` in the derivative of `h @ u` is transposed or in the wrong order in du",
        recurrence(lambda u, dz, t: dz @ (u.T + 0.1)),
    ),
}


def first_diagnosis(fault, backward):
    report = check.gradients(op_of(FAULTS[fault][0], backward), *FAULTS[fault][1], modes="quick")
    assert report.verdict == "wrong"
    return report.failures[0].diagnosis


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_has_its_name_and_what_looks_like_it_has_not(fault):
    _, _, backward, named, alike = FAULTS[fault]
    assert named in first_diagnosis(fault, backward)
    assert named not in first_diagnosis(fault, alike)


# ---- the program that faults are planted in


def loop(x, u):
    def step(carry, now):
        h, total = carry
        h = jnp.tanh(now @ u + h)
        return (h, total + jnp.sum(h)), h[::-1]

    return jax.lax.scan(step, (jnp.zeros_like(x[0]), jnp.zeros((), x.dtype)), x, reverse=True)


REPLAYED = {
    "a loop": (loop, (normal(1, 5, 3), normal(2, 3, 3))),
    "gather, scatter": (lambda x, i: jnp.zeros_like(x).at[i].add(x[i[::-1]] ** 2), (normal(1, 6, 3), ids)),
    "places in rows": (lambda x, i: along(x, i), (normal(1, 5, 6), labels(2, 15, 6).reshape(5, 3))),
    "places outside": (lambda x, i: x.at[i].get(mode="fill", fill_value=1) + x.at[i].get(mode="clip"), (x, ids + 2)),
    "windows": (lambda x: x[jnp.arange(3)[:, None] + jnp.arange(3)[None], 1:3], (x,)),
    "sorted, cumulated": (lambda x: jnp.cumsum(jnp.sort(x, axis=0)[::-1], axis=1), (x,)),
    "solve": (jnp.linalg.solve, (square + 4 * jnp.eye(4, dtype=square.dtype), normal(5, 4, 2))),
    "products": (lambda a, b: jnp.einsum("nij,nkj->ikn", a, b), (normal(1, 3, 2, 4), normal(2, 3, 5, 4))),
    "masks, powers": (lambda m, x: jnp.where(m[:, None], jnp.abs(x) ** 1.5, jnp.clip(x, -0.5, 0.5)), (mask, x)),
    "statistics": (lambda x: jax.nn.softmax(x / jnp.std(x, axis=0, keepdims=True)), (x,)),
}


def replayed(name):
    """(the program, the truth at a point)"""
    function, args = REPLAYED[name]
    layout = layout_of("test", tuple(f"args[{i}]" for i in range(len(args))), args)
    active, fixed = layout.split(args)
    subject = Differentiated(function, layout)
    floats = jax.tree.leaves(jax.eval_shape(function, *args))
    w = [np.asarray(normal(7 + i, *out.shape), np.float64) for i, out in enumerate(floats)]
    point = Point([np.asarray(leaf) for leaf in active], (fixed, {}), w)
    with WIDE.scope():
        truth = subject(*WIDE.operands(point)).gradients
    return Backward(subject, WIDE, [point]), [np.asarray(g) for g in truth]


@pytest.mark.parametrize("name", REPLAYED)
def test_a_gradient_is_replayed_as_it_is(name):
    backward, truth = replayed(name)
    for place, g in enumerate(truth):
        np.testing.assert_allclose(backward.returned(None, 0, place), g, rtol=1e-10, atol=1e-12)


def test_what_is_replayed_wrongly_explains_nothing(monkeypatch):
    _, _, backward, named, _ = FAULTS["a part"]
    monkeypatch.setitem(replay._NUMPY, "tanh", lambda p, x: np.tanh(x) + 0.01)
    assert first_diagnosis("a part", backward) == ""
    assert named


def test_a_long_loop_stays_a_single_operation():
    function = lambda x: jax.lax.scan(lambda h, now: (jnp.tanh(h + now), h), jnp.zeros((), x.dtype), x)[1]
    layout = layout_of("test", ("x",), (normal(1, 4000),))
    point = Point([np.asarray(normal(1, 4000))], ([], {}), [np.ones(4000)])
    kinds = [op.kind for op in Backward(Differentiated(function, layout), WIDE, [point]).program.operations]
    assert kinds.count("scan") == 2 and len(kinds) < 100


# ---- regions


def region(change, *, key=0):
    """What is said of the gradient of sin where `change` made something else of it."""
    draws, got = [], []
    for scale in (1.0, 0.7):
        own = np.asarray(scale * normal(3, 6, 4), np.float64)
        w = np.random.default_rng([key, int(10 * scale)]).standard_normal(own.shape)
        draws.append(Draw(Point([own], ([], {}), [w]), [np.sin(own)], [w * np.cos(own)]))
        got.append(change(own, w * np.cos(own)))
    return region_of(0, layout_of("test", ("x",), (normal(3, 6, 4),)), draws, got)


def test_an_error_everywhere_has_no_place():
    assert region(lambda x, g: g + 0.1) == ("", "")


def test_an_error_at_random_has_no_place():
    hit = np.random.default_rng(1).random((6, 4)) < 0.3
    assert region(lambda x, g: np.where(hit, -g, g)) == ("", "")


def test_a_place_that_moves_with_the_values_is_told_by_the_values():
    assert region(lambda x, g: np.where(np.abs(x) > 1, 0, g)) == (
        "is zero, and should not be,",
        "where x is above 1 or below -1",
    )


def test_a_single_entry():
    hit = np.zeros((6, 4), bool)
    hit[2, 3] = True
    assert region(lambda x, g: np.where(hit, 3 * g, g)) == ("is 3 times what it should be", "at [2, 3] alone")


def test_a_reference_that_is_not_replayed_keeps_its_other_names(monkeypatch):
    def broken(*_, **__):
        raise NotImplementedError("nothing like it")

    monkeypatch.setattr("fdl.check.backward.Program", broken)
    op = op_of(lambda x: 0.3 * jnp.sin(x), lambda args, g: (0.3 * g * jnp.cos(args[0]) * 1.7,))
    (said,) = {f.diagnosis for f in check.gradients(op, x, modes="quick").failures}
    assert said == "dx is 1.7 times what it should be"
