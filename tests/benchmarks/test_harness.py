"""The command and the comparison: unequal results, absent peers, failures. Nothing here looks at a time."""

import json

import numpy as np
import pytest

from benchmarks import _rows, _store, _table, _worker
from benchmarks._command import discover, headline, main
from benchmarks._compare import difference, summarize
from benchmarks._rows import Row
from benchmarks._table import table

EXAMPLE = '''
"""Adding up: the claim.

More of it.
"""

from benchmarks._harness import Trial, Variant, Work, compare


def oracle(size):
    return Trial({"total": sum(range(size)), "parts": {"n": [size]}})


def honest(size):
    print("a library that talks")
    return Trial({"total": float(sum(range(size))), "parts": {"n": [size]}}, lambda: None, units=10)


def wrong(size):
    return Trial({"total": 1.001 * sum(range(size)), "parts": {"n": [size]}}, lambda: None)


def broken(size):
    raise ValueError("this peer is broken")


def gone(size):
    import os

    os._exit(3)


def run(settings):
    peers = [Variant("peer", honest, setting="one", target=1e9), Variant("peer", honest, setting="two")]
    variants = [Variant("fdl", honest), *peers, EXTRA]
    return compare(Work("adding", "sum", variants, oracle, {"size": 7}), settings)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of benchmarks: `make(extra)` writes one with one more variant."""
    monkeypatch.setattr(_worker, "SHORTEST", 0.0)
    (tmp_path / "_private.py").write_text("raise AssertionError('never imported')\n")

    def make(extra='Variant("last", honest)', name="adding"):
        (tmp_path / f"{name}.py").write_text(EXAMPLE.replace("EXTRA", extra))
        return tmp_path

    return make


def run(folder, tmp_path, *arguments):
    """The exit code of the command, and what it wrote to its file, by variant."""
    out = tmp_path / "out" / "result.json"
    code = main(["--repeats", "1", "--out", str(out), *arguments], folder)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    written = json.loads(out.read_text(), parse_constant=refuse)["sections"]["adding"]
    return code, written, {row.variant: row for row in _store.read(out)["adding"].rows}


def test_equal_results_are_timed(folder, tmp_path, capsys):
    code, written, rows = run(folder(), tmp_path)
    assert code == 0
    assert {row.status for row in rows.values()} == {"timed"}
    assert all(row.seconds and row.ratio and row.rounds == 1 for row in rows.values())
    machine = written["machine"]
    assert machine["versions"]["numpy"] == np.__version__ and machine["cores"] >= 1
    assert not written["full"] and written["repeats"] == 1 and written["took"] > 0
    printed = capsys.readouterr().out
    assert "a library that talks" not in printed
    assert [line.split()[0] for line in printed.splitlines()[:5]] == ["work", "adding", "peer,", "peer,", "last"]


def test_an_unequal_result_is_not_timed_and_exits_with_1(folder, tmp_path, capsys):
    code, _, rows = run(folder('Variant("liar", wrong)'), tmp_path)
    assert code == 1
    assert rows["liar"].status == "unequal" and rows["liar"].seconds is None
    assert rows["liar"].difference == pytest.approx(1e-3)
    assert rows["fdl"].status == "timed"
    assert "result/total: differs by 0.001" in capsys.readouterr().err


def test_a_missing_peer_is_listed(folder, tmp_path, capsys):
    code, _, rows = run(folder('Variant("absent", broken, requires=("numpy", "no_such_library"))'), tmp_path)
    assert code == 0
    assert rows["absent"].status == "not installed"
    printed = next(line for line in capsys.readouterr().out.splitlines() if "absent" in line)
    assert "not installed" in printed and printed.endswith("no no_such_library: pip install 'fdl[bench]'")


@pytest.mark.parametrize(("setup", "why"), [("broken", "this peer is broken"), ("gone", "exit code 3")])
def test_a_variant_that_fails_exits_with_1(folder, tmp_path, setup, why):
    code, _, rows = run(folder(f'Variant("failing", {setup})'), tmp_path)
    assert code == 1
    assert rows["failing"].status == "failed" and why in rows["failing"].note
    assert rows["fdl"].status == "timed"


def test_a_failing_reference_fails_all(folder, tmp_path):
    made = folder()
    file = made / "adding.py"
    file.write_text(file.read_text().replace("def oracle(size):", "def oracle(size):\n    return 1 / 0"))
    code, _, rows = run(made, tmp_path)
    assert code == 1
    assert all(row.status == "failed" and "ZeroDivisionError" in row.note for row in rows.values())


def test_discovery_and_list(folder, capsys):
    made = folder(name="second")
    folder(name="first")
    assert list(discover(made)) == ["first", "second"]
    assert main(["--list"], made) == 0
    assert capsys.readouterr().out == "first   Adding up: the claim.\nsecond  Adding up: the claim.\n"


@pytest.mark.parametrize("arguments", [["nothing"], ["adding", "--repeats", "0"]])
def test_a_wrong_command_exits_with_2(folder, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments, folder())
    assert stopped.value.code == 2
    assert "adding" in capsys.readouterr().err or "--repeats" in arguments


def test_every_benchmark_here_says_what_it_claims():
    found = discover(_worker.FOLDER)
    assert "mlp" in found
    assert all(headline(path) for path in found.values())


@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        ({"a": [1.0, 2.0]}, 0.0),
        ({"a": [1.0, 2.2]}, 0.1),
        ({"a": [1.0]}, np.inf),
        ({"a": [1.0, np.nan]}, np.inf),
        ({"b": [1.0, 2.0]}, np.inf),
        ([1.0, 2.0], np.inf),
    ],
)
def test_difference(result, wanted):
    assert difference(result, {"a": np.array([1.0, 2.0])})[0] == pytest.approx(wanted)


def test_difference_from_zeros_is_absolute():
    assert difference(np.array([0.0, 1e-3]), np.zeros(2))[0] == pytest.approx(1e-3)


def row(peer, samples, target=None, crowd=None):
    counts = len(samples)
    crowd = crowd or [0.0] * counts
    return Row("work", "step", peer, peer, "timed", samples=samples, cpu=[1.0] * counts, crowd=crowd, target=target)


def test_ratio_is_within_rounds_and_a_peer_is_judged_by_its_fastest_setting():
    # in the second round the machine was twice as slow for everybody
    rows = [row("fdl", [1.0, 2.0, 1.0]), row("peer", [3.0, 6.0, 3.0], 4.0), row("peer", [5.0, 10.0, 5.0], 4.0)]
    summarize(rows)
    assert [r.ratio for r in rows] == [1.0, 3.0, 5.0]
    assert (rows[1].target, rows[1].reached) == (4.0, False)
    assert (rows[2].target, rows[2].reached) == (None, None)
    assert rows[1].missed and ">= 4    NO" in table(rows)


def test_no_ratios_without_fdl():
    rows = [row("fdl", []), row("peer", [1.0], 2.0)]
    summarize(rows)
    assert rows[1].seconds == 1.0 and rows[1].ratio is None and rows[1].reached is None


def test_the_quieter_half_of_the_rounds_counts():
    crowd = [0.0, 0.9, 0.1, 0.8]
    rows = [row("fdl", [1.0, 9.0, 1.0, 9.0], crowd=crowd), row("peer", [2.0, 9.0, 4.0, 90.0], crowd=crowd)]
    summarize(rows)
    assert (rows[0].seconds, rows[1].seconds, rows[1].ratio) == (1.0, 3.0, 3.0)
    assert rows[1].others == pytest.approx(0.05)


def test_a_busy_machine_is_said():
    rows = [row("fdl", [1.0]), row("peer", [1.0])]
    assert _table.warnings_of(rows) == []
    rows[1].others = 0.5
    assert [text.partition(" % ")[0] for text in _table.warnings_of(rows)] == ["work: other processes took 50"]


def test_time_text():
    assert [_rows.time_text(t) for t in (2.0, 0.0123, 1.234e-5, 5e-8)] == ["2 s", "12.3 ms", "12.3 us", "50 ns"]
