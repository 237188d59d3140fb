"""The README's Python blocks run, in order, in a process as plain as a reader's; the check it shows says "wrong"."""

import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_python_block_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 4
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "\nwrong\n" in done.stdout and "right: softplus" in done.stdout


def test_everything_it_names_is_there():
    text = (ROOT / "README.md").read_text()
    for dotted in re.findall(r"`(fdl(?:\.\w+)+)[`(]", text):
        assert pkgutil.resolve_name(dotted) is not None
    for folder in re.findall(r"`(\w+)/`", text):
        assert (ROOT / folder).is_dir(), folder
