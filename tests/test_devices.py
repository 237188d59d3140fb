"""The same gradients on two devices: under shard_map, on an automatic and on an explicit mesh."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def output():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("on_two_devices.py"))],
        env=os.environ | flags,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "name",
    ["shard_map", "shard_map under jit", "shard_map, traced option"]
    + [f"{kind} mesh, {how}" for kind in ("Auto", "Explicit") for how in ("jit", "eager", "value_and_grad by hand")],
)
def test_two_devices(output, name):
    assert f"held: {name}\n" in output, output
