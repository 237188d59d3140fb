"""`python -m fdl check`: verdicts as exit codes, arguments from specs and from the module, JSON, JUnit, and refusals."""

import json
import re
from xml.etree import ElementTree

import pytest

from fdl.cli import main

MODULE = """
import jax, jax.numpy as jnp

@jax.custom_vjp
def half_wrong(x, w):
    return jnp.sum(x * w)

half_wrong.defvjp(lambda x, w: (jnp.sum(x * w), (x, w)), lambda kept, d: (d * kept[1], 0.9 * d * kept[0]))

def plain(x, w):
    return jnp.sum(x * w)

def scaled(x, *, gain=1.0):
    return gain * x**2

def pick(x, i):
    return x[i]

def count(x):
    return jnp.sum(x > 0)

def example_args():
    x = jnp.linspace(-1.0, 1.0, 5)
    return {"half_wrong": (x, x + 2), "plain": (x, x), "count": x}
"""


@pytest.fixture(autouse=True)
def library(tmp_path, monkeypatch):
    (tmp_path / "checked_library.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def run(capsys, *argv):
    code = main(["check", *argv, "--modes", "quick"])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_verdicts_are_exit_codes(capsys):
    code, out, _ = run(capsys, "checked_library:half_wrong", "--reference", "checked_library:plain")
    assert code == 1 and out.startswith("wrong: ") and " w " in out
    assert run(capsys, "checked_library:plain")[0] == 0
    code, out, _ = run(capsys, "checked_library:count", "--reference", "checked_library:count")
    assert code == 2 and "undecided" in out


def test_arguments_and_options_on_the_command_line(capsys):
    code, out, _ = run(
        capsys, "fdl.losses:huber", "--arg", "float32[7,3]", "--arg", "float32[7, 3]", "--option", "delta=2.0"
    )
    assert code == 0, out
    assert run(capsys, "checked_library:scaled", "--arg", "float64[]", "--option", "gain=3")[0] == 0
    assert run(capsys, "checked_library:pick", "--arg", "float32[4]", "--arg", "int32[6]<4")[0] == 0


def test_json_and_junit(capsys, tmp_path):
    where = ("checked_library:half_wrong", "--reference", "checked_library:plain")
    code, out, _ = run(capsys, *where, "--json", "--junit", "out/report.xml")
    report = json.loads(out)
    assert code == 1 and report["verdict"] == "wrong" and not report["ok"]
    suite = ElementTree.parse(tmp_path / "out" / "report.xml").getroot()
    assert suite.get("tests") == "2" and suite.get("failures") == "1"
    failed = next(case for case in suite if case.find("failure") is not None)
    assert failed.get("name") == "w" and [p.name for p in (tmp_path / "out").iterdir()] == ["report.xml"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nonsense"], "'nonsense' is no place, wanted PACKAGE.MODULE:NAME"),
        (["no_such_module:f"], "there is no module 'no_such_module'"),
        (["checked_library:nothing"], "has no 'nothing'; it has: .*plain"),
        (["checked_library:scaled"], "example_args\\(\\) has half_wrong, plain, count, and no 'scaled'"),
        (["fdl.losses:huber"], "no arguments: give --arg"),
        (["checked_library:plain", "--arg", "float32(3)"], "is no argument, wanted a dtype and a shape"),
        (["checked_library:plain", "--arg", "floaty[3]"], "is no argument"),
        (["checked_library:plain", "--option", "gain"], "is no option, wanted NAME=VALUE"),
        (["checked_library:plain", "--arg", "float32[3]"], "cannot be called with these arguments: TypeError"),
    ],
)
def test_what_cannot_run_says_why(capsys, argv, message):
    code, _, err = run(capsys, *argv)
    assert code == 2
    assert re.search(message, err), err
