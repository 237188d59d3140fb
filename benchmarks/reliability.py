"""Can a run be killed at any moment, and a damaged checkpoint be trusted? Counts of both.

Claim: whatever ends a run of `fdl.train.fit`, its checkpoints lose nothing older than the last save, and going on from them
gives the bits of the run that nothing ended; a checkpoint with a single wrong bit, in any of its files, is never used.

    python -m benchmarks reliability [--full]
    python -m benchmarks.reliability [PART ...] [--full] [--count N] [--seed S]

Parts
- kills: a process that trains and saves every few steps gets SIGKILL: some at a random moment, most just after a save was
  seen to begin. The next process resumes. Counted: how many kills left an unfinished save behind, steps that do not verify
  afterwards, and steps that were there at the kill and were not gone on from. At the end every bit of parameters, batch
  statistics, optimizer and history is compared with an uninterrupted run.
- splits: runs cut at random steps by `steps=` and resumed, bit for bit against an uninterrupted one.
- damage: one flipped bit, or a cut, a longer, or a missing file, over every file of the newest of two steps. The newest has to be
  noticed, with a warning that names the file, and the step before used.
- orbax: flips and cuts over every file that `orbax.checkpoint.PyTreeCheckpointer` writes, for comparison; the same library stores
  the arrays here. "silent" is an array with other bits, and no exception.
- full: saves under a limit on the size of a file (between nothing and more than enough), and on a file system of its own that is
  full, where this process may mount one. A save is refused, or it is whole; the step before stays.
- rights: a folder that may not be written; a folder that another process trains into.

Every part runs in a process of its own, and the lives of the first one are forks of it, made before JAX starts any thread.
The default takes a sample (one to two minutes on two cores), --full 200 kills, 100 splits and 1,000 damaged files (about ten).
A kill is not a loss of power: what was written stays in the kernel. That files and folders are flushed before the rename is
tested in tests/train/test_checkpoint.py.
"""

# pyright: reportMissingImports=false
# (orbax-checkpoint is optional)

import argparse
import collections
import contextlib
import errno
import gc
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks._harness import Row, Settings, Trial, missing, result_of
from benchmarks._rows import FAILING
from benchmarks._table import table

SAMPLE = {"kills": 16, "splits": 10, "damage": 120, "orbax": 120, "full": 10, "rights": 1}
FULL = {"kills": 200, "splits": 100, "damage": 1000, "orbax": 1000, "full": 50, "rights": 1}
KILLS_PER_RUN = 10
STEPS_PER_SAVE = 4


class Counted(NamedTuple):
    """One line of a part: the status as in a row ("wrong" and "right" of a peer), what was counted, and about what."""

    peer: str
    status: str
    measured: str
    text: str


def run(settings: Settings) -> list[Row]:
    return rows_of(list(SAMPLE), settings.full)


def rows_of(parts: Sequence[str], full: bool, count: int | None = None, seed: int = 0) -> list[Row]:
    if absent := missing(("orbax",)):
        return [Row("reliability", "", "fdl", "fdl", "not installed", f"no {absent[0]}: pip install 'fdl[checkpoint]'")]
    rows = []
    for part in parts:
        print(f"\r{part:20}", end="", file=sys.stderr, flush=True)
        try:
            how = {"count": count or (FULL if full else SAMPLE)[part], "seed": seed}
            counted = result_of(PARTS[part], how)
        except RuntimeError as error:
            rows.append(Row(f"reliability: {part}", "", "fdl", "fdl", "failed", str(error)))
            continue
        for one in counted:
            peer, status, measured, text = one
            row = Row(f"reliability: {part}", "", peer, peer, status, text, measured)
            row.reached = status == "equal" if status in ("equal", "unequal") else None
            rows.append(row)
    print(file=sys.stderr)
    return rows


# ---- the run that all parts are about


# every kind of run that keeps something beside the parameters
KINDS = (
    {"valid": True},
    {"stream": True},
    {"valid": True, "early_stopping": 3},
    {"accumulate": 2, "precision": "bfloat16"},
    {"valid": True, "on_divergence": "rollback"},
)


def training(valid: bool = False, stream: bool = False, **options: Any) -> Callable[..., Any]:
    """train(steps=..., ...): a model with batch statistics and random draws, a stateful optimizer, a partial last batch."""
    import jax
    import optax

    import fdl

    rng = np.random.default_rng(0)
    y = (np.arange(50) % 2).astype(np.int32)
    x = (rng.normal(size=(50, 6)) + y[:, None]).astype(np.float32)
    model = fdl.serial(fdl.dense(8), fdl.batch_norm(), fdl.tanh(), fdl.dropout(0.2), fdl.dense(2))
    loss, optimizer = (
        fdl.losses.softmax_cross_entropy_with_integer_labels,
        optax.adam(optax.cosine_decay_schedule(0.01, 999)),
    )
    data = fdl.data.stream(x, y, chunk_size=32, block_size=8) if stream else (x, y)
    options |= {"key": jax.random.key(0), "batch_size": 16, "progress": False, "valid": (x, y) if valid else None}
    return lambda **settings: fdl.train.fit(model, loss, optimizer, data, **options, **settings)


def digest(result: Any) -> str:
    """Of every bit of what a run returns."""
    import jax

    sha = hashlib.sha256(repr(result.steps).encode())
    everything = (result.params, result.state, result.opt_state, result.history)
    for path, leaf in jax.tree_util.tree_flatten_with_path(everything)[0]:
        leaf = np.asarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode() + leaf.tobytes())
    return sha.hexdigest()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fdl-reliability-") as name:
        yield Path(name)


# ---- kills


def kills(count: int, seed: int) -> Trial:
    import jax

    # before the forks: in each of them these imports would be most of the time
    import orbax.checkpoint  # noqa: F401

    import fdl  # noqa: F401

    seen: collections.Counter[str] = collections.Counter()
    draw, total = random.Random(seed), 400 * STEPS_PER_SAVE
    with scratch() as folder:
        for name, value in (
            ("jax_compilation_cache_dir", str(folder / "cache")),
            ("jax_persistent_cache_min_compile_time_secs", 0.0),
            ("jax_persistent_cache_min_entry_size_bytes", -1),
        ):
            jax.config.update(name, value)
        right = _life(lambda: digest(training()(steps=total)))
        while seen["kills"] < count:
            one = folder / f"run-{seen['runs']}"
            one.mkdir()
            seen["runs"] += 1
            for _ in range(min(KILLS_PER_RUN, count - seen["kills"])):
                if not _killed_life(one, total, draw, seen):
                    break
            last = _life(lambda one=one: _train(one, total, None))
            seen["other bits"] += last != right
            reasons = _life(lambda one=one: _reasons(one)).splitlines()
            seen["damaged"] += sum(reason != "ok" for reason in reasons)
            seen["damaged"] += sum(".damaged" in path.name for path in one.iterdir())
    bad = seen["other bits"] + seen["damaged"] + seen["lost"]
    text = (
        f"{seen['kills']} kills of {seen['runs']} runs, {seen['in a save']} in the middle of a save: {seen['damaged']} steps "
        f"damaged, {seen['lost']} lost, {seen['other bits']} runs with other bits than the uninterrupted one"
    )
    measured = f"{seen['kills'] - bad} of {seen['kills']} survived"
    return Trial(
        [Counted("fdl", "unequal" if bad or 2 * seen["in a save"] < seen["kills"] else "equal", measured, text)]
    )


def _train(folder: Path, total: int, every: int | None) -> str:
    """Goes on with the run in the folder, to its end; notes there where it began."""
    import fdl
    from fdl.train.checkpoint.store import Store

    newest = Store.newest

    def noting(self: Store, like: Any) -> Any:
        saved = newest(self, like)
        (folder / "began").write_text(str(saved.step if saved else 0))
        return saved

    Store.newest = noting
    settings = fdl.train.Checkpoint(folder, seconds=None, steps=every)
    return digest(training()(steps=total, checkpoint=settings, resume=True))


def _reasons(folder: Path) -> str:
    from fdl.train import checkpoints

    return "\n".join(reason for _, reason in checkpoints(folder))


def _fork(action: Callable[[], str]) -> tuple[int, int]:
    """(process, pipe with what the action returned, or with its error)"""
    read, write = os.pipe()
    process = os.fork()
    if process:
        os.close(write)
        return process, read
    code = 1
    try:
        os.close(read)
        os.write(write, action().encode())
        code = 0
    except BaseException as error:
        os.write(write, f"{type(error).__name__}: {error}".encode()[:4000])
    finally:
        os._exit(code)


def _life(action: Callable[[], str]) -> str:
    """What the action returned, in a fork. RuntimeError if it raised."""
    process, read = _fork(action)
    with open(read, "rb") as pipe:
        answer = pipe.read().decode()
    _, status = os.waitpid(process, 0)
    if status:
        raise RuntimeError(f"a life ended with status {status}: {answer}")
    return answer


def _last_step(folder: Path) -> int:
    names = (path.name.removeprefix("step_") for path in folder.iterdir())
    return max((int(name) for name in names if name.isdigit()), default=0)


def _in_a_save(folder: Path) -> bool:
    return any(path.suffix == ".tmp" for path in folder.iterdir())


def _killed_life(folder: Path, total: int, draw: random.Random, seen: collections.Counter[str]) -> bool:
    """One process from its start to its kill. False if the run came to its end before."""
    before, began = _last_step(folder), folder / "began"
    began.unlink(missing_ok=True)
    process, read = _fork(lambda: _train(folder, total, STEPS_PER_SAVE))
    with open(read, "rb") as pipe:
        wait, aimed = draw.uniform(0.0, 0.3), draw.random() < 0.85
        due = None
        while True:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended and status:
                raise RuntimeError(f"a life ended with status {status}: {pipe.read().decode()}")
            if ended:
                return False
            if due is None and began.exists() and _last_step(folder) > before:
                due = time.monotonic() + wait
            if due is not None and time.monotonic() >= due and (not aimed or _in_a_save(folder)):
                break
            time.sleep(0.0005)
        if aimed:
            time.sleep(draw.uniform(0.0, 0.02))  # of the 30 ms or so that a save takes
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    seen["kills"] += 1
    seen["in a save"] += _in_a_save(folder)
    seen["lost"] += int(began.read_text()) < before
    return True


# ---- splits


def splits(count: int, seed: int) -> Trial:
    draw, total, wrong = random.Random(seed), 45, []
    with scratch() as folder:
        for options in KINDS:
            train = training(**options)
            right = digest(train(steps=total))
            for number in range(count // len(KINDS)):
                cuts = sorted(draw.sample(range(1, total), draw.choice((1, 1, 2, 3))))
                for steps in (*cuts, total):
                    result = train(steps=steps, checkpoint=folder / str(number), resume=True)
                if digest(result) != right:
                    wrong.append((options, cuts))
                shutil.rmtree(folder / str(number))
    text = f"runs of {total} steps, of {len(KINDS)} kinds, cut at random and resumed, against the bits of the uncut one"
    text += f"; not these: {wrong[:5]}" if wrong else ""
    measured = f"{count - len(wrong)} of {count} the same bits"
    return Trial([Counted("fdl", "unequal" if wrong else "equal", measured, text)])


# ---- damage


def _damaged(data: bytes, draw: random.Random, kinds: Sequence[str]) -> bytes | None:
    """The contents of a file after an accident; None: it is gone."""
    kind = draw.choice(kinds)
    if kind == "flip" and data:
        place = draw.randrange(len(data))
        return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]
    if kind == "cut" and data:
        return data[: draw.randrange(len(data))]
    return None if kind == "gone" else data + b"\0"


def _put(path: Path, data: bytes | None) -> None:
    path.unlink() if data is None else path.write_bytes(data)


def _tree(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {
        name: rng.normal(size=shape).astype(np.float32) for name, shape in (("w", (60, 40)), ("b", (40,)), ("n", ()))
    }


def _is_tree(tree: Any, step: int) -> bool:
    return all(np.asarray(tree[name]).tobytes() == array.tobytes() for name, array in _tree(step).items())


def damage(count: int, seed: int) -> Trial:
    from fdl.train.checkpoint import open_store
    from fdl.train.checkpoint.folder import name_of

    draw, wrong = random.Random(seed), []
    with scratch() as folder, open_store(folder) as store:
        for step in (1, 2):
            store.save(step, _tree(step), {"step": step})
        newest = folder / name_of(2)
        files = sorted(path for path in newest.rglob("*") if path.is_file())
        for number in range(count):
            path = files[number % len(files)]
            data = path.read_bytes()
            _put(path, _damaged(data, draw, ("flip", "flip", "cut", "longer", "gone")))
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                saved = store.newest(_tree(1))
            used = saved is not None and saved.step == 1 and _is_tree(saved.tree, 1)
            if not used or len(told) != 1 or path.name not in str(told[0].message):
                wrong.append(path.name)
            aside = newest.with_name(f"{newest.name}.damaged")
            if aside.exists():
                aside.rename(newest)
            path.write_bytes(data)
        saved = store.newest(_tree(2))
        if saved is None or saved.step != 2 or not _is_tree(saved.tree, 2):
            wrong.append("the step as it was saved, refused")
    text = f"damaged files noticed and named (of {len(files)}), and the step before used"
    text += f"; not {wrong[:5]}" if wrong else ""
    return Trial([Counted("fdl", "unequal" if wrong else "equal", f"{count - len(wrong)} of {count} noticed", text)])


def orbax(count: int, seed: int) -> Trial:
    with quiet():
        trial = _damage_of_orbax(count, seed)
        gc.collect()  # what its threads had left to say
        return trial


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Threads of orbax print the traceback of what is also raised here."""
    sys.stderr.flush()
    before = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _damage_of_orbax(count: int, seed: int) -> Trial:
    import orbax.checkpoint as ocp

    draw, seen = random.Random(seed), collections.Counter()
    with scratch() as folder, ocp.PyTreeCheckpointer() as checkpointer:
        saved = folder / "saved"
        checkpointer.save(saved, _tree(2))
        files = sorted(path for path in saved.rglob("*") if path.is_file())
        for number in range(count):
            path = files[number % len(files)]
            data = path.read_bytes()
            _put(path, _damaged(data, draw, ("flip", "cut")))
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    tree = checkpointer.restore(saved)
                seen["unharmed" if _is_tree(tree, 2) else "silent"] += 1
            except Exception:  # whatever it raises, it noticed
                seen["noticed"] += 1
            path.write_bytes(data)
    text = f"damaged files; {seen['unharmed']} without effect, {seen['silent']} read back wrong, silently"
    measured = f"{seen['noticed']} of {count} noticed"
    return Trial([Counted("orbax", "wrong" if seen["silent"] else "right", measured, text)])


# ---- a full disk, and rights


def full(count: int, seed: int) -> Trial:
    rows = []
    with scratch() as folder:
        rows.append(_refusals(folder / "limited", count, "a limit on the size of files", _file_limit))
        disk = folder / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)]
        try:
            subprocess.run(mount, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return Trial(
                [*rows, Counted("fdl", "not run", "", "a full disk: this process may not mount a file system")]
            )
        try:
            rows.append(_refusals(disk / "run", count, "a full disk", _filled))
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    return Trial(rows)


def _refusals(folder: Path, count: int, what: str, scarce: Callable[[Path, int], Any]) -> Counted:
    """Saves with so many bytes to write: from none to more than a step takes."""
    from fdl.train import Checkpoint, CheckpointError, checkpoints
    from fdl.train.checkpoint import open_store

    refused, wrong, last = 0, [], 1
    with open_store(Checkpoint(folder, keep=2)) as store:
        # the check of the free space would spare the disk; here it is to become full in the middle of a save
        store._require_space = lambda step, size: None
        store.save(1, _tree(1), {})
        for number in range(count):
            step, limit = number + 2, 30_000 * number // count
            try:
                with scarce(folder, limit), quiet():
                    store.save(step, _tree(step), {})
                last = step
            except CheckpointError:
                refused += 1
            saved = store.newest(_tree(1))
            if saved is None or saved.step != last or not _is_tree(saved.tree, last):
                wrong.append(step)
    wrong += [reason for _, reason in checkpoints(folder) if reason != "ok"]
    wrong += [] if 0 < refused < count else ["all refused, or none"]
    text = f"{what}: saves are refused, the others whole; the last whole step stays"
    text += f"; not so {wrong[:5]}" if wrong else ""
    return Counted("fdl", "unequal" if wrong else "equal", f"{refused} of {count} refused", text)


@contextlib.contextmanager
def _file_limit(folder: Path, limit: int) -> Iterator[None]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def _filled(folder: Path, limit: int) -> Iterator[None]:
    """A file takes all but about `limit` bytes of the file system."""
    filler, block = folder.parent / "filler", 1 << 12
    try:
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(block))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            file.truncate(max(0, file.tell() - 4 * limit // block * block))
        yield
    finally:
        filler.unlink(missing_ok=True)


def rights(count: int, seed: int) -> Trial:
    with scratch() as folder:
        folder.chmod(0o755)
        answers = [_life(lambda: _without_rights(folder)), _life(lambda: _two_writers(folder / "two"))]
    wanted = ("Permission denied", "is training into it")
    wrong = [answer for answer, words in zip(answers, wanted, strict=True) if words not in answer]
    text = f"but: {'; '.join(wrong)}" if wrong else "a folder without rights, and a second writer"
    measured = f"{len(wanted) - len(wrong)} of {len(wanted)} refused"
    return Trial([Counted("fdl", "unequal" if wrong else "equal", measured, text)])


def _opened(folder: Path) -> str:
    from fdl.train import CheckpointError
    from fdl.train.checkpoint import open_store

    try:
        with open_store(folder):
            return "opened"
    except CheckpointError as error:
        return error.reason


def _without_rights(folder: Path) -> str:
    mine = folder / "mine"
    mine.mkdir(mode=0o555)
    import fdl.train.checkpoint.arrays as arrays

    arrays.require_orbax(mine)  # imported while it may be read
    if os.getuid() == 0:
        os.setuid(65534)
    return _opened(mine)


def _two_writers(folder: Path) -> str:
    from fdl.train.checkpoint import open_store

    with open_store(folder):
        return _opened(folder)


PARTS = {"kills": kills, "splits": splits, "damage": damage, "orbax": orbax, "full": full, "rights": rights}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--full", action="store_true", help="many more of each")
    parser.add_argument("--count", type=int, metavar="N", help="so many of each instead")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of what is drawn (default: %(default)s)")
    given = parser.parse_args(arguments)
    if unknown := [part for part in given.parts if part not in PARTS]:
        parser.error(f"no part named {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    rows = rows_of(given.parts or list(PARTS), given.full, given.count, given.seed)
    print(table(rows))
    failed = [row for row in rows if row.status in FAILING]
    for row in failed:
        print(f"\n{row.status}: {row.work}: {row.note}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
