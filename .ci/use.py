"""One use of what an extra brings, or of what is there without any: python use.py core | lab | checkpoint | ..."""

import importlib.metadata
import importlib.util
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fdl

LOSS = fdl.losses.softmax_cross_entropy_with_integer_labels
MODEL = fdl.serial(fdl.dense(16), fdl.relu(), fdl.dense(10))
FOLDER = Path(tempfile.mkdtemp())


def parameters():
    return MODEL.init(jax.random.key(0), (64,))


def fit(**settings):
    train, _ = fdl.data.digits()
    return fdl.train.fit(
        MODEL, LOSS, optax.adam(3e-3), train, epochs=3, batch_size=32, key=jax.random.key(0), **settings
    )


def core():
    (x, y), _ = fdl.data.digits()
    params, state = parameters()
    (_, _), grads = fdl.backprop.value_and_grad(MODEL, LOSS)(params, state, x[:32], y[:32])
    want = jax.grad(lambda p: jnp.mean(LOSS.equation(MODEL.equation(p, state, x[:32])[0], y[:32])))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, want)
    fit()
    report = fdl.check.gradients(fdl.losses.huber, jnp.float32([[2.0, 0.3]]), jnp.float32([[0.0, 0.0]]))
    assert report.ok, str(report)
    jax.block_until_ready(fdl.doctor.examine(MODEL, LOSS, params, state, x[:32], y[:32]))
    weights = fdl.convert.dense(params["dense_0"], source="fdl", target="torch")
    assert weights["weight"].shape == (16, 64)
    if importlib.util.find_spec("safetensors") is None:
        try:
            fdl.export.save_params(FOLDER / "params.safetensors", params)
        except fdl.errors.InputError as error:
            assert "pip install 'fdl[export]'" in str(error)
        else:
            raise AssertionError("saved without the extra")


def lab():
    from fdl.doctor import pictures

    params, state = parameters()
    (x, y), _ = fdl.data.digits()
    assert pictures.write_pictures(FOLDER / "pictures", fdl.doctor.examine(MODEL, LOSS, params, state, x[:32], y[:32]))


def checkpoint():
    fit(checkpoint=FOLDER / "run")
    assert fdl.train.checkpoints(FOLDER / "run")


def export():
    params, _ = parameters()
    path = FOLDER / "params.safetensors"
    fdl.export.save_params(path, params)
    jax.tree.map(np.testing.assert_array_equal, fdl.export.load_params(path)[0], params)


def tensorboard():
    fit(callbacks=(fdl.train.tensorboard_writer(FOLDER / "events"),))
    assert list((FOLDER / "events").iterdir())


def doctor():
    from fdl.doctor.page import write_page

    fdl.doctor.save(FOLDER / "record", fit(doctor=10))
    assert write_page(FOLDER / "page.html", fdl.doctor.load(FOLDER / "record")).stat().st_size > 100_000


def test():
    import pytest
    import xdist  # noqa: F401

    (FOLDER / "test_one.py").write_text("def test_one():\n    pass\n")
    assert pytest.main(["-q", "-n0", str(FOLDER)]) == 0


if __name__ == "__main__":
    assert "site-packages" in fdl.__file__, f"fdl is {fdl.__file__}: not the installed one"
    {f.__name__: f for f in (core, lab, checkpoint, export, tensorboard, doctor, test)}[sys.argv[1]]()
    print(f"{sys.argv[1]}: works with jax {jax.__version__}, fdl {importlib.metadata.version('fdl')}")
