"""The same numbers on 1, 2 and 8 devices within rounding, with batches and with wide layers spread."""

import os
import subprocess
import sys
from pathlib import Path

HELD = ["{'data': 2}", "{'data': 8}", "{'data': 2, 'model': 4}"]
HELD += ["an explicit mesh is used with automatic axes", "a batch that cannot be cut is refused"]


def test_eight_devices():
    here = Path(__file__)
    eight = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, str(here.with_name("on_eight_devices.py"))],
        env=os.environ | eight | {"PYTHONPATH": str(here.parents[2])},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    missing = [name for name in HELD if f"held: {name}\n" not in done.stdout]
    assert done.returncode == 0 and not missing, f"{missing}\n{done.stdout}\n{done.stderr[-3000:]}"
