"""Recurrent weights between every pair of layouts: the same outputs and gradients by each library's own equations."""

import ast
import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.errors import InputError, InputTypeError
from tests.convert.cells import CELLS, D, I, N, T, close, drawn

PAIRS = [(cell, source, target) for cell, layouts in CELLS.items() for source in layouts for target in layouts]


def convert(cell, *args, **options):
    return getattr(fdl.convert, cell.split()[0])(*args, **options)


def weights_for(cell, source, target, dtype: Any = np.float64):
    """nnx has no bias beside h in a GRU: to go there it has to be 0."""
    weights = drawn(CELLS[cell][source][1], dtype=dtype)
    if cell != "gru" or target != "nnx" or source == "nnx":
        return weights
    beside_h = {
        "fdl": lambda w: w["b_s"],
        "torch_cell": lambda w: w["bias_hh"][2 * D :],
        "keras": lambda w: w[2][1, 2 * D :],
        "flax": lambda w: w["hn"]["bias"],
        "equinox": lambda w: w["bias_n"],
    }
    beside_h[source](weights)[:] = 0
    return weights


@functools.cache
def run_of(cell, layout):
    """(weights, x, state, dy) -> (the states of T steps, the gradients of weights, x and state)."""
    step, _ = CELLS[cell][layout]

    def over_time(weights, x, state):
        states = []
        for t in range(T):
            state = step(weights, x[:, t], state)
            states.append(state)
        return jnp.stack(states)

    def both(weights, x, state, dy):
        y, pull = jax.vjp(over_time, weights, x, state)
        return y, pull(dy)

    return jax.jit(both)


@pytest.mark.parametrize(("cell", "source", "target"), PAIRS)
def test_the_same_function_with_the_same_gradients(cell, source, target):
    weights = weights_for(cell, source, target)
    states = (2, N, D) if cell == "lstm" else (N, D)
    x, state, dy = drawn([(N, T, I), states, (T, *states)], seed=1)
    found = convert(cell, weights, source, target)
    assert jax.tree.map(np.shape, found) == CELLS[cell][target][1]
    y, (dweights, *others) = jax.tree.map(np.asarray, run_of(cell, source)(weights, x, state, dy))
    got_y, (got_dweights, *got_others) = jax.tree.map(np.asarray, run_of(cell, target)(found, x, state, dy))
    close((got_y, *got_others), (y, *others))
    if cell == "gru" and source == "nnx" != target:
        with pytest.raises(InputError, match="has no gradient of s_n"):
            convert(cell, dweights, source, target, gradients=True)
    else:
        close(convert(cell, dweights, source, target, gradients=True), got_dweights)


@pytest.mark.parametrize(("cell", "source", "target"), PAIRS)
def test_there_and_back_is_exact(cell, source, target):
    """Bit for bit, but for two biases that come back as their sum and 0: no less, and the same sum."""
    weights = weights_for(cell, source, target, np.float32)
    kept = jax.tree.map(np.copy, weights)
    there = convert(cell, weights, source, target)
    back = convert(cell, there, target, source)
    for array in jax.tree.leaves((there, back)):
        assert array.dtype == np.float32 and array.flags.c_contiguous
        assert not any(np.shares_memory(array, own) for own in jax.tree.leaves((weights, there)) if own is not array)
    np.testing.assert_equal(weights, kept)  # nothing was written into what came in
    two = lambda layout: layout == "torch_cell" or layout == "keras" and cell == "gru"
    if two(source) and not two(target):
        back, weights = (convert(cell, w, source, "fdl") for w in (back, weights))
    np.testing.assert_equal(back, weights)


@pytest.mark.parametrize(
    ("cell", "target", "arrays"),
    [
        ("gru before", "fdl", {"w": "w_z w_r w_n", "u": "u_z u_r u_n", "b": "b_z b_r b_n"}),  # z in its other meaning
        ("gru before", "fdl", {"w": "-w_z w_r w_n", "u": "-u_z u_r u_n", "b": "b_z b_r b_n"}),
        ("gru", "fdl", {"w": "w_z w_r w_n", "u": "u_r u_z u_n", "b": "b_z b_r b_n", "b_s": "s_n"}),
        ("gru", "fdl", {"w": "w_z w_r w_n", "u": "u_z u_r u_n", "b": "b_z b_r s_n", "b_s": "b_n"}),
        ("lstm", "fdl", {"w": "w_i w_r w_n w_o", "u": "u_i u_r u_n u_o", "b": "b_r b_i b_n b_o"}),
    ],
)
def test_the_comparison_sees_a_wrong_layout(cell, target, arrays, monkeypatch):
    module = sys.modules[f"fdl.convert.{cell.split()[0]}"]
    planted = tuple(
        dataclasses.replace(layout, arrays=arrays) if set(layout.arrays) == set(arrays) else layout
        for layout in module.LAYOUTS[target]
    )
    monkeypatch.setitem(module.LAYOUTS, target, planted)
    with pytest.raises(AssertionError):
        test_the_same_function_with_the_same_gradients(cell, "keras", target)


def test_two_biases_become_their_sum_and_the_sum_the_first_of_two():
    torch = drawn(CELLS["gru"]["torch_cell"][1])
    found = fdl.convert.gru(torch, "torch_cell")
    r, z, _ = np.split(torch["bias_ih"] + torch["bias_hh"], 3)
    np.testing.assert_array_equal(found["b"], np.concatenate([z, r, torch["bias_ih"][2 * D :]]))
    np.testing.assert_array_equal(found["b_s"], torch["bias_hh"][2 * D :])
    back = fdl.convert.gru(found, "fdl", "torch_cell")
    np.testing.assert_array_equal(back["bias_ih"], np.concatenate([r, z, torch["bias_ih"][2 * D :]]))
    np.testing.assert_array_equal(back["bias_hh"], np.concatenate([0 * r, 0 * z, torch["bias_hh"][2 * D :]]))


def test_weights_without_biases_stay_without_where_the_target_can():
    torch = {name: w for name, w in drawn(CELLS["gru"]["torch_cell"][1]).items() if "weight" in name}
    named = {f"{name}_l0": w for name, w in torch.items()}
    np.testing.assert_equal(fdl.convert.gru(torch, "torch_cell", "torch"), named)
    keras = fdl.convert.gru(torch, "torch_cell", "keras")
    assert [w.shape for w in keras] == [(I, 3 * D), (D, 3 * D)]
    np.testing.assert_equal(fdl.convert.gru(keras, "keras", "torch", reset_after=True), named)
    ours = fdl.convert.gru(torch, "torch_cell")
    assert not ours["b"].any() and not ours["b_s"].any()
    np.testing.assert_equal(fdl.convert.gru(ours, "fdl", "torch", bias=False), named)
    assert set(fdl.convert.gru(torch, "torch_cell", "equinox", bias=True)) == {
        "weight_ih",
        "weight_hh",
        "bias",
        "bias_n",
    }
    as_equinox = {**torch, "bias": None, "bias_n": None}
    np.testing.assert_equal(fdl.convert.gru(as_equinox, "equinox", "torch"), named)
    before = fdl.convert.gru(keras, "keras", "fdl", reset_after=False)
    assert set(before) == {"w", "u", "b"}
    np.testing.assert_array_equal(before["w"][:, :D], -keras[0][:, :D])


def test_peepholes():
    params = drawn({**CELLS["lstm"]["fdl"][1], "p": (3, D)})
    np.testing.assert_equal(fdl.convert.lstm(params, "fdl", "fdl"), params)
    with pytest.raises(InputError, match=r"p_i \(a peephole\), .* is not 0"):
        fdl.convert.lstm(params, "fdl", "keras")
    plain = {name: w for name, w in params.items() if name != "p"}
    open_gates = fdl.convert.lstm({**plain, "p": 0 * params["p"]}, "fdl", "keras")
    np.testing.assert_equal(open_gates, fdl.convert.lstm(plain, "fdl", "keras"))


# ---- several cells


def torch_stack(cell, layers, directions, dtype=np.float64):
    gates = {"gru": 3, "lstm": 4, "rnn": 1}[cell]
    shapes = {
        f"{name}_l{i}{suffix}": (gates * D, *((I if i == 0 else D * directions,) if name == "weight_ih" else size))
        for i in range(layers)
        for suffix in ("", "_reverse")[:directions]
        for name, size in (("weight_ih", ()), ("weight_hh", (D,)), ("bias_ih", ()), ("bias_hh", ()))
    }
    return drawn(shapes, dtype=dtype)


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (1, 2), (3, 1), (2, 2)])
def test_layers_and_directions_there_and_back(cell, layers, directions):
    weights = torch_stack(cell, layers, directions)
    ours = convert(cell, weights)
    for layout in sys.modules[f"fdl.convert.{cell}"].LAYOUTS:
        if (cell, layout) == ("gru", "nnx"):
            continue
        there = convert(cell, weights, "torch", layout)
        np.testing.assert_equal(convert(cell, there, layout, "fdl"), ours)
        np.testing.assert_equal(convert(cell, convert(cell, there, layout, "torch")), ours)


def test_the_containers_of_several_cells():
    stack = torch_stack("gru", 2, 2)
    ours = fdl.convert.gru(stack)
    assert {name: set(layer) for name, layer in ours.items()} == {
        f"parallel_{i}": {"forward", "backward"} for i in (0, 1)
    }
    model = fdl.serial(*[fdl.bidirectional(fdl.gru(D, "reset_after")) for _ in range(2)])
    wanted = jax.eval_shape(lambda: model.init(jax.random.key(0), (T, I), jnp.float64)[0])
    assert jax.tree.map(np.shape, ours) == jax.tree.map(lambda p: p.shape, wanted)
    assert list(fdl.convert.gru(torch_stack("gru", 2, 1))) == ["gru_0", "gru_1"]
    keras = fdl.convert.gru(stack, "torch", "keras")
    assert [len(layer) for layer in keras] == [6, 6] and len(fdl.convert.gru(keras[0], "keras", "fdl")) == 2
    flax = fdl.convert.gru(torch_stack("gru", 1, 2), "torch", "flax")
    assert {name: set(inner) for name, inner in flax.items()} == {"forward_rnn": {"cell"}, "backward_rnn": {"cell"}}
    alone = fdl.convert.gru(torch_stack("gru", 1, 1), "torch", "flax")
    np.testing.assert_equal(fdl.convert.gru({"cell": alone}, "flax", "fdl"), fdl.convert.gru(alone, "flax", "fdl"))
    # JAX sorts the names of a dict
    deep = fdl.convert.rnn(torch_stack("rnn", 12, 1))
    assert list(deep) != sorted(deep)
    np.testing.assert_equal(
        fdl.convert.rnn({n: deep[n] for n in sorted(deep)}, "fdl", "torch"), fdl.convert.rnn(deep, "fdl", "torch")
    )


# ---- the door


def changed(weights, **arrays):
    return {name: w for name, w in {**weights, **arrays}.items() if w is not ...}


CELL = drawn(CELLS["gru"]["torch_cell"][1])
STACK = torch_stack("gru", 2, 1)
KERAS = drawn(CELLS["gru"]["keras"][1])
untyped: Any = fdl.convert.gru
BEFORE = drawn(CELLS["gru before"]["fdl"][1])


class OnDevice:
    """An array that NumPy cannot read: a tensor that requires its gradient, is on a device, or in bfloat16."""

    dtype, shape, ndim = np.dtype(np.float64), (12, 4), 2

    def __array__(self, *args: Any, **options: Any) -> np.ndarray:
        raise RuntimeError("Can't call numpy()")


def cell_with(**arrays):
    return untyped(changed(CELL, **arrays), "torch_cell")


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (InputError, "convert.gru: source is 'pytorch', wanted one of fdl, torch", lambda: untyped(STACK, "pytorch")),
        (InputError, r"target is \['fdl'\], wanted one of", lambda: untyped(STACK, "torch", ["fdl"])),
        (InputError, "target is 'equinox', wanted one of", lambda: fdl.convert.rnn(STACK, "torch", "equinox")),
        (InputTypeError, "weights is list, wanted the dict", lambda: untyped(list(STACK.values()))),
        (InputTypeError, "weights is list, wanted a dict", lambda: untyped(KERAS, "torch_cell")),
        (InputTypeError, "weights is dict, wanted a list of arrays", lambda: untyped(CELL, "keras")),
        (InputError, "has 1 arrays, wanted .'kernel', 'recurrent_kernel', 'bias'., or", lambda: untyped(KERAS[:1], "keras")),
        (InputError, "take the module's prefix off", lambda: untyped({f"rnn.{n}": w for n, w in STACK.items()})),
        (InputError, "for the weights of one cell say torch_cell", lambda: untyped(CELL)),
        (InputError, r"has the layers {1: .'forward'.}, wanted 0, 1", lambda: untyped({n: w for n, w in STACK.items() if "l1" in n})),
        (InputError, r"has the layers {}", lambda: untyped({})),
        (InputError, "has 'encoder', wanted names with numbers.*pass a list", lambda: untyped({"encoder": BEFORE}, "fdl")),
        (InputError, "weights is empty", lambda: untyped([], "equinox")),
        (InputError, r"'bias_ih', 'weight_hh'\], wanted \['weight_ih'", lambda: cell_with(weight_ih=...)),
        (InputError, "has .*'weight_hr'.*wanted", lambda: fdl.convert.lstm({**torch_stack("lstm", 1, 1), "weight_hr_l0": np.ones((2, D))})),
        (InputTypeError, "weight_hh is list, wanted a NumPy array", lambda: cell_with(weight_hh=[[1.0]])),
        (InputTypeError, r"weight_hh is float64\[12, 4\].*detach\(\)", lambda: cell_with(weight_hh=OnDevice())),
        (InputTypeError, "weight_hh is int64.* wanted a floating", lambda: cell_with(weight_hh=np.ones((12, 4), int))),
        (InputTypeError, "float64.*float32.*cast one", lambda: cell_with(bias_ih=np.ones(12, np.float32))),
        (InputError, r"weight_ih has shape \[5, 12\], wanted \[3 x D, I\]", lambda: cell_with(weight_ih=CELL["weight_ih"].T)),
        (InputError, r"weight_hh has shape \[12, 5\], wanted \[3 x 4, 4\]", lambda: cell_with(weight_hh=np.ones((12, 5)))),
        (InputError, r"bias_ih has shape \[12, 1\], wanted \[3 x 4\]", lambda: cell_with(bias_ih=np.ones((12, 1)))),
        (InputError, r"bias has shape \[3, 12\], wanted \[2, 3 x 4\]", lambda: untyped([*KERAS[:2], np.ones((3, 12))], "keras")),
        (InputError, r"weight_ih has shape \[0, 5\]", lambda: cell_with(weight_ih=np.ones((0, 5)))),
        (InputError, "the reset after the product and the reset before.*say which", lambda: untyped(KERAS[:2], "keras")),
        (InputError, "are of the reset after.*reset_after wants the reset before", lambda: untyped(CELL, "torch_cell", reset_after=False)),
        (InputTypeError, "reset_after is int 1, wanted True or False", lambda: untyped(KERAS, "keras", reset_after=1)),
        (InputTypeError, "bias is str", lambda: untyped(STACK, bias="no")),
        (InputTypeError, "gradients is NoneType None", lambda: untyped(STACK, gradients=None)),
        (InputError, "reset before.*, which target 'torch' does not have.*one of fdl, keras", lambda: untyped(BEFORE, "fdl", "torch")),
        (InputError, r"layer 0 forward: s_n .a bias beside h. is not 0, wanted 0.*dense_h/kernel", lambda: untyped(STACK, "torch", "nnx")),
        (InputError, "s_n.* is not 0", lambda: untyped(STACK, "torch", "torch", bias=False)),
        (InputError, "bias is False, but target 'flax' always has biases", lambda: untyped(STACK, "torch", "flax", bias=False)),
        (InputError, "the gradients of b_r and s_r differ by", lambda: untyped(STACK, gradients=True)),
        (InputError, r"layer 1 has .*\[\(5, 4\)\], wanted \[\(4, 4\)\]", lambda: untyped([CELL, CELL], "torch_cell", "torch")),
        (InputError, "wanted both of .'forward_rnn', 'backward_rnn'.", lambda: untyped({"forward_rnn": {}}, "flax")),
    ],
)  # fmt: skip
def test_errors_at_the_door(error, message, call):
    with pytest.raises(error, match=message) as caught:
        call()
    assert caught.value.where.startswith("convert.")


def test_it_imports_none_of_the_libraries():
    """Only NumPy, the standard library and fdl's errors."""
    files = list(Path(fdl.convert.__file__).parent.glob("*.py"))
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    assert len(files) > 5 and "numpy" in names
    known = set(sys.stdlib_module_names) | {"numpy", "fdl"}
    assert {name.partition(".")[0] for name in names} <= known
    assert {name for name in names if name.startswith("fdl")} <= {"fdl.errors"} | {
        f"fdl.convert.{file.stem}" for file in files
    }


def test_arrays_of_jax_and_of_16_bits():
    import ml_dtypes

    weights = jax.tree.map(lambda w: jnp.asarray(w, jnp.bfloat16), CELL)
    found = fdl.convert.gru(weights, "torch_cell")
    assert all(isinstance(w, np.ndarray) and w.dtype == ml_dtypes.bfloat16 for w in found.values())
