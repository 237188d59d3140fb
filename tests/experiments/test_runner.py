"""The runner of experiments, on toy experiments in a temporary folder: results, page, exit codes, damage."""

import base64
import importlib
import json
import math
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from experiments import _page, _runner, claim, not_run, relative_difference

ROOT = Path(__file__).parents[2]

GOOD = '''
"""A good toy.

Question: does it work?

Command: python -m experiments good

Expected: it does.

More to say.
"""
from experiments import Figure, Table, claim, not_run
from experiments._style import figure


def run(settings):
    yield "working"
    yield claim("small", 1e-13, "<", 1e-12, quantity="relative difference", source="a book")
    yield not_run("long one", "accuracy > 0.99", "only with --full")
    fig, axes = figure()
    axes.plot([0, 1], [0, settings.seed])
    yield Figure("A line", fig, "A line from 0 to the seed.")
    yield Table("Numbers", ("name", "value"), [("one", 1), ("third", 1 / 3), ("none", float("nan"))])
'''
BAD = '''
"""A failing toy."""
from experiments import claim


def run(settings):
    yield claim("too large", 1e-11, "<", 1e-12, quantity="relative difference")
    yield claim("diverged", float("nan"), "<", 1.0, quantity="loss")
    yield claim("overflow", float("inf"), "<", 1.0, quantity="loss")
'''
RAISES = '''
"""A toy that stops."""
from experiments import claim


def run(settings):
    yield claim("before", 1, "==", 1)
    raise RuntimeError("half <b>way</b>")
'''


class Toys:
    """Calling it writes the given toy experiments and runs the command line on them."""

    def __init__(self, folder):
        self.folder, self.out = folder / "toys", folder / "results"
        self.folder.mkdir()

    def __call__(self, *argv, **sources):
        for name, source in sources.items():
            (self.folder / f"{name}.py").write_text(source, encoding="utf-8")
        return _runner.main([*argv, "--out", str(self.out)], folder=self.folder, default=("good",))


@pytest.fixture
def toys(tmp_path):
    return Toys(tmp_path)


def result(toys, name):
    """The stored result, read as strictly as JSON is defined."""
    text = (toys.out / name / "result.json").read_text(encoding="utf-8")
    return json.loads(text, parse_constant=lambda token: pytest.fail(f"{token} is not JSON"))


def page(toys):
    return (toys.out / "index.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """All start tags with their attributes, and the text outside of style elements."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


# ---- result.json and the page


def test_a_good_run_writes_the_result_and_exits_with_0(toys, capsys):
    assert toys("good", "--seed", "7", good=GOOD) == 0
    got = result(toys, "good")
    assert got["experiment"] == "good" and got["seed"] == 7 and got["error"] is None
    assert got["seconds"] >= 0 and isinstance(got["device"], str)
    assert {"python", "jax", "fdl"} <= got["versions"].keys()
    first, second = got["claims"]
    assert {k: first[k] for k in ("name", "source", "expected", "measured", "verdict")} == {
        "name": "small",
        "source": "a book",
        "expected": "relative difference < 1e-12",
        "measured": 1e-13,
        "verdict": "holds",
    }
    assert second["verdict"] == "not run" and second["measured"] is None and second["note"] == "only with --full"
    assert got["question"] == "does it work?" and got["expected"] == "it does." and got["about"] == "More to say."
    assert got["tables"][0]["rows"] == [["one", 1], ["third", 1 / 3], ["none", "nan"]]
    assert (toys.out / "good" / got["figures"][0]["file"]).read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "working" in printed and "holds" in printed and "\x1b[" not in printed


def test_no_name_runs_the_default(toys):
    assert toys(good=GOOD, bad=BAD) == 0
    assert (toys.out / "good").is_dir() and not (toys.out / "bad").exists()


def test_a_failing_claim_exits_with_1_and_is_shown_as_failing(toys):
    assert toys("bad", bad=BAD) == 1
    assert [c["verdict"] for c in result(toys, "bad")["claims"]] == ["fails"] * 3
    assert '<span class="badge fails">fails</span>' in page(toys)


def test_numbers_that_json_lacks_are_strings(toys):
    toys("bad", bad=BAD)
    assert [c["measured"] for c in result(toys, "bad")["claims"]] == [1e-11, "nan", "inf"]


def test_the_page_shows_all_results_also_of_earlier_runs(toys):
    toys("good", good=GOOD)
    toys("bad", bad=BAD)
    articles = [attrs["id"] for tag, attrs in Tags(page(toys)).tags if tag == "article"]
    assert articles == ["bad", "good"]
    assert "does it work?" in page(toys) and "relative difference &lt; 1e-12" in page(toys)


def test_figures_are_inlined_and_the_page_needs_no_other_file(toys):
    toys("good", good=GOOD)
    tags = Tags(page(toys)).tags
    (image,) = [attrs for tag, attrs in tags if tag == "img"]
    head, data = image["src"].split(",", 1)
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == (toys.out / "good" / "a-line.png").read_bytes()
    assert image["alt"] == "A line from 0 to the seed."
    assert not [tag for tag, _ in tags if tag in ("link", "script", "iframe")]
    assert all(attrs.get(key, "#").startswith(("#", "data:")) for _, attrs in tags for key in ("href", "src"))


def test_hostile_text_is_escaped(toys):
    hostile = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
    source = f'''
"""{hostile[:25]}"""
from experiments import Table, claim
TEXT = {hostile!r}
def run(settings):
    yield claim(TEXT, TEXT, "==", TEXT, quantity=TEXT, source=TEXT, note=TEXT)
    yield Table(TEXT, (TEXT,), [(TEXT,)], TEXT)
    raise RuntimeError(TEXT)
'''
    assert toys("hostile", hostile=source) == 1
    parsed = Tags(page(toys))
    assert not [tag for tag, _ in parsed.tags if tag in ("script", "img")]
    assert not [attrs for _, attrs in parsed.tags if any(key.startswith("on") for key in attrs)]
    assert parsed.text.count("<script>alert(1)</script>") >= 9


def test_results_cannot_name_files_outside_their_folder(toys):
    toys("good", good=GOOD)
    stored = result(toys, "good")
    secret = toys.out / "secret.png"
    secret.write_bytes((toys.out / "good" / "a-line.png").read_bytes())
    stored["figures"][0]["file"] = "../secret.png"
    (toys.out / "good" / "result.json").write_text(json.dumps(stored))
    assert "is missing" in _page.render(toys.out)


# ---- experiments that go wrong


def test_an_experiment_that_raises_is_recorded_and_the_others_still_run(toys):
    assert toys("raises", "good", raises=RAISES, good=GOOD) == 1
    got = result(toys, "raises")
    assert got["error"]["type"] == "RuntimeError" and got["error"]["message"] == "half <b>way</b>"
    assert "raise RuntimeError" in got["error"]["traceback"]
    assert [c["name"] for c in got["claims"]] == ["before"]
    assert result(toys, "good")["error"] is None
    assert "half &lt;b&gt;way" in page(toys)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("def run(settings:\n", "SyntaxError"),
        ("import a_module_that_is_not_there", "ModuleNotFoundError"),
        ("x = 1", "TypeError"),
        ("def run(settings): return None", "TypeError"),
        ("def run(settings): yield 3.5", "TypeError"),
        ("def run(settings): raise SystemExit(0)\n", "SystemExit"),
        ("def run(settings): yield from __import__('experiments').claim('c', [1, 2], '<', 1)", "TypeError"),
    ],
)
def test_whatever_goes_wrong_in_a_script_is_an_error_of_that_script(toys, source, kind):
    assert toys("broken", "good", broken=source, good=GOOD) == 1
    assert result(toys, "broken")["error"]["type"] == kind
    assert result(toys, "good")["error"] is None


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"experiment": "old"}',
        b'{"experiment": "old", "seconds": NaN}',
        b"[" * 100_000,
        b'{"experiment":"old","seconds":1,"device":"","versions":{},"seed":0,"claims":[{"name":"x"}]}',
        b'{"experiment":"old","seconds":1,"device":"","versions":{},"seed":0,"claims":[],"tables":[{"title":"t"}]}',
        b'{"experiment":"old","seconds":1,"device":"","versions":{},"seed":0,"claims":[],"figures":7}',
    ],
)
def test_a_damaged_earlier_result_is_shown_as_damaged(toys, damage):
    (toys.out / "old").mkdir(parents=True)
    (toys.out / "old" / "result.json").write_bytes(damage)
    assert toys("good", good=GOOD) == 0
    assert '<span class="badge damaged">damaged</span>' in page(toys)
    assert (toys.out / "old" / "result.json").read_bytes() == damage


def test_the_least_that_the_contract_asks_for_can_be_shown(toys):
    (toys.out / "other").mkdir(parents=True)
    claims = [{"name": "c", "source": "s", "expected": "e", "measured": 1, "verdict": "holds"}]
    least = {"experiment": "other", "seconds": 1, "device": "d", "versions": {}, "seed": 0, "claims": claims}
    (toys.out / "other" / "result.json").write_text(json.dumps(least))
    assert toys("good", good=GOOD) == 0
    assert "damaged</span>" not in page(toys)


def test_an_interrupt_keeps_what_was_finished(toys, capsys):
    stops = "def run(settings):\n    yield 'on'\n    raise KeyboardInterrupt"
    assert toys("good", "stops", good=GOOD, stops=stops) == 130
    assert result(toys, "good")["error"] is None and not (toys.out / "stops").exists()
    assert "interrupted" in capsys.readouterr().err


# ---- the command line


def test_discovery_needs_no_registration_and_skips_private_files(toys):
    for name in ("beta", "alpha", "_style", "__init__", "__main__"):
        (toys.folder / f"{name}.py").write_text("")
    (toys.folder / "notes.md").write_text("")
    assert list(_runner.discover(toys.folder)) == ["alpha", "beta"]


def test_list_describes_without_running(toys, capsys):
    assert toys("--list", good=GOOD, broken="def run(:", silent="raise RuntimeError") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split(None, 1) == ["good", "A good toy"] and len(lines) == 3
    assert not toys.out.exists()


def test_all_runs_every_experiment_and_a_dash_is_an_underscore(toys):
    assert toys("--all", good=GOOD, two_words=GOOD) == 0
    assert (toys.out / "two_words").is_dir()
    assert toys("two-words") == 0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nonsense"], ["'nonsense'", "good", "--list"]),
        (["good", "--data-dir", "/no/such/folder"], ["--data-dir", "/no/such/folder"]),
        (["good", "--seed", "-1"], ["--seed", "-1"]),
    ],
)
def test_a_bad_argument_is_one_clear_line_and_2(toys, capsys, argv, words):
    assert toys(*argv, good=GOOD) == 2
    message = capsys.readouterr().err.strip()
    assert "\n" not in message and all(word in message for word in words)
    assert not (toys.out / "good").exists()


def test_an_output_folder_that_is_a_file_is_2(toys, capsys):
    toys.out.write_text("")
    assert toys("good", good=GOOD) == 2
    assert "--out" in capsys.readouterr().err


def test_a_file_in_the_place_of_a_result_folder_is_2(toys, capsys):
    toys.out.mkdir()
    (toys.out / "good").write_text("")
    assert toys("good", good=GOOD) == 2
    assert "good" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_extra_is_named(toys, capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert toys("good", good=GOOD) == 2
    message = capsys.readouterr().err
    assert package in message and "pip install 'fdl[lab]'" in message


def test_the_first_line_comes_at_once(tmp_path):
    started = time.perf_counter()
    command = [sys.executable, "-X", "importtime", "-m", "experiments", "--list"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert time.perf_counter() - started < 10  # loose: the imports below are the point, a loaded machine is not
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert not imported & {"jax", "numpy", "matplotlib", "jinja2"}


def test_every_real_experiment_states_question_command_and_expectation():
    for name, path in _runner.discover(ROOT / "experiments").items():
        described = _runner.describe(path)
        assert all(described[key] for key in ("title", "question", "command", "expected")), name
        assert f"python -m experiments {name}" in described["command"].replace("-", "_").replace(
            "python _m", "python -m"
        )


# ---- claims


@pytest.mark.parametrize(
    ("measured", "comparison", "bound", "verdict", "expected"),
    [
        (1e-13, "<", 1e-12, "holds", "< 1e-12"),
        (1e-12, "<", 1e-12, "fails", "< 1e-12"),
        (1e-12, "<=", 1e-12, "holds", "<= 1e-12"),
        (math.nextafter(0.96, 0), ">=", 0.96, "fails", ">= 0.96"),
        (0.96, ">", 0.96, "fails", "> 0.96"),
        (6, "==", 6, "holds", "== 6"),
        (True, "==", True, "holds", "== True"),
        ("right", "==", "right", "holds", "== right"),
        ("wrong", "==", "right", "fails", "== right"),
        (90.5, "in", (80, 100), "holds", "in [80, 100]"),
        (79.9, "in", (80, 100), "fails", "in [80, 100]"),
        (math.inf, ">", 1.0, "holds", "> 1"),
        (math.nan, "<", 1.0, "fails", "< 1"),
        (math.nan, ">", 1.0, "fails", "> 1"),
        (math.nan, "!=", 1.0, "fails", "!= 1"),
        (math.nan, "in", (0, 1), "fails", "in [0, 1]"),
        (np.float32(0.5), "<", np.float64(1.0), "holds", "< 1"),
        (np.array([[3]]), "==", 3, "holds", "== 3"),
    ],
)
def test_a_verdict_is_the_comparison(measured, comparison, bound, verdict, expected):
    made = claim("c", measured, comparison, bound, quantity="x")
    assert (made.verdict, made.expected) == (verdict, f"x {expected}")


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ((np.zeros(3), "<", 1), TypeError),
        ((None, "==", 1), TypeError),
        (("a", "<", "b"), TypeError),
        ((1, "~", 1), ValueError),
        ((1, "<", math.nan), ValueError),
        ((1, "in", (1, 2, 3)), ValueError),
    ],
)
def test_what_cannot_be_judged_is_refused(arguments, kind):
    with pytest.raises(kind, match="'c'"):
        claim("c", *arguments)


def test_not_run_says_why():
    made = not_run("c", "accuracy > 0.9", "no data", source="a paper")
    assert (made.verdict, made.measured, made.note, made.source) == ("not run", None, "no data", "a paper")


def test_relative_difference():
    assert relative_difference([1.0, 2.0], [1.0, 4.0]) == 0.5
    assert relative_difference([0.0], [0.0]) == 0.0
    assert relative_difference([1e-300], [0.0]) == math.inf
    assert math.isnan(relative_difference([math.nan, 1.0], [1.0, 1.0]))
    assert math.isnan(relative_difference([1.0, 1.0], [math.nan, 1.0]))
    with pytest.raises(ValueError, match="shape"):
        relative_difference([1.0], [1.0, 2.0])


def test_the_package_exports_what_experiments_use():
    package = importlib.import_module("experiments")
    assert {"Settings", "Figure", "Table", "claim", "not_run"} <= set(dir(package))


def test_a_damaged_file_ends_the_run_with_2_and_one_line(toys, capsys):
    source = """from fdl.errors import DataError\n
def run(settings):
    yield "reads"
    raise DataError("folder/file", "at byte 3: is cut\\nshort")
"""
    assert toys("damaged", damaged=source) == 2
    assert capsys.readouterr().err == "experiments: folder/file: at byte 3: is cut short\n"
