"""The benchmarks of convolutions: their rows, their yardsticks against the sums of the definition, and what is unequal."""

import inspect

import jax
import numpy as np
import pytest

from benchmarks import conv, convnet
from benchmarks._compare import difference
from benchmarks._harness import Settings
from benchmarks.conv import CASES, Case
from benchmarks.convnet import CLASSES, Conv, Net

TINY = {"same": Case(2, 5, 3, 3, 4), "valid": Case(2, 6, 1, 5, 2, "VALID"), "even": Case(1, 5, 2, 2, 3)}


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(conv, "CASES", TINY)


def by_the_definition(case):
    """y[n, p, o] and its gradients, one number after the other."""
    c, a = TINY[case], {name: array.astype(np.float64) for name, array in conv.arrays(case).items()}
    lo = c.pads[0]
    y, dw, dx = np.zeros(a["dy"].shape) + a["b"], np.zeros(a["w"].shape), np.zeros(a["x"].shape)
    for n, p, q, i, j in np.ndindex(*a["dy"].shape[:3], c.kernel, c.kernel):
        row, column = p + i - lo, q + j - lo
        if 0 <= row < c.size and 0 <= column < c.size:
            y[n, p, q] += a["x"][n, row, column] @ a["w"][i, j]
            dw[i, j] += np.outer(a["x"][n, row, column], a["dy"][n, p, q])
            dx[n, row, column] += a["w"][i, j] @ a["dy"][n, p, q]
    return {"y": y, "dw": dw, "db": a["dy"].sum((0, 1, 2)), "dx": dx}


@pytest.mark.parametrize("case", TINY)
def test_the_yardstick_and_fdl_are_the_definition(tiny, case):
    wanted = by_the_definition(case)
    assert difference(conv.numpy_reference(case, True).result, wanted)[0] < 1e-13
    assert difference(conv.fdl_conv(case, True, loop=False).result, wanted)[0] < 2e-5


def test_a_loop_and_lax_give_the_same(tiny):
    wanted = conv.numpy_reference("same", True).result
    for trial in (conv.fdl_conv("same", True, loop=True), conv.lax_conv("same", True, loop=False)):
        assert difference(trial.result, wanted)[0] < 2e-5
    assert conv.fdl_conv("same", True, loop=True).units == conv.CALLS


def works(benchmark, monkeypatch, full):
    """What `run` would compare."""
    found = []
    monkeypatch.setattr(benchmark, "compare", lambda work, settings: found.append(work) or [])
    assert benchmark.run(Settings(full=full)) == []
    return found


@pytest.mark.parametrize(("full", "cases"), [(False, "ACF"), (True, "ABCDEFGH")])
def test_the_rows(monkeypatch, full, cases):
    found = works(conv, monkeypatch, full)
    texts = [f"{case} {CASES[case].text}" for case in cases]
    assert [work.name for work in found] == [f"{t}, forward{more}" for t in texts for more in ("", " and backward")]
    for work in found:
        names = [variant.name for variant in work.variants]
        assert names[0] == "fdl, inside a loop" and {"Flax", "Keras", "lax autodiff, a call"} < set(names)
        assert sum(name.startswith("PyTorch") for name in names) == 4
        assert ("lax autodiff in a loop" in names) == (work.name[0] in "ABCG")
        assert ("fdl, inside a loop, no Winograd" in names) == (work.name[0] in "DEFH")


@pytest.mark.parametrize("benchmark", [conv, convnet])
def test_every_variant_takes_its_arguments_and_is_of_one_name(monkeypatch, benchmark):
    for work in works(benchmark, monkeypatch, True):
        assert len({variant.name for variant in work.variants}) == len(work.variants)
        for variant in work.variants:
            inspect.signature(variant.setup).bind(**work.arguments, **variant.arguments)


@pytest.mark.parametrize("part", ["y", "dw", "db", "dx"])
def test_one_part_in_ten_thousand_is_unequal(tiny, monkeypatch, part):
    monkeypatch.setattr(conv, "DEFAULT", ("same",))
    _, work = works(conv, monkeypatch, False)
    result = work.reference(**work.arguments).result
    off, where = difference(result | {part: result[part] * (1 + 1e-4)}, result)
    assert off > work.tolerance and where == f"result/{part}"


def test_the_steps_of_a_network_and_that_one_step_less_is_unequal(monkeypatch):
    monkeypatch.setattr(convnet, "NETS", {"tiny": Net((6, 6, 1), (Conv(3, 2, pool=True),), (5, CLASSES))})
    monkeypatch.setattr(convnet, "TARGETS", {"tiny": (1, 1, 1, 1)})
    monkeypatch.setattr(convnet, "TOLERANCES", {"tiny": max(convnet.TOLERANCES.values())})
    (work,) = works(convnet, monkeypatch, False)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        wanted, got = convnet.reference("tiny").result, convnet.fdl_steps("tiny").result
        assert difference(got, wanted)[0] < work.tolerance
        monkeypatch.setattr(convnet, "STEPS", convnet.STEPS - 1)
        short = convnet.fdl_steps("tiny").result
    last = difference(short | {"losses": got["losses"]}, wanted)
    assert last[0] > work.tolerance, last
