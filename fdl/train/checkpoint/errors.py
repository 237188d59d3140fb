"""What is wrong with a checkpoint, and what to do."""

import os

from fdl.errors import DataError


class CheckpointError(DataError):
    """A folder of checkpoints, or one step in it, that cannot be used or written.

    >>> try:
    ...     fdl.train.restore("no_such_run")
    ... except fdl.train.CheckpointError as error:
    ...     print(error.folder)
    no_such_run
    """

    def __init__(self, folder: str | os.PathLike, reason: str, remedy: str):
        super().__init__(os.fspath(folder), f"{reason}; {remedy}")
        self.folder = os.fspath(folder)
        self.reason = reason
        self.remedy = remedy


class Damaged(Exception):
    """A step that does not verify; the message says which file or leaf, and why."""
