"""`python -m fdl check`: verdicts as exit codes, arguments from specs and from the module, JSON, JUnit, a shrunk case, refusals."""

import json
import re
from xml.etree import ElementTree

import numpy as np
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

def needs(x, *, gain):
    return gain * x**2

def other_shape(x, w):
    return x * w

def with_nan(x):
    return x**2

number = 3

def raises(x):
    raise RuntimeError("the first line\\nthe second")

def looks(x):
    return x**2 if x.sum() > -9 else x

def plain_raises_backwards(x):
    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, d: 1 / 0)
    return square(x)

import fdl
model = fdl.serial(fdl.dense(2), fdl.tanh())

def example_args():
    x = jnp.linspace(-1.0, 1.0, 5)
    return {"half_wrong": (x, x + 2), "plain": (x, x), "count": x, "with_nan": x.at[0].set(jnp.nan)}
"""


EXAMPLES = {
    "raising_examples": "def example_args():\n    return [][1]",
    "no_examples": "def example_args():\n    return None",
    "text_examples": "def example_args():\n    return {'f': 'x'}",
    "empty_examples": "def example_args():\n    return ()",
    "list_examples": "example_args = [1]",
    "float_examples": "def example_args():\n    return 2.0",
}


@pytest.fixture(autouse=True)
def library(tmp_path, monkeypatch):
    (tmp_path / "checked_library.py").write_text(MODULE)
    (tmp_path / "broken_library.py").write_text("nothing")
    (tmp_path / "ending_library.py").write_text("raise SystemExit(0)")
    for name, body in EXAMPLES.items():
        (tmp_path / f"{name}.py").write_text(f"def f(x):\n    return x\n\n{body}\n")
    (tmp_path / "needy_library.py").write_text("import no_such_dependency")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


TWO = ("--arg", "float32[3]", "--arg", "float32[3]")


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


def test_a_shrunk_case_is_written_and_fails_as_a_test(capsys, tmp_path):
    where = ("checked_library:half_wrong", "--reference", "checked_library:plain")
    code, out, err = run(capsys, *where, "--json", "--shrink", "new/test_case.py")
    assert code == 1 and json.loads(out)["verdict"] == "wrong"
    assert re.search(r"shrunk from float64\[5\], float64\[5\] to .*: new/test_case.py", err)
    namespace = {}
    exec((tmp_path / "new" / "test_case.py").read_text(), namespace)
    with pytest.raises(AssertionError, match="dw is 0.9 times what it should be"):
        namespace["test_gradients"]()
    code, _, err = run(capsys, "checked_library:plain", "--shrink", "right.py")
    assert code == 0 and "nothing to shrink, the verdict is right: right.py was not written" in err
    assert not (tmp_path / "right.py").exists()


def test_a_layer_and_a_function_that_looks_at_numbers(capsys):
    code, out, _ = run(capsys, "checked_library:model", "--arg", "float32[3,4]", "--option", "train=False")
    assert code == 0 and "by apply, backward" in out
    # it cannot be compiled or batched, which is for the check to say
    assert "cannot be called" not in run(capsys, "checked_library:looks", "--arg", "float32[3]")[2]


def test_nan_is_undecided_and_another_output_is_wrong(capsys):
    code, out, _ = run(capsys, "checked_library:with_nan", "--reference", "checked_library:with_nan")
    assert code == 0 and "the truth is not finite there" in out
    code, out, _ = run(capsys, "checked_library:other_shape", "--reference", "checked_library:plain", *TWO)
    assert code == 1 and "returned output float32[3], wanted output float32[]" in out


def test_in_colour_on_a_terminal_and_plain_elsewhere(capsys, monkeypatch):
    pytest.importorskip("rich")
    where = ("checked_library:half_wrong", "--reference", "checked_library:plain")
    _, plain, _ = run(capsys, *where)
    assert "\x1b[" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    _, coloured, _ = run(capsys, *where)
    assert "\x1b[1;31mwrong" in coloured
    # the same words, whatever the layout
    assert set(re.sub(r"\x1b\[[\d;]*m|\u2500", "", coloured).split()) == set(plain.split())
    monkeypatch.setenv("NO_COLOR", "1")
    assert run(capsys, *where)[1] == plain


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nonsense"], "'nonsense' is no place, wanted PACKAGE.MODULE:NAME"),
        (["no_such_module:f"], "there is no module 'no_such_module'"),
        (["checked_library:nothing"], "has no 'nothing'; it has: .*plain"),
        (["checked_library:scaled"], "example_args\\(\\) has half_wrong, .*, count, with_nan, and no 'scaled'"),
        (["fdl.losses:huber"], "no arguments: give --arg"),
        (["checked_library:plain", "--arg", "float32(3)"], "is no argument, wanted a dtype and a shape"),
        (["checked_library:plain", "--arg", "floaty[3]"], "is no argument"),
        (["checked_library:plain", "--option", "gain"], "is no option, wanted NAME=VALUE"),
        (["checked_library:plain", "--arg", "float32[3 3]"], "is no argument"),
        (["checked_library:plain", "--arg", "int32[3]<0"], "is no argument"),
        (["checked_library:plain", "--arg", f"float32[{'1' * 60}x]"], "is no argument"),
        (
            ["checked_library:plain", "--arg", "float32[3]"],
            "cannot be called with \\(float32\\[3\\]\\): TypeError: .*'w'; give",
        ),
        (
            ["checked_library:needs", "--arg", "float32[3]"],
            "missing 1 required keyword-only argument: 'gain'.*--option",
        ),
        (
            ["checked_library:plain", *TWO, "--reference", "checked_library:scaled"],
            "checked_library:scaled cannot be called",
        ),
        (["checked_library:number", *TWO], "check.gradients: candidate is int 3, wanted an Op or a function"),
        (["checked_library:count", "--arg", "int32[3]"], "nothing to differentiate in x int32\\[3\\]; pass a floating"),
        (["checked_library:plain", *TWO, "--key", "-1"], "key is -1, wanted an int from 0 on"),
        (["broken_library:f"], "broken_library cannot be imported: NameError: name 'nothing' is not defined"),
        (["needy_library:f"], "needy_library imports 'no_such_dependency', which is not installed"),
        (["checked_library:plain", "--shrink", "."], "\\. cannot be written \\(it is a folder\\)"),
        (["checked_library:plain", "--junit", "checked_library.py/out.xml"], "out.xml cannot be written"),
        (["ending_library:f"], "ending_library ends the program when it is imported"),
        (
            ["checked_library:raises", "--arg", "float32[3]"],
            "RuntimeError: the first line the second, at checked_library.py:\\d+; give",
        ),
        (
            [
                "checked_library:with_nan",
                "--arg",
                "float32[3]",
                "--reference",
                "checked_library:plain_raises_backwards",
            ],
            "ZeroDivisionError: .*, at checked_library.py:\\d+ \\(fdl.check: raised by the reference",
        ),
        (["raising_examples:f"], "raising_examples.example_args\\(\\) raised IndexError: list index out of range, at"),
        (["no_examples:f"], "example_args\\(\\) returned None for 'f', wanted a tuple"),
        (["text_examples:f"], "returned 'x' for 'f', wanted a tuple"),
        (["empty_examples:f"], "returned \\(\\) for 'f', wanted a tuple"),
        (["list_examples:f"], "list_examples.example_args is list, wanted a function"),
        (["float_examples:f"], "x is float 2.0, wanted an array; pass jnp.asarray"),
        (["checked_library:with_nan", "--arg", "float32[0,3]"], "nothing to differentiate in x float32\\[0, 3\\]"),
        (
            ["checked_library:with_nan", "--arg", "float32[999999999999]"],
            "has 999,999,999,999 entries, wanted at most",
        ),
        (
            ["checked_library:with_nan", "--arg", "complex64[3]"],
            "cannot be drawn: TypeError: got complex64, wanted floats",
        ),
        (
            ["checked_library:model", "--arg", "float32[3,4]", "--option", "rate=2"],
            "got the option rate, wanted target",
        ),
        (["checked_library:model", *TWO, "--reference", "checked_library:plain"], "held against its own equation"),
    ],
)
def test_what_cannot_run_says_why(capsys, argv, message):
    code, out, err = run(capsys, *argv)
    assert code == 2 and not out
    assert re.search(message, err), err
    # one paragraph, and no traceback
    assert err.startswith("fdl check: ") and err.count("\n") == 1 and "Traceback" not in err, err


# ---- python -m fdl data


def test_data_says_what_is_in_a_file(tmp_path, capsys):
    files = {
        "a.csv": b"size,kind\n1.5,cat\n2,dog\n3,cat\n",
        "labels-idx1-ubyte": b"\0\0\x08\1\0\0\0\4\1\0\1\1",
        "a.txt": b"hello",
        "batch.bin": bytes([3]) + bytes(3072),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    np.savez(tmp_path / "a.npz", inputs=np.ones((3, 2), np.float32), y=np.arange(3))
    np.save(tmp_path / "array.npy", np.asarray([[1.0, 4.0]]))
    (tmp_path / "array.npy").rename(tmp_path / "an array")
    expected = {
        "a.csv --target kind": ["csv", "float32[3, 1] from 1.5 to 3: size", "int32[3] with cat (2), dog (1): kind"],
        "a.csv --target -1 --missing 0": ["int32[3] with cat (2)"],
        "labels-idx1-ubyte": ["idx", "uint8[4] with 0 (1), 1 (3)"],
        "a.txt": ["text", "5 characters, 4 different ones: 'ehlo'"],
        "batch.bin": ["cifar10", "1 pictures of 32x32x3", "3 (1)"],
        "a.npz -x inputs": ["npz", "inputs  float32[3, 2] from 1 to 1", "0 (1), 1 (1), 2 (1)"],
    }
    for line, words in expected.items():
        name, *options = line.split()
        assert main(["data", str(tmp_path / name), *options]) == 0
        said = capsys.readouterr().out
        assert all(word in said for word in words), said
    assert main(["data", str(tmp_path / "an array")]) == 0  # by its first bytes
    assert "npy\n  float64[1, 2] from 1 to 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "data", "options", "words"),
    [
        ("a.csv", b"size,kind\n1,cat\n2\n", ["--target", "kind"], "line 3: has 1 cells"),
        ("a.csv", b"size,kind\n1,cat\n", [], "name the target with --target, one of: size, kind"),
        ("a.csv", b"size,kind\n1,cat\n", ["--target", "x\ny"], "target is 'x\\ny', the columns are"),
        ("x-idx3-ubyte", b"\0\0\x08\3\0", [], "at byte 5: the file ends here"),
        ("a.npz", b"PK\3\4", [], "no zip directory"),
        ("a.npy", b"", [], "the file is empty"),
        ("nothing", None, [], "cannot be read (No such file"),
        ("text", b"\xff", [], "line 1: the byte ff is not UTF-8"),
    ],
)
def test_data_refuses_in_one_line(tmp_path, capsys, name, data, options, words):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    assert main(["data", str(tmp_path / name), *options]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and err.startswith("fdl data: ") and words in err
