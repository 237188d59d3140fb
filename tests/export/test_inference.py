"""The exported function equals the model, and runs where fdl cannot be imported."""

import dataclasses
import json
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.errors import DataError, InputError, InputTypeError
from fdl.layers.activations import ACTIVATIONS

IMAGE, SEQUENCE, ROW = (9, 9, 3), (5, 3), (6,)

# every layer with parameters or a choice of its own; a symbolic batch has to pass through each
LAYERS = {
    "conv": (fdl.conv(4, (3, 3)), IMAGE),
    "conv, library": (fdl.conv(5, (3, 3)), (9, 9, 17)),
    "conv, winograd": (fdl.conv(24, (3, 3)), (12, 12, 24)),
    "conv, strides": (fdl.conv(4, (3, 3), strides=2, dilation=1, padding="VALID"), IMAGE),
    "conv, one channel": (fdl.conv(4, (3,)), (9, 1)),
    "conv_transpose": (fdl.conv_transpose(4, (3, 3), strides=2), IMAGE),
    "depthwise_conv": (fdl.depthwise_conv((3, 3)), IMAGE),
    "separable_conv": (fdl.separable_conv(4, (3, 3)), IMAGE),
    "max_pool": (fdl.max_pool((2, 2), padding="SAME"), IMAGE),
    "avg_pool": (fdl.avg_pool((3, 3), strides=2, padding="SAME"), IMAGE),
    "global_max_pool": (fdl.global_max_pool(), IMAGE),
    "global_avg_pool": (fdl.global_avg_pool(), IMAGE),
    "batch_norm": (fdl.batch_norm(), IMAGE),
    "group_norm": (fdl.group_norm(3), IMAGE),
    "instance_norm": (fdl.instance_norm(), IMAGE),
    "layer_norm": (fdl.layer_norm(), SEQUENCE),
    "rms_norm": (fdl.rms_norm(), SEQUENCE),
    "gru": (fdl.gru(4), SEQUENCE),
    "gru, reset after": (fdl.gru(4, variant="reset_after"), SEQUENCE),
    "gru, gates of biases": (fdl.gru(4, variant="type3"), SEQUENCE),
    "lstm": (fdl.lstm(4), SEQUENCE),
    "bidirectional": (fdl.bidirectional(fdl.rnn(4)), SEQUENCE),
    "last_step": (fdl.last_step(), SEQUENCE),
    "embedding": (fdl.embedding(7, 4), jax.ShapeDtypeStruct((5,), jnp.int32)),
    "parallel": (fdl.parallel(fdl.dense(3), fdl.dense(3), combine="concat"), ROW),
    "residual": (fdl.residual(fdl.dense(6), fdl.dropout(0.3)), ROW),
    "glu": (fdl.glu(), ROW),
    "prelu": (fdl.prelu(), ROW),
    "softmax": (fdl.softmax(), ROW),
    "log_softmax": (fdl.log_softmax(), ROW),
    "sparsemax": (fdl.sparsemax(), ROW),
    "flatten": (fdl.flatten(), IMAGE),
    **{name: (getattr(fdl, name)(), ROW) for name in ACTIVATIONS},
}


def drawn(model, shape, key):
    """Parameters and state of the model, biases and running averages not 0."""
    params, state = model.init(key, shape)
    params = jax.tree.map(lambda a: a + 0.3 * jax.random.normal(key, a.shape, a.dtype), params)
    return params, jax.tree.map(lambda a: a + 0.5 * jax.random.uniform(key, a.shape, a.dtype), state)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_takes_a_symbolic_batch(name, getkey):
    layer, shape = LAYERS[name]
    params, state = jax.eval_shape(lambda: layer.init(getkey(), shape))
    spec = shape if isinstance(shape, jax.ShapeDtypeStruct) else jax.ShapeDtypeStruct(shape, jnp.float32)
    (n,) = jax.export.symbolic_shape("n")
    run = lambda params, state, x: layer.apply(params, state, x)[0]
    y = jax.eval_shape(run, params, state, jax.ShapeDtypeStruct((n, *spec.shape), spec.dtype))
    assert y.shape[0] is n or str(y.shape[0]) == "n"


MODELS = {
    "mlp": (fdl.serial(fdl.dense(7), fdl.batch_norm(), fdl.relu(), fdl.dropout(0.4), fdl.dense(3)), ROW),
    "convnet": (
        fdl.serial(
            fdl.serial(fdl.conv(4, (3, 3)), norm=fdl.batch_norm()), fdl.relu(), fdl.max_pool((2, 2)), fdl.batch_norm(),
            fdl.flatten(), fdl.dense(3),
        ),
        IMAGE,
    ),
    "recurrent": (
        fdl.serial(fdl.embedding(7, 4), fdl.gru(5), fdl.last_step(), fdl.dense(2)),
        jax.ShapeDtypeStruct((5,), jnp.int32),
    ),
}  # fmt: skip
FOLDED = {"mlp": ("batch_norm_1",), "convnet": ("serial_0/norm",), "recurrent": ()}


@dataclasses.dataclass
class Case:
    model: fdl.Layer
    params: dict
    state: dict
    shape: Any

    def inputs(self, key, batch):
        spec = self.shape
        if isinstance(spec, jax.ShapeDtypeStruct):
            return jax.random.randint(key, (batch, *spec.shape), 0, 7, jnp.int32)
        return jax.random.normal(key, (batch, *spec), jnp.float32)

    def expected(self, x):
        return np.asarray(self.model.apply(self.params, self.state, x)[0])


@pytest.fixture
def case(request, getkey):
    model, shape = MODELS[request.param]
    return Case(model, *drawn(model, shape, getkey()), shape)


mlp = pytest.mark.parametrize("case", ["mlp"], indirect=True)

WITHOUT_FDL = """
import json, sys
sys.modules["fdl"] = None  # importing it raises
import numpy as np
for name in sys.argv[2:]:
    manifest = json.load(open(f"{name}.json"))
    given = np.load(f"{name}.npy")
    scope = {}
    exec("\\n".join(manifest["load"][:2]), scope)
    np.save(f"{name}.out.npy", scope["f"].call(given))
try:
    import fdl
except ImportError:
    print("no fdl")
"""


def test_the_files_run_where_fdl_cannot_be_imported(tmp_path, getkey):
    wanted = {}
    for name, (model, shape) in MODELS.items():
        case = Case(model, *drawn(model, shape, getkey()), shape)
        made = fdl.export.inference(tmp_path / name, model, case.params, case.state, shape)
        assert made.folded == FOLDED[name] and made.manifest["input"]["shape"][0] == "n"
        assert set(made.manifest["platforms"]) == {"cpu", "cuda", "tpu"}
        x = case.inputs(getkey(), 5)
        np.save(tmp_path / f"{name}.npy", x)
        wanted[name] = case.expected(x)
    command = [sys.executable, "-c", WITHOUT_FDL, "-", *MODELS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout.strip() == "no fdl"
    for name, y in wanted.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.out.npy"), y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", MODELS, indirect=True)
def test_a_loaded_function_equals_the_model_at_every_batch_size(case, tmp_path, getkey):
    made = fdl.export.inference(tmp_path / "model", case.model, case.params, case.state, case.shape)
    run = fdl.export.load_inference(tmp_path / "model")
    assert run.manifest == made.manifest
    for batch in (1, 7):
        x = case.inputs(getkey(), batch)
        np.testing.assert_allclose(run(x), case.expected(x), rtol=1e-5, atol=1e-5)
    x = np.asarray(x)
    for wrong in (x[:0], x[:, :1], x[0], x.astype(np.float16), x.tolist()):
        with pytest.raises(InputError, match="wanted (float32|int32)\\[n, "):
            run(wrong)


@mlp
def test_a_fixed_batch_and_no_folding(case, tmp_path, getkey):
    made = fdl.export.inference(
        tmp_path / "m", case.model, case.params, case.state, case.shape, batch=2, platforms=("cpu",), fold=False
    )
    assert made.folded == () and made.manifest["input"]["shape"] == [2, 6] and made.manifest["platforms"] == ["cpu"]
    assert [layer["name"] for layer in made.manifest["layers"]] == list(case.model.names)
    assert "float32[2, 6] -> float32[2, 3]" in str(made)
    x = case.inputs(getkey(), 2)
    run = fdl.export.load_inference(tmp_path / "m")
    np.testing.assert_allclose(run(x), case.expected(x), rtol=1e-6, atol=1e-6)
    with pytest.raises(InputError, match=r"x is float32\[3, 6\], wanted float32\[2, 6\]"):
        run(case.inputs(getkey(), 3))


@mlp
def test_the_manifest_is_json_and_says_what_was_folded(case, tmp_path):
    made = fdl.export.inference(tmp_path / "m", case.model, case.params, case.state, case.shape)
    manifest = json.loads((tmp_path / "m.json").read_text())
    assert manifest == made.manifest
    assert manifest["bytes"] == (tmp_path / "m").stat().st_size and manifest["folded"] == ["batch_norm_1"]
    assert manifest["layers"][0] == {"name": "dense_0", "kind": "dense"}
    assert manifest["versions"]["jax"] == jax.__version__ and manifest["parameters"] == 6 * 7 + 7 + 7 * 3 + 3
    assert "folded into the layer before: batch_norm_1" in str(made)


@mlp
def test_damaged_and_foreign_files_are_refused(case, tmp_path):
    path, beside = tmp_path / "m", tmp_path / "m.json"
    fdl.export.inference(path, case.model, case.params, case.state, case.shape, platforms=("cpu",))
    data, text = path.read_bytes(), beside.read_text()

    def refused(words, artefact=data, manifest=text):
        path.write_bytes(artefact)
        beside.write_text(manifest)
        with pytest.raises(DataError, match=words):
            fdl.export.load_inference(path)

    refused("SHA-256 differs", artefact=data[:-1])
    refused("SHA-256 differs", artefact=data[:50] + bytes([data[50] ^ 1]) + data[51:])
    refused("m.json: is not a manifest", manifest=text[:-3])
    refused("m.json: is not a manifest", manifest="{}")
    refused("'sha256' is 3", manifest=json.dumps(json.loads(text) | {"sha256": 3}))
    refused("is for tpu, and this is cpu", manifest=json.dumps(json.loads(text) | {"platforms": ["tpu"]}))
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        fdl.export.load_inference(path)


@mlp
def test_what_cannot_be_exported_is_refused_and_writes_nothing(case, tmp_path):
    make = lambda model=case.model, params=case.params, shape=case.shape, **more: fdl.export.inference(
        tmp_path / "m", model, params, case.state, shape, **more
    )
    for attempt, kind, words in (
        (lambda: make(model="mlp"), InputTypeError, "wanted an fdl.Layer"),
        (lambda: make(shape=6), InputTypeError, "wanted the shape of one example"),
        (lambda: make(batch=0), InputError, "batch is 0"),
        (lambda: make(platforms=("gpu",)), InputError, "platforms is .*wanted some of .*cuda"),
        (lambda: make(platforms="cpu"), InputError, "platforms is 'cpu'"),
        (lambda: make(shape=(5,)), InputError, "dense_0"),
    ):
        with pytest.raises(kind, match=words):
            attempt()
    assert not list(tmp_path.iterdir())


def test_a_layer_that_looks_at_the_batch_size_needs_one(tmp_path):
    odd = lambda x: -x if x.shape[0] > 3 else x
    layer = fdl.Layer.from_op("odd", fdl.Op(odd, lambda x: (odd(x), x.shape[0]), lambda n, dy: (dy,)))
    with pytest.raises(Exception, match="inconclusive") as caught:
        fdl.export.inference(tmp_path / "m", layer, {}, {}, (2,))
    assert "pass batch=" in caught.value.__notes__[-1] and not list(tmp_path.iterdir())
    fdl.export.inference(tmp_path / "m", layer, {}, {}, (2,), batch=5)
    assert (fdl.export.load_inference(tmp_path / "m")(jnp.ones((5, 2), jnp.float32)) == -1).all()
