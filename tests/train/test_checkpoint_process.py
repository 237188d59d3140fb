"""Checkpoints in processes of their own: signals, limits and rights, which belong to a process."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from fdl.train import checkpoints
from fdl.train.checkpoint import open_store
from fdl.train.checkpoint.signals import ECHO

pytest.importorskip("orbax.checkpoint")

BEGIN = """
import hashlib, os, resource, sys, time
import jax.numpy as jnp
from fdl.train import Checkpoint, CheckpointError
from fdl.train.checkpoint import open_store

folder, tree = sys.argv[1], {"w": jnp.ones((100, 100))}

def refused(action):
    try:
        action()
    except CheckpointError as error:
        print(error.reason, flush=True)
    else:
        print("not refused", flush=True)
"""


@contextlib.contextmanager
def start(folder, code):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", BEGIN + textwrap.dedent(code), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_signals(tmp_path):
    """One ends a run in order, with what it had, also where it arrives twice at once; one sent later ends it in the middle of a
    call that holds the main thread."""
    orderly_code = """
        with open_store(Checkpoint(folder, seconds=None)) as store:
            print("ready", flush=True)
            while not store.due(7):
                time.sleep(0.01)
            store.save(7, tree, {})
        sys.exit(store.exit_code)
        """
    at_once_code = """
        with open_store(folder) as store:
            print("ready", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000_000)
        """
    with start(tmp_path / "orderly", orderly_code) as orderly, start(tmp_path / "at_once", at_once_code) as at_once:
        assert orderly.stdout is not None and at_once.stdout is not None
        assert at_once.stdout.readline() == orderly.stdout.readline() == "ready\n"
        for signalled in (signal.SIGINT, signal.SIGTERM):  # the second an echo
            orderly.send_signal(signalled)
        at_once.send_signal(signal.SIGINT)
        time.sleep(2 * ECHO)
        at_once.send_signal(signal.SIGTERM)
        codes = [process.wait(timeout=60) for process in (orderly, at_once)]
    assert codes[0] in (130, 143) and codes[1] == 143  # the system delivers two pending ones in an order of its own
    assert checkpoints(tmp_path / "orderly") == [(7, "ok")]


def test_limits_and_rights(tmp_path):
    code = """
        with open_store(folder) as store:
            store.save(1, tree, {})
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
            refused(lambda: store.save(2, tree, {}))
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            store.save(3, tree, {})
            os.chmod(folder, 0o500)
            if not os.getuid():
                os.chown(folder, 65534, 65534)
                os.setuid(65534)
            refused(lambda: store.save(4, tree, {}))
        refused(lambda: open_store(sys.argv[1] + "/more").__enter__())
        refused(lambda: open_store("/proc/fdl").__enter__())
        """
    taken = tmp_path / "taken"
    with open_store(taken):
        again = "refused(lambda: open_store(folder).__enter__())"
        with start(taken, again) as second, start(tmp_path / "limited", code) as limited:
            outputs = [process.communicate(timeout=60)[0].splitlines() for process in (second, limited)]
    assert outputs[0][0].startswith(f"process {os.getpid()} on ")
    full, rights, more, proc = outputs[1]
    assert full == "cannot save step 2 (File too large)" and rights == "cannot save step 4 (Permission denied)"
    assert more.startswith("cannot be made into a folder (Permission") and proc.startswith(
        "cannot be made into a folder"
    )
    os.chmod(tmp_path / "limited", 0o700)
    assert checkpoints(tmp_path / "limited") == [(1, "ok"), (3, "ok")]
