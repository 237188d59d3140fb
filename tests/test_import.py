"""`import fdl` brings no more than it needs, and computes nothing."""

import os
import subprocess
import sys

import pytest

LATER = ("check", "convert", "data", "doctor", "export", "train")
HEAVY = ("chex", "etils", "http", "matplotlib", "optax", "orbax", "rich", "safetensors", "tensorboardX", "unittest")
# what jax itself imports is not counted
CODE = f"""
import sys
import jax
from jax._src import xla_bridge
before = set(sys.modules)
{{first}}
import fdl
brought = set(sys.modules) - before
print([name for name in {(*HEAVY, *(f"fdl.{name}" for name in LATER))} if name in brought])
print(xla_bridge.backends_are_initialized())
"""


def output(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, env=os.environ
    ).stdout.splitlines()


def test_import_is_light_and_starts_no_backend():
    assert output(CODE.format(first="")) == ["[]", "False"]


def test_the_test_of_lightness_fails_where_it_must():
    first = "import fdl.train, chex; jax.numpy.zeros(3) + 1"
    brought, started = output(CODE.format(first=first))
    assert "'chex'" in brought and "'fdl.train'" in brought and started == "True"


def test_what_comes_later_is_there():
    wanted = [f"fdl.{name}" for name in LATER]
    assert output(f"import fdl\nfor name in {LATER}: print(getattr(fdl, name).__name__)") == wanted


def test_what_is_not_there_is_an_attribute_error():
    import fdl

    with pytest.raises(AttributeError, match="no attribute 'chekc'"):
        fdl.chekc  # noqa: B018
