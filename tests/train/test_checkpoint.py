"""Checkpoints: every bit comes back, every damaged one is found, and what fails leaves the steps before as they were."""

import math
import os
import shutil
import signal
import sys
import threading
import time
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fdl.errors import InputError, InputTypeError
from fdl.train import Checkpoint, CheckpointError, checkpoints, restore
from fdl.train.checkpoint import manifest as manifests
from fdl.train.checkpoint import open_store, store, write
from fdl.train.checkpoint.errors import Damaged
from fdl.train.checkpoint.folder import name_of
from fdl.train.checkpoint.read import damage, read_manifest
from fdl.train.checkpoint.signals import ECHO
from fdl.train.checkpoint.tree import as_bytes

pytest.importorskip("orbax.checkpoint")

SMALL = {"w": jnp.arange(6.0, dtype=jnp.float32).reshape(2, 3), "count": jnp.asarray(3, jnp.int32)}


def saved_steps(folder, *steps, tree=None, facts=None, **settings):
    with open_store(Checkpoint(folder, **settings)) as opened:
        for step in steps:
            opened.save(step, SMALL if tree is None else tree, facts or {})


def bits(leaf):
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(jax.random.key_impl(leaf)), leaf.shape, as_bytes(np.asarray(jax.random.key_data(leaf))).tobytes()
    return leaf.dtype, leaf.shape, as_bytes(np.asarray(leaf, order="C")).tobytes()


def same_bits(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(map(_same, jax.tree.leaves(a), jax.tree.leaves(b)))


def _same(a, b):
    return bits(a) == bits(b) and isinstance(a, jax.Array) == isinstance(b, jax.Array)


@pytest.fixture
def hard(getkey):
    """What formats lose: small floats, NaN payloads, 0-d and empty arrays, keys, named tuples, empty nodes."""
    random = np.random.default_rng(0)
    every = {
        name: jnp.asarray(random.integers(0, 255, 3 * jnp.dtype(name).itemsize, np.uint8).view(name))
        for name in ("bfloat16", "float16", "float32", "float64", "int8", "uint64", "complex64", "float8_e4m3fn")
    }
    params = {"dense_0": {"w": jax.random.normal(getkey(), (5, 3)), "b": jnp.zeros((), jnp.bfloat16)}, "empty": {}}
    return {
        "params": params,
        "state": {},
        "opt": optax.chain(optax.clip(1.0), optax.adam(optax.linear_schedule(1.0, 0.0, 9))).init(params),
        "nan": jnp.asarray(np.array([0x7FC00001, 0xFFA00000, 0x80000000], np.uint32).view(np.float32)),
        "mask": jnp.array([True, False]),
        "few": jnp.asarray([1, -2], jnp.int4),
        "none": [None, (), jnp.zeros((0, 3), jnp.float16)],
        "key": jax.random.key(3),
        "keys": jax.random.split(jax.random.key(1, impl="rbg"), 2),
        "old": jax.random.PRNGKey(5),
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "every": every,
    }


def test_every_bit_comes_back(tmp_path, hard):
    facts = {"history": {"loss": [0.1, math.nan, -math.inf]}, "best": np.bool_(True), "split": (1, np.float32(0.5))}
    with open_store(tmp_path / "a" / "b") as opened:
        assert opened.newest(hard) is None
        opened.save(7, hard, facts)
        opened.save(8, {}, {})
        opened.save(7, hard, facts)  # again
    with open_store(tmp_path / "a" / "b") as opened:
        assert opened.steps == [7, 8]
    saved = restore(tmp_path / "a" / "b", hard, 7)
    assert saved.step == 7 and same_bits(saved.tree, hard)
    assert saved.facts["best"] is True and saved.facts["split"] == [1, 0.5]
    loss = saved.facts["history"]["loss"]
    assert loss[0] == 0.1 and math.isnan(loss[1]) and loss[2] == -math.inf
    spec = jax.eval_shape(lambda: {k: v for k, v in hard.items() if k != "transposed"})
    with pytest.raises(CheckpointError, match="'transposed' is not wanted"):
        restore(tmp_path / "a" / "b", spec, 7)
    assert restore(tmp_path / "a" / "b").tree == {}


def test_without_like_it_is_dicts_and_lists(tmp_path, hard):
    saved_steps(tmp_path, 1, tree=hard)
    tree = restore(tmp_path).tree
    assert type(tree["opt"]) is list and tree["opt"][0] == {} and set(tree["opt"][1][0]) == {"count", "mu", "nu"}
    assert tree["none"][:2] == [None, []] and tree["params"]["empty"] == {} and tree["state"] == {}
    assert bits(tree["opt"][1][0]["mu"]["dense_0"]["w"]) == bits(hard["opt"][1][0].mu["dense_0"]["w"])
    assert all(bits(a) == bits(b) for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(hard), strict=True))


def test_leaves_go_where_like_has_them(tmp_path):
    device = jax.devices()[0]
    mesh = jax.sharding.NamedSharding(jax.make_mesh((1,), ("data",)), jax.sharding.PartitionSpec("data"))
    saved_steps(tmp_path, 1, tree={"a": jnp.ones(2), "b": jnp.ones(2), "c": jnp.ones(2)})
    like = {"a": jax.device_put(jnp.ones(2), device), "b": jnp.ones(2), "c": jax.ShapeDtypeStruct((2,), float)}
    like["c"] = like["c"].update(sharding=mesh)
    tree = restore(tmp_path, like).tree
    assert tree["a"].committed and not tree["b"].committed and tree["c"].sharding == mesh


@pytest.mark.parametrize(
    ("like", "words"),
    [
        ({"w": jnp.zeros((2, 4), jnp.float32), "count": SMALL["count"]}, r"'w' is float32\[2, 3\], wanted .*\[2, 4\]"),
        ({"w": SMALL["w"].astype(jnp.bfloat16), "count": SMALL["count"]}, r"'w' is float32.*, wanted bfloat16"),
        ({"w": SMALL["w"], "count": jax.random.key(0)}, r"'count' is int32\[\], wanted key<fry>\[\]"),
        ({**SMALL, "more": {"b": jnp.zeros(1)}}, r"no leaf 'more/b', wanted float64\[1\]"),
        ({"w": SMALL["w"]}, "'count' is not wanted"),
    ],
)
def test_a_misfit_is_refused_by_name(tmp_path, like, words):
    saved_steps(tmp_path, 4)
    with (
        open_store(tmp_path) as opened,
        pytest.raises(CheckpointError, match=f"step 4 does not fit: .*{words}") as error,
    ):
        opened.newest(like)
    assert error.value.folder == str(tmp_path) and "another folder" in error.value.remedy


def test_a_key_of_another_kind_does_not_fit(tmp_path):
    saved_steps(tmp_path, 1, tree={"key": jax.random.key(0, impl="rbg")})
    with pytest.raises(CheckpointError, match="'key'"):
        restore(tmp_path, {"key": jax.random.key(0, impl="unsafe_rbg")})


def _flipped(data, place):
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def test_any_damage_to_any_file_is_found(tmp_path):
    saved_steps(tmp_path, 1)
    files = [path for path in (tmp_path / name_of(1)).rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        data = path.read_bytes()
        damaged = [_flipped(data, place) for place in (0, len(data) // 2, len(data) - 1)]
        for wrong in [*damaged, data[:-1], data[: len(data) // 2], b"", data + b"\0", None]:
            path.unlink() if wrong is None else path.write_bytes(wrong)
            reason = damage(tmp_path, 1)
            assert reason is not None and (path.name in reason), (path, reason)
        path.write_bytes(data)
    assert damage(tmp_path, 1) is None
    (tmp_path / name_of(1) / "arrays" / "more").write_bytes(b"")
    assert damage(tmp_path, 1) == "file arrays/more is not in the manifest"


def test_an_array_that_orbax_reads_back_wrong_is_found(tmp_path):
    """The files are as they were written, and yet the array is another: only its own checksum tells."""
    saved_steps(tmp_path, 1)
    path, manifest = tmp_path / name_of(1) / manifests.NAME, read_manifest(tmp_path, 1)
    w = next(leaf for leaf in manifest["leaves"] if leaf["name"] == "w")
    for wrong in ({"sha256": "0" * 64}, {"shape": [3, 2]}, {"dtype": "int32"}, {"dtype": "nonsense"}):
        leaves = [leaf | wrong if leaf is w else leaf for leaf in manifest["leaves"]]
        path.write_bytes(manifests.encoded(1, manifest["tree"], leaves, manifest["files"], {}))
        assert (reason := damage(tmp_path, 1)) is not None and "leaf 'w'" in reason


@pytest.mark.parametrize(
    "text",
    [
        '"step": 1, "step": 2',
        '"facts": NaN',
        '"facts": ' + "[" * 100_000,
        '"format": 2',
        '"format": 1, "leaves": [3]',
        "{",
    ],
)
def test_a_manifest_that_was_not_written_here_is_refused(text):
    rest = text.encode() + b"}"
    with pytest.raises(Damaged, match="manifest.json"):
        manifests.decoded(b'{"sha256": "%s",\n' % manifests.digest(rest).encode() + rest)


def test_the_newest_that_verifies_is_used_and_damaged_ones_stay(tmp_path):
    saved_steps(tmp_path, 1, 2, 3)
    for step in (2, 3):
        next((tmp_path / name_of(step) / "arrays").rglob("_METADATA")).write_bytes(b"{}")
    assert [step for step, reason in checkpoints(tmp_path) if reason == "ok"] == [1]
    with pytest.raises(CheckpointError, match="step 3 is damaged: file arrays/_METADATA has the size 2"):
        restore(tmp_path)
    with open_store(tmp_path) as opened, pytest.warns(RuntimeWarning) as told:
        saved = opened.newest(SMALL)
        opened.save(2, SMALL, {})
    assert saved is not None and saved.step == 1 and same_bits(saved.tree, SMALL)
    for warning, step in zip(told, (3, 2), strict=True):
        assert f"step {step} is damaged: file arrays/_METADATA has the size 2" in str(warning.message)
    with open_store(tmp_path) as opened:
        (tmp_path / name_of(2) / manifests.NAME).unlink()
        with pytest.warns(RuntimeWarning, match="damaged-2"):
            opened.newest(SMALL)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("lock", name_of(1)),
        *(f"{name_of(step)}.damaged{more}" for step, more in ((2, ""), (2, "-2"), (3, ""))),
    }
    (tmp_path / name_of(1) / manifests.NAME).unlink()
    with open_store(tmp_path) as opened, pytest.warns(RuntimeWarning, match="no step verifies|step 1 is damaged"):
        assert opened.newest(SMALL) is None


def test_all_is_flushed_before_the_step_gets_its_name_and_the_name_after(tmp_path, monkeypatch):
    flushed, fsync, rename, at_rename = [], os.fsync, type(tmp_path).rename, []

    def noting_fsync(descriptor):
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def noting_rename(path, target):
        if path.suffix == ".tmp":
            inside = [path, *path.rglob("*")]
            assert len(inside) > 8 and {entry.stat().st_ino for entry in inside} <= set(flushed)
            assert flushed[-2:] == [(path / manifests.NAME).stat().st_ino, path.stat().st_ino]
            at_rename.append(len(flushed))
        return rename(path, target)

    with open_store(tmp_path) as opened:
        monkeypatch.setattr(os, "fsync", noting_fsync)
        monkeypatch.setattr(type(tmp_path), "rename", noting_rename)
        opened.save(1, SMALL, {})
    assert len(at_rename) == 1 and tmp_path.stat().st_ino in flushed[at_rename[0] :]


def test_what_is_kept(tmp_path):
    with open_store(Checkpoint(tmp_path, keep=2)) as opened:
        for step in range(1, 7):
            opened.save(step, SMALL, {"best": step in (2, 3)})
        assert opened.steps == [3, 5, 6]


def test_what_an_interrupted_save_left_is_cleared(tmp_path):
    saved_steps(tmp_path, 1, 2, 3)
    name = name_of
    shutil.copytree(tmp_path / name(1), tmp_path / f"{name(9)}.tmp")
    shutil.copytree(tmp_path / name(1), tmp_path / f"{name(3)}.replaced")
    (tmp_path / name(1)).rename(tmp_path / f"{name(1)}.deleted")
    (tmp_path / name(2)).rename(tmp_path / f"{name(2)}.replaced")  # and its successor did not arrive
    (tmp_path / "mine.tmp").mkdir()
    with open_store(tmp_path) as opened:
        assert opened.steps == [2, 3]
    assert {path.name for path in tmp_path.iterdir()} == {"lock", "mine.tmp", name(2), name(3)}
    assert [reason for _, reason in checkpoints(tmp_path)] == ["ok", "ok"]


@pytest.mark.parametrize("where", ["arrays.write", "write_flushed", "_publish"])
def test_a_save_that_fails_leaves_the_steps_before(tmp_path, monkeypatch, where):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    saved_steps(tmp_path, 1, 2, 3)
    with open_store(Checkpoint(tmp_path, keep=1)) as opened:
        monkeypatch.setattr(f"fdl.train.checkpoint.write.{where}", full)
        for step in (3, 4):
            with pytest.raises(CheckpointError, match=rf"cannot save step {step} \(No space left on device\)"):
                opened.save(step, SMALL, {})
    assert checkpoints(tmp_path) == [(1, "ok"), (2, "ok"), (3, "ok")]
    assert {path.name for path in tmp_path.iterdir()} == {"lock", *map(name_of, (1, 2, 3))}


def test_no_save_without_room(tmp_path, monkeypatch):
    with open_store(tmp_path) as opened:
        monkeypatch.setattr(store.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1))
        with pytest.raises(CheckpointError, match="the disk has 1 left; make room"):
            opened.save(1, SMALL, {})
        assert opened.steps == []


def test_what_is_read_back_wrong_does_not_count_and_deletes_nothing(tmp_path, monkeypatch):
    publish = write._publish

    def rots(unfinished, target):
        data = next(path for path in (unfinished / "arrays").rglob("*") if path.is_file())
        data.write_bytes(_flipped(data.read_bytes(), 0))
        publish(unfinished, target)

    with open_store(Checkpoint(tmp_path, keep=1)) as opened:
        opened.save(1, SMALL, {})
        monkeypatch.setattr(write, "_publish", rots)
        with pytest.raises(
            CheckpointError, match="step 2, read back after saving, is not what was saved: file arrays/"
        ):
            opened.save(2, SMALL, {})
        assert opened.steps == [1]
    assert (tmp_path / f"{name_of(2)}.damaged").is_dir()


def test_a_second_writer_is_refused(tmp_path):
    with open_store(tmp_path):
        with (
            pytest.raises(CheckpointError, match=f"process {os.getpid()} on .* is training into it"),
            open_store(tmp_path),
        ):
            pass
    with open_store(tmp_path):
        pass


def test_due(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(store.time, "monotonic", lambda: now[0])
    with open_store(Checkpoint(tmp_path, seconds=5, steps=10)) as opened:
        assert [opened.due(step) for step in (0, 9, 10, 11)] == [False, False, True, True]
        opened.save(11, SMALL, {})
        assert [opened.due(step) for step in (12, 20, 21)] == [False, False, True]
        now[0] += 5
        assert opened.due(12)
    with open_store(Checkpoint(tmp_path, seconds=None)) as opened:
        now[0] += 1e9
        assert not opened.due(10**9)
        opened.newest(SMALL)
        assert opened._last[1] == 11


def test_the_first_signal_is_remembered_and_the_second_ends(tmp_path, monkeypatch):
    left = []
    monkeypatch.setattr("fdl.train.checkpoint.signals.os._exit", left.append)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with open_store(Checkpoint(tmp_path, seconds=None)) as opened:
        assert opened.signal is None and opened.exit_code == 0 and not opened.due(1)
        signal.raise_signal(signal.SIGTERM)
        assert opened.signal is signal.SIGTERM and opened.exit_code == 143 and opened.due(1) and not left
        signal.raise_signal(signal.SIGTERM)  # an echo
        time.sleep(1.2 * ECHO)
        assert not left
        signal.raise_signal(signal.SIGINT)
        assert set(left) == {130}
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_another_thread_saves_without_handlers(tmp_path):
    handlers = []

    def train():
        with open_store(tmp_path) as opened:
            handlers.append(signal.getsignal(signal.SIGINT))
            opened.save(1, SMALL, {})

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert handlers == [before] and checkpoints(tmp_path) == [(1, "ok")]


def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path):
    with open_store(tmp_path) as opened:
        for tree, words in (
            ({"a": {"b": 3}}, "a/b is int 3"),
            ({"a": np.array(["x"])}, "a is <U1"),
            ({"a": len}, "a is b"),
        ):
            with pytest.raises(InputTypeError, match=words):
                opened.save(1, tree, {})
        with pytest.raises(InputError, match="two leaves are called 'a/b'"):
            opened.save(1, {"a": {"b": jnp.ones(1)}, "a/b": jnp.ones(1)}, {})
        for facts, words in (
            ({"a": [1, len]}, r"facts\['a'\]\[1\] is b"),
            ({1: 2}, "the key int 1"),
            ([], "facts is list"),
        ):
            with pytest.raises(InputTypeError, match=words):
                opened.save(1, SMALL, facts)
        with pytest.raises(InputError, match="__float__"):
            opened.save(1, SMALL, {"a": {"__float__": "nan"}})
        wrong: list[Any] = [-1, 1.0, True]
        for step in wrong:
            with pytest.raises(InputError, match="step is"):
                opened.save(step, SMALL, {})
        assert opened.steps == []


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"folder": 3}, InputTypeError, "folder is int 3"),
        ({"folder": ""}, InputError, "folder is empty"),
        ({"seconds": 0}, InputError, "seconds is 0"),
        ({"seconds": math.nan}, InputError, "seconds is nan"),
        ({"seconds": "1"}, InputTypeError, "seconds is str '1'"),
        ({"steps": 0}, InputError, "steps is 0"),
        ({"keep": 0}, InputError, "keep is 0"),
    ],
)
def test_settings_are_refused_at_the_door(settings, error, words):
    with pytest.raises(error, match=words):
        Checkpoint(**{"folder": "a"} | settings)


def test_folders_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="is not a folder"):
        checkpoints(tmp_path / "a")
    with pytest.raises(InputTypeError, match="folder is int 3"):
        restore(3)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        restore(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be made into a folder"), open_store(tmp_path / "file"):
        pass
    saved_steps(tmp_path, 1, 3)
    with pytest.raises(CheckpointError, match="there is no step 2; it has 1, 3"):
        restore(tmp_path, step=2)
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(CheckpointError, match=r"pip install 'fdl\[checkpoint\]'"):
        restore(tmp_path)
