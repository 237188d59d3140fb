"""Two processes of two devices train as one: batches are cut between the processes, wide layers within each."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def test_two_processes():
    here = Path(__file__)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    two = "--xla_force_host_platform_device_count=2"
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(here.parents[2]), "XLA_FLAGS": two}
    command = [sys.executable, str(here.with_name("on_two_processes.py"))]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    members = [subprocess.Popen([*command, str(index), port], env=env, **pipes) for index in range(2)]
    try:
        for index, member in enumerate(members):
            out, err = member.communicate(timeout=300)
            assert f"held in process {index}" in out, err[-3000:]
    finally:
        for member in members:
            member.kill()
