"""CONTRIBUTING.md, followed: its loss and its row, in a copy of the package, are proven by the common tests."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAME = "half_squared_error"
IN_TABLE = "test_every_file_is_in_the_table"
PROOF = "test_every_cotangent_equals_autodiff"


def blocks():
    loss, row = re.findall(r"^```python\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)
    return loss, row


def insert(path, before, text):
    old = path.read_text()
    assert before in old
    path.write_text(old.replace(before, before + text, 1))


def follow(tmp_path, *, row=True, loss=None):
    """A checkout in which what the page says is done."""
    code, line = blocks()
    for folder in ("fdl", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / f"fdl/losses/{NAME}.py").write_text(loss or code)
    with (tmp_path / "fdl/losses/__init__.py").open("a") as map_:
        map_.write(f"\nfrom fdl.losses.{NAME} import {NAME}  # noqa: E402\n")
    if row:
        insert(tmp_path / "tests/concepts.py", "CONCEPTS = (\n", f"{line.rstrip()},\n")


def outcomes(folder, select):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n0",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
        "-rA",
        "tests/test_concepts.py",
    ]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [*command, "-k", select], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )
    outcome_of = re.findall(r"^(PASSED|FAILED) \S+::(\w+)", done.stdout, re.MULTILINE)
    return {name: outcome for outcome, name in outcome_of}, done.stdout


def test_a_loss_added_as_the_page_says_is_proven(tmp_path):
    follow(tmp_path)
    found, text = outcomes(tmp_path, f"{NAME} or {IN_TABLE}")
    assert len(found) == 7 and set(found.values()) == {"PASSED"}, text


def test_a_wrong_backward_is_told(tmp_path):
    wrong = blocks()[0].replace("dloss[..., None] *", "1.001 * dloss[..., None] *")
    assert wrong != blocks()[0]
    follow(tmp_path, loss=wrong)
    found, text = outcomes(tmp_path, f"{NAME} and ({PROOF} or the_check_says_right)")
    assert len(found) == 2 and set(found.values()) == {"FAILED"}, text


def test_a_file_without_a_row_is_told(tmp_path):
    follow(tmp_path, row=False)
    found, text = outcomes(tmp_path, IN_TABLE)
    assert found == {IN_TABLE: "FAILED"} and f"losses/{NAME}" in text, text
