"""Checkpoints that can be trusted: arrays through orbax, a manifest of checksums over them, one writer per folder.

    with open_store(Checkpoint("runs/a")) as store:
        saved = store.newest(like)         # the newest step that verifies, or None
        ...
        if store.due(step):
            store.save(step, tree, facts)

What is on disk
- `step_0000001234/`: `arrays/` as orbax writes it, and `manifest.json`: structure, shape, dtype and SHA-256 of every leaf, size
  and SHA-256 of every file, the facts, the versions, and a checksum over all that.
- `step_….damaged`: a step that did not verify, set aside; nothing here deletes it. `lock`: who writes, while it does.

A step is written under another name, every file and folder is flushed to the disk, the manifest last, and then it is renamed:
a step that bears its name is whole, after a crash and after a loss of power. It is read back and verified before an older one is
deleted. Nothing is ever unpickled.
"""

from fdl.train.checkpoint.errors import CheckpointError
from fdl.train.checkpoint.read import Saved, checkpoints, restore
from fdl.train.checkpoint.settings import Checkpoint
from fdl.train.checkpoint.store import Store, open_store

__all__ = ["Checkpoint", "CheckpointError", "Saved", "Store", "checkpoints", "open_store", "restore"]
