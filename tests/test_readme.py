"""What the README shows is so: its Python runs, in order, in a process as plain as a reader's, and prints what stands below it;
its commands are accepted; what it names is there. (`.ci/run` runs its two first commands; benchmarks/_readme.py keeps its tables.)
"""

import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import _command
from experiments import _runner

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = sorted(
    {
        line.strip()
        for text in [block for kind, block in BLOCKS if not kind] + re.findall(r"`(python -m [^`]*)`", TEXT)
        for part in text.splitlines()
        for line in part.split("&&")
        if line.strip().startswith(("python -m ", "pip "))
    }
)


def test_every_python_block_runs_and_prints_what_is_shown():
    code = [block for kind, block in BLOCKS if kind == "python"]
    assert len(code) >= 7
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"},
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "right: softplus" in done.stdout
    printed = _without_numbers(done.stdout)
    shown = [block for kind, block in BLOCKS if not kind and block.startswith(("wrong: ", "error: "))]
    assert len(shown) == 2
    for block in shown:
        for piece in re.split(r";? \.\.\.;?", _without_numbers(block)):
            assert piece.strip() in printed, done.stdout


def _without_numbers(text):
    """Their last digits differ from one processor to the next."""
    return re.sub(r"[-+]?\d[\d.]*(e[-+]?\d+)?", "#", " ".join(text.split()))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_accepted(command):
    words = shlex.split(command.replace("NAME ...", "").replace("[", "").replace("]", ""))
    if words[0] == "pip":
        extras = re.findall(r"\.\[([\w,]+)\]", command)
        names = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        assert extras and {name for extra in extras for name in extra.split(",")} <= set(names)
        return
    module, given = words[2], words[3:]
    if module == "benchmarks":
        assert set(_command._parser().parse_args(given).names) <= set(_command.discover(_command.FOLDER))
    elif module == "experiments":
        assert {word for word in given if re.fullmatch(r"[a-z_]+", word)} <= set(_runner.discover(_runner.HERE))
    elif module.startswith("benchmarks."):
        assert pkgutil.resolve_name(module).main
    elif module == "fdl":
        assert (ROOT / "fdl" / "cli" / f"{given[0]}.py").is_file()
    else:
        assert module == "pytest"


def test_the_check_of_the_command_line():
    command = next(command for command in COMMANDS if command.startswith("python -m fdl check "))
    done = subprocess.run(
        [sys.executable, *shlex.split(command)[1:]], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0 and done.stdout.startswith("right: "), done.stdout + done.stderr


def test_everything_it_names_is_there():
    for dotted in re.findall(r"`(fdl(?:\.\w+)+)[`(]", TEXT):
        assert pkgutil.resolve_name(dotted) is not None
    for folder in re.findall(r"`(\w+)/`", TEXT):
        assert (ROOT / folder).is_dir(), folder
    for file in re.findall(r"\]\(([\w./]+)\)", TEXT):
        assert (ROOT / file).is_file(), file
