"""The counts of reliability notice what they count: a part fails when what it claims is broken."""

import contextlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import reliability
from benchmarks._harness import Settings, Trial
from fdl.train import Saved
from fdl.train.checkpoint import Store
from fdl.train.fit import Result

pytest.importorskip("orbax.checkpoint")


def test_damage_is_counted(monkeypatch):
    assert reliability.damage(9, 0).result[0][1] == "equal"
    monkeypatch.setattr(Store, "newest", lambda self, like: Saved(2, reliability._tree(2), {}))
    _, status, measured, text = reliability.damage(2, 0).result[0]
    assert status == "unequal" and measured == "0 of 2 noticed" and "; not [" in text


def test_damage_has_to_be_told(monkeypatch):
    monkeypatch.setattr(Store, "_warn", lambda self, reason, consequence: None)
    assert reliability.damage(2, 0).result[0][1] == "unequal"


def test_refused_saves_are_counted(tmp_path, monkeypatch):
    @contextlib.contextmanager
    def scarce(folder, limit):
        def full(path, data):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            if limit < 10_000:
                patch.setattr("fdl.train.checkpoint.write.write_flushed", full)
            yield

    _, status, measured, _ = reliability._refusals(tmp_path / "a", 4, "a limit", scarce)
    assert status == "equal" and measured == "2 of 4 refused"
    _, status, _, text = reliability._refusals(
        tmp_path / "b", 2, "no limit", lambda folder, limit: contextlib.nullcontext()
    )
    assert status == "unequal" and "all refused, or none" in text


def test_a_digest_is_that_of_every_bit():
    def digest(w=1.0, dtype=jnp.float32, count=0, loss=0.5, steps=3):
        return reliability.digest(Result({"w": jnp.asarray(w, dtype)}, {}, {"loss": np.array([loss])}, [count], steps))

    different: tuple[dict[str, Any], ...] = (
        {},
        {"w": 1 + 2**-23},
        {"w": -1.0},
        {"dtype": jnp.float64},
        {"count": 1},
        {"loss": 0.25},
        {"steps": 4},
    )
    assert digest() == digest() and len({digest(**change) for change in different}) == len(different)


def test_steps_and_unfinished_saves_are_seen(tmp_path):
    assert reliability._last_step(tmp_path) == 0 and not reliability._in_a_save(tmp_path)
    for name in ("lock", "step_0000000012", "step_0000000003", "step_0000000020.damaged"):
        (tmp_path / name).mkdir()
    assert reliability._last_step(tmp_path) == 12 and not reliability._in_a_save(tmp_path)
    (tmp_path / "step_0000000016.tmp").mkdir()
    assert reliability._in_a_save(tmp_path)


@pytest.mark.parametrize("status", ["equal", "unequal", "failed", "wrong"])
def test_what_is_wrong_with_fdl_sets_the_exit_code(monkeypatch, status, capsys):
    def result_of(part, how):
        if status == "failed":
            raise RuntimeError("it ended")
        assert part is reliability.kills and how == {"count": 3, "seed": 5}
        return Trial([("fdl", status, "so many", "of them")]).result

    monkeypatch.setattr(reliability, "result_of", result_of)
    code = reliability.main(["kills", "--count", "3", "--seed", "5"])
    assert code == (status in ("unequal", "failed"))
    assert ("it ended" if status == "failed" else "so many") in capsys.readouterr().out


def test_without_orbax_nothing_is_run(monkeypatch):
    monkeypatch.setattr(reliability, "missing", lambda modules: list(modules))
    (row,) = reliability.run(Settings())
    assert row.status == "not installed" and "fdl[checkpoint]" in row.note
