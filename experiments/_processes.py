"""Several processes on this machine that train as one: the command runs once in each, and they meet over the loopback.

The first process prints and writes the results; the others compute their share, and whatever they would print or write goes
nowhere. If one ends with an error the rest are ended too, for they would wait for it.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

INDEX, ADDRESS = "FDL_PROCESS_INDEX", "FDL_COORDINATOR"


def is_member() -> bool:
    return INDEX in os.environ


def launch(argv: Sequence[str], count: int) -> int:
    """Runs `python -m experiments ARGV` in so many processes; the exit code of the first, or of one that failed."""
    address = f"127.0.0.1:{_free_port()}"
    command = [sys.executable, "-m", "experiments", *argv]
    with tempfile.TemporaryDirectory() as nowhere:
        members = []
        for index in range(count):
            env = os.environ | {INDEX: str(index), ADDRESS: address}
            where = ["--out", nowhere] if index else []
            out, err = (subprocess.DEVNULL, subprocess.PIPE) if index else (None, None)
            members.append(subprocess.Popen([*command, *where], env=env, stdout=out, stderr=err))
        try:
            return _wait(members)
        finally:
            for member in members:
                member.kill()
                member.wait()


def _wait(members: list[subprocess.Popen]) -> int:
    while any(member.poll() is None for member in members):
        for index, member in enumerate(members):
            # a claim that fails is 1, in every process alike
            if index and member.poll() not in (None, 0, 1):
                told = member.stderr.read().decode(errors="replace") if member.stderr else ""
                print(f"experiments: process {index} ended with {member.returncode}:\n{told[-2000:]}", file=sys.stderr)
                return 1
        if members[0].poll() is not None:
            break
        time.sleep(0.1)
    return members[0].returncode


def join(count: int) -> None:
    """To be called in each process before JAX is used."""
    import jax

    jax.distributed.initialize(os.environ[ADDRESS], count, int(os.environ[INDEX]))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
