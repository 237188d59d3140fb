"""The settings of a process, each in a process of its own: they cannot be taken back."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from fdl.errors import InputError, InputTypeError
from fdl.train.runtime import tune_runtime

EARLY_AND_LATE = """
import json, sys
import jax, jax.numpy as jnp
from fdl.train import tune_runtime
folder = sys.argv[1]
first = tune_runtime(threads=True)
jax.jit(lambda x: x + 1)(jnp.ones(3)).block_until_ready()
second = tune_runtime(threads=True, cache=folder)
jax.jit(lambda x: x * 3)(jnp.ones(3)).block_until_ready()
third = tune_runtime(threads=True, cache=folder)
print(json.dumps([report.to_json() for report in (first, second, third)]))
print(second)
"""
LATE = """
import json
import jax.numpy as jnp
from fdl.train import tune_runtime
jnp.ones(3).block_until_ready()
print(json.dumps(tune_runtime(allocator=False).to_json()))
"""


def output_of(code, *arguments):
    # without what the session, or whoever started it, has set
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "JAX_"))}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=True)
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator and the threads are Linux's")
def test_each_setting_is_changed_once_and_then_as_wanted(tmp_path):
    text, *shown = output_of(EARLY_AND_LATE, tmp_path / "cache")
    first, second, third = json.loads(text)
    assert {name: first[name]["status"] for name in ("dispatch", "threads", "cache")} == {
        "dispatch": "changed",
        "threads": "not done",
        "cache": "off",
    }
    assert "call it again after the first computation" in first["threads"]["why"]
    assert (first["dispatch"]["before"], first["dispatch"]["after"]) == ("asynchronous", "synchronous")
    assert second["dispatch"]["status"] == "as wanted" and second["cache"]["status"] == "changed"
    assert second["cache"] | {"status": ""} == {
        "status": "", "before": "none", "after": str(tmp_path / "cache"), "why": ""
    }  # fmt: skip
    assert list((tmp_path / "cache").iterdir())  # the program compiled after it, although one was compiled before
    assert {third[name]["status"] for name in ("dispatch", "threads", "cache")} == {"as wanted"}
    assert [line.split()[0] for line in shown] == ["dispatch", "allocator", "threads", "cache"]
    if first["allocator"]["status"] != "not done":  # no glibc
        assert [report["allocator"]["status"] for report in (first, second, third)] == [
            "changed", "as wanted", "as wanted",
        ]  # fmt: skip


def test_too_late_is_said_and_nothing_is_changed():
    (text,) = output_of(LATE)
    report = json.loads(text)
    assert report["dispatch"]["status"] == "not done" and "too late" in report["dispatch"]["why"]
    assert report["allocator"]["status"] == report["threads"]["status"] == report["cache"]["status"] == "off"


def test_arguments_are_checked_at_the_door(tmp_path):
    untyped: Any = tune_runtime
    off: dict[str, Any] = {"dispatch": False, "allocator": False}
    with pytest.raises(InputTypeError, match="dispatch is int 1"):
        tune_runtime(dispatch=1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputTypeError, match="cache is bool True, wanted a folder"):
        untyped(**off, cache=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made a folder"):
        tune_runtime(**off, cache=tmp_path / "file")
    assert all(setting.status == "off" for setting in tune_runtime(**off).settings)
