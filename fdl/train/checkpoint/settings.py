"""Where and how often to save."""

import dataclasses
import math
import os

from fdl.errors import refuse, refuse_type, require_count, require_number, shown


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Save into `folder` every so many seconds or steps, whichever comes first; None: not by that.

    keep: so many of the newest steps stay, and the newest one that was saved as the best.
    Errors: InputError or InputTypeError for a folder that is no path, seconds not above 0, steps or keep below 1.

        >>> fdl.train.Checkpoint("runs/digits", steps=1000, keep=2).keep  # for fit(checkpoint=...)
        2
    """

    folder: str | os.PathLike
    seconds: float | None = 60.0
    steps: int | None = None
    keep: int = 3

    def __post_init__(self):
        where = "train.Checkpoint"
        if not isinstance(self.folder, str | os.PathLike):
            refuse_type(where, f"folder is {shown(self.folder)}, wanted a path")
        if not os.fspath(self.folder):
            refuse(where, "folder is empty, wanted a path")
        if self.seconds is not None:
            remedy = "None saves by steps alone"
            require_number(where, "seconds", self.seconds, 0, math.inf, remedy=remedy, exclusive=True)
        if self.steps is not None:
            require_count(where, "steps", self.steps)
        require_count(where, "keep", self.keep)
