"""One writer per folder: a lock that the system takes back when its process ends, however it ends."""

import contextlib
import importlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from fdl.train.checkpoint.errors import CheckpointError

NAME = "lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Errors: CheckpointError if another process writes there, naming it, or if the folder cannot be written."""
    try:
        fcntl = importlib.import_module("fcntl")
    except ImportError as error:
        raise CheckpointError(folder, "this system has no flock", "train without checkpoint=") from error
    try:
        descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CheckpointError(folder, f"cannot be written ({error.strerror})", "use a folder that can be") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 300, 0).decode(errors="replace").strip() or "another process"
            raise CheckpointError(
                folder, f"{holder} is training into it", "end that run, or use another folder"
            ) from error
        except OSError as error:
            raise CheckpointError(
                folder, f"cannot be locked ({error.strerror})", "use a local disk, or a file system with flock"
            ) from error
        with contextlib.suppress(OSError):  # a full disk; the lock holds without the name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
