"""What holds for every Op of the table: proven in float64, budgeted in lower precision, in every mode, to second order."""

import functools
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.op import Op
from tests.concepts import CONCEPTS, Concept

ROWS = [(concept, options) for concept in CONCEPTS for options in concept.options]
IDS = [f"{concept.name}-{i}" for i, (concept, _) in enumerate(ROWS)]
every_concept = pytest.mark.parametrize(("concept", "options"), ROWS, ids=IDS)


def cotangent(key, out):
    """Random, never ones: a backward that ignores, sums or squares its cotangent shows."""
    leaves, structure = jax.tree.flatten(out)
    keys = jax.random.split(key, len(leaves))
    draw = lambda k, x: (0.3 + jax.random.normal(k, x.shape, jnp.float32)).astype(x.dtype)
    return jax.tree.unflatten(structure, [draw(k, x) for k, x in zip(keys, leaves, strict=True)])


def floats(tree):
    return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]


def assert_close(got, want, rtol):
    """Relative to the largest entry of each leaf."""
    got, want = floats(got), floats(want)
    assert len(got) == len(want) > 0
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(np.abs(b).max(initial=0), np.finfo(np.float64).tiny))


@every_concept
def test_every_cotangent_equals_autodiff_of_the_equation_in_float64(concept: Concept, options, getkey):
    op, args = concept.op.bind(**options), concept.arguments(getkey(), jnp.float64)
    dout = cotangent(getkey(), jax.eval_shape(op.equation, *args))

    @jax.jit  # one program: op by op, every test would compile dozens
    def all_ways(args, dout):
        out, residuals = op.forward(*args)
        cotangents = op.backward(residuals, dout)
        assert isinstance(cotangents, tuple) and len(cotangents) == len(args)
        fast_out, fast = jax.vjp(op, *args)
        want_out, want = jax.vjp(op.equation, *args)
        return (out, fast_out, want_out), (floats(cotangents), floats(fast(dout)), floats(want(dout)))

    (out, fast_out, want_out), (cotangents, fast, want) = all_ways(args, dout)
    assert_close(out, want_out, 1e-12)
    assert_close(fast_out, want_out, 1e-12)
    assert_close(cotangents, want, 1e-10)
    assert_close(fast, want, 1e-10)


once_per_concept = pytest.mark.parametrize("concept", CONCEPTS, ids=[f"{c.name}-{i}" for i, c in enumerate(CONCEPTS)])


@once_per_concept
def test_the_check_says_right(concept: Concept, getkey):
    args = concept.arguments(getkey(), jnp.float32)
    report = fdl.check.gradients(concept.op.bind(**concept.options[0]), *args, modes="quick")
    assert report.ok, str(report)


@once_per_concept
def test_a_planted_wrong_gradient_is_convicted(concept: Concept, getkey):
    """One entry of one leaf wrong by a thousandth of the largest: the tester must fail."""
    right, args = concept.op.bind(**concept.options[0]), concept.arguments(getkey(), jnp.float32)
    wrong_leaf = len(concept.name) % len(floats(args))  # first leaf here, last leaf there

    def backward(residuals, dout):
        # None leaves vanish from the tree and come back with it
        leaves, structure = jax.tree.flatten(right.backward(residuals, dout))
        flat = leaves[wrong_leaf].reshape(-1)
        largest = jnp.max(jnp.abs(flat))
        fault = jnp.asarray(1e-3, flat.dtype) * jnp.where(largest > 0, largest, jnp.ones_like(largest))
        wrong = flat.at[flat.size // 2].add(fault)
        leaves[wrong_leaf] = wrong.reshape(leaves[wrong_leaf].shape)
        return jax.tree.unflatten(structure, leaves)

    planted = Op(lambda *a: right.equation(*a), lambda *a: right.forward(*a), backward, name="planted")
    report = fdl.check.gradients(planted, *args, modes="quick", reference=right.equation)
    assert report.verdict == "wrong", str(report)


@pytest.mark.parametrize(
    ("concept", "options"),
    [
        # the elementwise ones are held to the truth, compiled as users do, at every 16-bit input elsewhere
        pytest.param(*row, marks=pytest.mark.optimized)
        if row[1] is row[0].options[0] and row[0].file != "layers/activations"
        else row
        for row in ROWS
    ],
    ids=IDS,
)
def test_lower_precision_stays_in_budget_and_keeps_the_dtype(concept: Concept, options, getkey):
    """The error against float64 on the same inputs, relative to the leaf's largest entry: 4 eps, which a sum of a few terms
    computed in float32 and rounded once cannot exceed in 16 bits; 64 eps of float32 in float32."""
    op, draw, dout_key = concept.op.bind(**options), getkey(), getkey()
    args = {dtype: concept.arguments(draw, dtype) for dtype in (jnp.float32, jnp.bfloat16, jnp.float16)}
    douts = {dtype: cotangent(dout_key, jax.eval_shape(op, *args[dtype])) for dtype in args}
    widen = lambda tree: jax.tree.map(
        lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )

    def both(args, dout):
        out, pull = jax.vjp(op, *args)
        want_out, want = jax.vjp(op.equation, *widen(args))
        return (out, want_out), (floats(pull(dout)), floats(want(widen(dout))))

    dtypes = list(args)
    results = jax.jit(lambda args, douts: [both(*pair) for pair in zip(args, douts, strict=True)])(
        [args[dtype] for dtype in dtypes], [douts[dtype] for dtype in dtypes]
    )
    for dtype, ((out, want_out), (got, want)) in zip(dtypes, results, strict=True):
        budget = float(jnp.finfo(dtype).eps) * (64 if dtype == jnp.float32 else 4)
        assert_close(out, want_out, budget)
        assert_close(got, want, budget)
        assert [x.dtype for x in got] == [x.dtype for x in floats(args[dtype])]
        if concept.file.startswith("layers"):
            # statistics beside the output are kept in float32
            assert all(x.dtype == dtype for x in floats(out[0] if isinstance(out, tuple) else out))
        else:
            assert all(x.dtype == jnp.float32 for x in floats(out)), "losses come out in float32"


@every_concept
def test_second_derivatives_equal_autodiff_of_the_equation(concept: Concept, options, getkey):
    op, args = concept.op.bind(**options), concept.arguments(getkey(), jnp.float64)
    dout = cotangent(getkey(), jax.eval_shape(op.equation, *args))
    leaves, structure = jax.tree.flatten(args)
    places = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.inexact)]
    directions = cotangent(getkey(), [leaves[i] for i in places])

    def slope(function, leaves):
        def of(moving):
            filled = list(leaves)
            for i, x in zip(places, moving, strict=True):
                filled[i] = x
            out = function(*jax.tree.unflatten(structure, filled))
            terms = jax.tree.map(lambda o, d: jnp.sum(d * o + 0.1 * d * o**2), out, dout)
            return functools.reduce(jnp.add, jax.tree.leaves(terms))

        def along(moving):
            return functools.reduce(
                jnp.add, [jnp.vdot(g, d) for g, d in zip(jax.grad(of)(moving), directions, strict=True)]
            )

        return jax.grad(along)([leaves[i] for i in places])

    got, want = jax.jit(lambda leaves: (slope(op, leaves), slope(op.equation, leaves)))(leaves)
    assert_close(got, want, 1e-9)


@every_concept
def test_vmap_agrees_with_a_loop(concept: Concept, options, getkey):
    op = concept.op.bind(**options)
    both = [concept.arguments(getkey(), jnp.float64) for _ in range(2)]
    douts = [cotangent(getkey(), jax.eval_shape(op.equation, *args)) for args in both]
    pull = lambda args, dout: floats([x for x in jax.vjp(op, *args)[1](dout) if x is not None])
    stack = lambda trees: jax.tree.map(lambda *xs: jnp.stack(xs), *trees)
    mapped, *loop = jax.jit(lambda both, douts: (
        jax.vmap(pull)(stack(both), stack(douts)), *(pull(args, dout) for args, dout in zip(both, douts, strict=True))
    ))(both, douts)  # fmt: skip
    assert_close(mapped, stack(loop), 1e-12)


def test_every_file_is_in_the_table():
    package = Path(fdl.__file__).parent
    paths = itertools.chain((package / "layers").iterdir(), (package / "losses").iterdir())
    files = {f"{path.parent.name}/{path.stem}" for path in paths if not path.name.startswith("_")}
    assert files - {concept.file for concept in CONCEPTS} == set(), "files without a row in tests/concepts.py"
    assert {c.file for c in CONCEPTS if "/" in c.file} - files == set(), "rows whose file is gone"


def test_every_op_is_in_the_map():
    mapped = {op for op in vars(fdl.ops).values() if isinstance(op, Op)}
    listed = {c.op for c in CONCEPTS if c.file.startswith("layers")}
    assert mapped == listed
