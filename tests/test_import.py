"""`import fdl` brings no more than it needs."""

import subprocess
import sys

HEAVY = ("optax", "chex", "rich", "matplotlib", "orbax", "safetensors", "tensorboardX", "fdl.check")
CODE = f"""
import sys
import fdl
print([name for name in {HEAVY} if name in sys.modules])
fdl.check.gradients, fdl.export.inference
from fdl import check
assert check is fdl.check
"""


def test_import_is_light_and_what_comes_later_is_there():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
