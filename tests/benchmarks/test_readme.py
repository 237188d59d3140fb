"""The blocks of the README are what the stored results give; every missed target is explained."""

import re

import pytest

from benchmarks import _explained, _readme, _store
from benchmarks._command import main
from benchmarks._figures import RENDERERS
from benchmarks._rows import Row, Settings, judged, memory_rows
from benchmarks._store import Refused
from benchmarks._worker import FOLDER

README = FOLDER.parent / "README.md"


def timed(work, variant, peer, ratio, target=None):
    row = Row(work, "step", variant, peer, "timed", seconds=ratio * 1e-5, ratio=ratio, spread=0.1, target=target)
    row.ratio_quartiles, row.reached = [0.9 * ratio, 1.1 * ratio], None if target is None else ratio >= target
    return row


def trained(work, *peers):
    return [timed(work, "fdl", "fdl", 1.0), *(timed(work, name, name.partition(", ")[0], r) for name, r in peers)]


def stored():
    tool = Row("zoo", "case", "fdl quick", "fdl", "measured", reached=True)
    tool.figures = {"wrong": 9, "caught": 9, "named": 8, "right": 5, "alarms": 0, "undecided": 1, "seconds": 0.25}
    other = Row("zoo", "case", "chex", "chex", "measured", figures={**tool.figures, "caught": 6.0, "alarms": 2.0})
    trap = [
        Row("CTC: a | b", "example", "fdl", "fdl", "ok", "because", "ok", "1; 2"),
        Row("CTC: a | b", "example", "Keras", "Keras", "wrong", "", "**3**; 2"),
        Row("CTC: a | b", "example", "optax", "optax", "-", "", "-"),
    ]
    gru = "gru T 1000 D 64"
    rows = {
        "mlp": [*trained("small", ("PyTorch, 1 thread", 12.0), ("PyTorch, all threads", 0.984)), *trained("wide")],
        "sweep": trained("32 x small", ("torch.func.vmap, 1 thread", 7.0)),
        "conv": [
            *trained("A, forward", ("lax autodiff, a call", 0.5), ("PyTorch, NCHW", 0.7)),
            *trained(
                "A, forward and backward",
                ("lax autodiff, a call", 2.5),
                ("lax autodiff in a loop", 33.0),
                ("PyTorch, NCHW", 0.95),
                ("PyTorch, channels last", 1.4),
            ),
        ],
        "convnet": trained("LeNet", ("lax autodiff, a jitted step", 1.3), ("lax autodiff in a scan", 5.9)),
        "pool": trained("max", ("JAX", 17.0), ("PyTorch, 1 thread", 0.5)),
        "norm": trained("layer norm", ("autodiff", 2.0)),
        "gru": [
            *trained(f"{gru}, forward", ("autodiff, unroll 1", 0.9)),
            *trained(f"{gru}, forward and backward", ("autodiff, unroll 4", 2.4), ("Keras", 1.6), ("PyTorch", 3.7)),
            *memory_rows(gru, {"fdl": 47 * 2.0**20, "states": 16 * 2.0**20, "autodiff": 102 * 2.0**20}),
        ],
        "linear_cross_entropy": [
            *trained("linear N2 D2 V32768", ("optax", 1.1), ("PyTorch, 1 thread", 1.9)),
            *memory_rows("linear N2 D2 V32768", {"fdl": 2.0**20, "optax": 512 * 2.0**20}, {"optax": 10.0}),
        ],
        "checkers": [tool, other],
        "traps": trap,
    }
    return {name: _store.section(given, Settings(), 1.0) for name, given in rows.items()}


WANTED = {
    "mlp": ["| **fdl** | 10 | 1.0 | 10 | 1.0 |", "| PyTorch (1 thread; all threads) | 120; 9.84 | 12; 0.98 | - | - |"],
    "sweep": ["| torch.func.vmap (1 thread) | 70 | 7.0 |"],
    "conv": [
        "| LeNet | 1.3; in a loop 5.9 | - |",
        "| A | 2.5; in a loop 33 | 0.95 |",
        "| max | 17 | 0.50 |",
        "| layer norm | 2.0 | - |",
        "Forward alone, convolutions: `lax` 0.50, PyTorch 0.70.",
    ],
    "gru": ["| 1,000, 64 | 1.6 (Keras) | 3.7 | 47, 16, 102 |", "Forward alone: JAX 0.90."],
    "linear_cross_entropy": ["| 32,768 classes | 1.0 MiB, of 512 | 1.1 | - | 1.9 |"],
    "checkers": [
        "| **fdl.check quick** | 9 | 0 | 8 | 1 | 0.25 |",
        "| `chex.assert_numerical_grads` | 6 | 2 | - | 1 | 0.25 |",
    ],
    "traps": [
        "<summary>fdl is right in 1 of 1, Keras in 0 of 1, optax not run</summary>",
        "| CTC | a \\| b | 1; 2 | ok | **3**; 2 | - | because |",
    ],
    "missed": ["All of 2 targets are reached."],
}


@pytest.mark.parametrize("name", WANTED)
def test_a_block_is_what_was_stored(name):
    made = RENDERERS[name](stored())
    assert not [line for line in WANTED[name] if line not in made.splitlines() and line not in made], made
    tables = [line for line in made.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in tables}) <= 1
    assert name == "missed" or "`python -m benchmarks " in made and "jax" in made


def test_every_table_has_a_test():
    assert set(WANTED) | {"features"} == set(RENDERERS)


def test_rewriting_touches_the_blocks_alone_and_only_once(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(
        "# A\n\n<!-- figures mlp -->\nold\n<!-- end -->\ntext\n<!-- figures checkers -->\n<!-- end -->\nend\n"
    )
    assert _readme.rewrite(path, stored()) == ["mlp", "checkers"]
    text = path.read_text()
    assert text.startswith("# A\n\n<!-- figures mlp -->\n\n| loop |") and text.endswith("\n<!-- end -->\nend\n")
    assert "old" not in text and "\n<!-- end -->\ntext\n" in text
    assert _readme.rewrite(path, stored()) == [] and path.read_text() == text
    path.write_text(text.replace("| 0.98 |", "| 1.98 |").replace("12; 0.98", "12; 1.98"))
    assert _readme.rewrite(path, stored()) == ["mlp"] and path.read_text() == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- figures mlp -->\n", "has no <!-- end -->"),
        ("<!-- figures mlp -->\n<!-- figures gru -->\n<!-- end -->", "begins before"),
        ("<!-- figures speed -->\n<!-- end -->", "no figures are called speed"),
    ],
)
def test_marks_that_do_not_fit_are_refused(text, said):
    with pytest.raises(Refused, match=said):
        _readme.rewritten(text, stored())


def test_what_is_not_stored_is_refused_with_the_command(tmp_path, capsys):
    (tmp_path / "README.md").write_text("<!-- figures gru -->\n<!-- end -->")
    path = tmp_path / "r.json"
    _store.update(path, "one", stored()["mlp"])
    with pytest.raises(SystemExit) as stopped:
        main(["--readme", str(tmp_path / "README.md"), "--stored", str(path)])
    assert stopped.value.code == 2 and "python -m benchmarks gru" in capsys.readouterr().err


def test_a_missed_target_needs_a_sentence_and_a_sentence_a_row(monkeypatch):
    given = stored()
    given["mlp"].rows.append(timed("small", "Equinox", "Equinox", 1.5, target=2.0))
    given["traps"].rows.append(judged("CTC: c", "bad", False, "good"))
    text = "<!-- figures missed -->\n<!-- end -->"
    monkeypatch.setattr(_explained, "EXPLAINED", {})
    with pytest.raises(Refused, match="mlp, small, Equinox: missed, and not explained; traps, CTC: c, fdl: missed"):
        _readme.rewritten(text, given)
    why = {"mlp": (("small, Equinox", "It is slow."), (".*", "Second.")), "traps": (("CTC.*", "It is bad."),)}
    monkeypatch.setattr(_explained, "EXPLAINED", why)
    made, _ = _readme.rewritten(text, given)
    assert "2 of 4 targets are missed" in made
    assert (
        "| small | Equinox | 1.50 | >= 2 | It is slow. |" in made
        and "| CTC: c | fdl | bad | good | It is bad. |" in made
    )
    reached = stored()  # a row that reaches its target this time may keep its sentence
    reached["mlp"].rows.append(timed("small", "Equinox", "Equinox", 2.5, target=2.0))
    assert _explained.unexplained(reached) == []
    monkeypatch.setattr(_explained, "EXPLAINED", {"traps": (("CTD.*", "It is bad."),)})
    assert _explained.unexplained(stored()) == ["traps: 'CTD.*' explains no row"]


def test_the_readme_is_what_the_stored_results_give():
    results = _store.read(_store.RESULTS)
    _, changed = _readme.rewritten(README.read_text(encoding="utf-8"), results)
    assert not changed, f"python -m benchmarks --readme would rewrite {changed}"


def test_every_missed_target_of_the_stored_results_is_explained():
    assert _explained.unexplained(_store.read(_store.RESULTS)) == []
    assert set(_explained.EXPLAINED) <= {path.stem for path in FOLDER.glob("*.py")}


def test_a_picture_shows_every_peer_by_its_fastest_setting(tmp_path):
    pytest.importorskip("matplotlib", reason="needs fdl[lab]")
    from benchmarks import _plot

    panels = _plot.panels(stored())
    assert [len(works) for works in panels.values()] == [2, 1, 2, 2, 1, 1]
    by_name = {peer.name: peer for peer in _plot.peers()}
    rows = panels["Convolutional networks and layers"]["A"]
    assert {name: row.ratio for name, peer in by_name.items() if (row := _plot.fastest(peer, rows))} == {
        "JAX's gradients": 2.5,
        "the same in a loop": 33.0,
        "PyTorch": 0.95,
    }
    _plot.plot(stored(), tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000
    with pytest.raises(Refused, match="nothing that is stored was timed"):
        _plot.plot({"traps": stored()["traps"]}, tmp_path / "q.png")
