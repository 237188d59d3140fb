"""The same gradients on two devices: under shard_map, on an automatic and on an explicit mesh."""

import os
import subprocess
import sys
from pathlib import Path

HELD = ["shard_map", "shard_map under jit", "shard_map, traced option"] + [
    f"{kind} mesh, {how}"
    for kind in ("Auto", "Explicit")
    for how in (
        *("jit", "eager", "value_and_grad by hand", "deltas"),
        *("batch norm by hand", "batch norm through jax.grad"),
    )
]
HELD += ["shard_map, batch norm with unequal counts"]
HELD += [f"{where}, {layer}" for where in ("shard_map", "Explicit mesh") for layer in ("rnn", "lstm", "gru")]


def test_two_devices():
    here = Path(__file__)
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    two = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        [sys.executable, str(here.with_name("on_two_devices.py"))],
        env=os.environ | two | {"PYTHONPATH": str(here.parent.parent)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    missing = [name for name in HELD if f"held: {name}\n" not in done.stdout]
    assert done.returncode == 0 and not missing, f"{missing}\n{done.stdout}\n{done.stderr}"
