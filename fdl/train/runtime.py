"""Settings of the process around a training run: nothing here changes a number that is computed."""

import ctypes
import dataclasses
import os
import platform
import sys
from pathlib import Path
from typing import Any

import jax

from fdl.errors import refuse, refuse_type, require_bool, shown

CHANGED, SAME, OFF, NOT_DONE = "changed", "as wanted", "off", "not done"

# malloc.h of glibc
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_LARGEST_INT = 2**31 - 1
_POOL = "tf_XLAEigen"  # the name of XLA's threads for parts of an operation
_DISPATCH = "jax_cpu_enable_async_dispatch"


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting: status is "changed", "as wanted" (it was before), "off" (not asked for) or "not done" (why says the reason)."""

    name: str
    status: str
    before: str = ""
    after: str = ""
    why: str = ""

    def __str__(self) -> str:
        values = f"{self.before} -> {self.after}" if self.status == CHANGED else self.after
        return f"{self.name:12} {self.status:9}  {'; '.join(part for part in (values, self.why) if part)}".rstrip()


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What `tune_runtime` did.

    >>> tuning = fdl.train.tune_runtime(dispatch=False, allocator=False)
    >>> [setting.name for setting in tuning.settings][:2]
    ['dispatch', 'allocator']
    """

    settings: tuple[Setting, ...]

    def __getitem__(self, name: str) -> Setting:
        return next(setting for setting in self.settings if setting.name == name)

    def __str__(self) -> str:
        return "\n".join(map(str, self.settings))

    def to_json(self) -> dict[str, dict[str, str]]:
        """{setting: {status, before, after, why}}, for a result file."""
        return {setting.name: {k: v for k, v in vars(setting).items() if k != "name"} for setting in self.settings}


_done: dict[str, Any] = {}  # what cannot be read back from the system


def tune_runtime(
    *, dispatch: bool = True, allocator: bool = True, threads: bool = False, cache: str | os.PathLike | None = None
) -> Tuning:
    """Settings that make a run faster or steadier; returns what was changed, from what to what, and what was not, and why.

    Call it first: before the first computation, after which `dispatch` is too late and says so. Calling it again changes nothing.

    dispatch: small computations run where they are called instead of in another thread. allocator: glibc keeps memory that is freed (on
    Linux); it needs `dispatch`, since in another thread glibc asks the system again for every large array. threads: each of XLA's
    threads on a core of its own (on Linux), once they are there: after the first computation. cache: a folder for compiled programs;
    use one for each kind of machine.

    Measured on two shared cores of a cloud machine, ten interleaved rounds, best ms:

    | work                               | as it is | dispatch | allocator | threads | dispatch, allocator | all three |
    |------------------------------------|----------|----------|-----------|---------|---------------------|-----------|
    | sum of two arrays of 64 MB         | 23.6     | 22.4     | 20.2      | 19.3    | 3.6                 | 3.7       |
    | step of LeNet-5, batch 64          | 4.11     | 3.94     | 3.94      | 3.89    | 3.62                | 3.68      |
    | step of 784-1024-1024-10, batch 256| 8.25     | 8.01     | 8.15      | 8.33    | 7.99                | 7.93      |
    | step of 64-32-10, batch 32         | 0.021    | 0.021    | 0.021     | 0.021   | 0.022               | 0.021     |

    `threads` gained nothing there beyond the spread and is off: it helps where both threads stay on one core. The cache, digits for
    one epoch in a new process: `fit` 0.56 s, 2.7 without, compilation and all.

        >>> tuning = fdl.train.tune_runtime(dispatch=False, allocator=False)
        >>> tuning["dispatch"].status
        'off'
    """
    for name, value in (("dispatch", dispatch), ("allocator", allocator), ("threads", threads)):
        require_bool("train.tune_runtime", name, value)
    if cache is not None and not isinstance(cache, str | os.PathLike):
        refuse_type("train.tune_runtime", f"cache is {shown(cache)}, wanted a folder")
    return Tuning(
        (
            _dispatch() if dispatch else Setting("dispatch", OFF),
            _allocator() if allocator else Setting("allocator", OFF),
            _threads() if threads else Setting("threads", OFF),
            _cache(Path(cache)) if cache is not None else Setting("cache", OFF),
        )
    )


def _dispatch() -> Setting:
    name = "dispatch"
    if _DISPATCH not in jax.config.values:
        return Setting(name, NOT_DONE, why=f"jax {jax.__version__} has no setting {_DISPATCH}")
    if not jax.config.values[_DISPATCH]:
        return Setting(name, SAME, after="synchronous")
    if _started():
        return Setting(
            name, NOT_DONE, why="too late: the CPU backend has started; call it before the first computation"
        )
    jax.config.update(_DISPATCH, False)
    return Setting(name, CHANGED, "asynchronous", "synchronous")


def _started() -> bool:
    from jax._src import xla_bridge  # the public modules do not say

    return xla_bridge.backends_are_initialized()


def _allocator() -> Setting:
    name, kept = "allocator", "freed memory is kept"
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return Setting(name, NOT_DONE, why="needs glibc, on Linux")
    if "allocator" in _done or {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} <= set(os.environ):
        return Setting(name, SAME, after=kept)
    mallopt = ctypes.CDLL(None).mallopt
    if not (mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)):
        return Setting(name, NOT_DONE, why="mallopt refused")
    _done["allocator"] = True
    return Setting(name, CHANGED, "given back to the system", kept)


def _threads() -> Setting:
    name = "threads"
    if not hasattr(os, "sched_setaffinity"):
        return Setting(name, NOT_DONE, why="the system cannot say on which core a thread runs")
    pool, cores = _pool(), sorted(os.sched_getaffinity(0))
    if not pool:
        return Setting(
            name,
            NOT_DONE,
            why="too early: XLA's threads start with the backend; call it again after the first computation",
        )
    wanted = [{cores[place % len(cores)]} for place in range(len(pool))]
    before = [os.sched_getaffinity(thread) for thread in pool]
    if before == wanted:
        return Setting(name, SAME, after=_places(wanted))
    for thread, core in zip(pool, wanted, strict=True):
        os.sched_setaffinity(thread, core)
    return Setting(name, CHANGED, _places(before), _places(wanted))


def _pool() -> list[int]:
    tasks = sorted(Path("/proc/self/task").iterdir(), key=lambda task: int(task.name))
    return [int(task.name) for task in tasks if (task / "comm").read_text().startswith(_POOL)]


def _places(cores: list[set[int]]) -> str:
    return ", ".join(",".join(map(str, sorted(core))) for core in cores)


def _cache(folder: Path) -> Setting:
    from jax.experimental.compilation_cache import compilation_cache

    name = "cache"
    wanted = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_enable_compilation_cache": True,
    }
    before = {setting: jax.config.values[setting] for setting in wanted}
    if before == wanted:
        return Setting(name, SAME, after=str(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refuse(
            "train.tune_runtime",
            f"cache is {str(folder)!r}, which cannot be made a folder ({error.strerror}); give another",
        )
    for setting, value in wanted.items():
        jax.config.update(setting, value)
    compilation_cache.reset_cache()  # JAX decides at its first compilation whether there is one
    return Setting(name, CHANGED, before["jax_compilation_cache_dir"] or "none", str(folder))
