"""Parameters in a safetensors file: every bit comes back, and what is not such a file is refused by name."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.errors import DataError, InputError, InputTypeError

MODEL = fdl.serial(fdl.dense(3), fdl.batch_norm(), fdl.serial(fdl.relu(), out=fdl.dense(2)))


def bits(tree):
    return jax.tree.map(lambda a: (str(a.dtype), a.shape, np.asarray(a).tobytes()), tree)


@pytest.fixture
def saved(tmp_path, getkey):
    """(path, params, state) of a model with random biases."""
    params, state = jax.tree.map(lambda a: jax.random.normal(getkey(), a.shape, a.dtype), MODEL.init(getkey(), (5,)))
    path = tmp_path / "model.safetensors"
    fdl.export.save_params(path, params, state, {"run": "seven"})
    return path, params, state


def test_a_model_comes_back_bit_for_bit(saved):
    path, params, state = saved
    loaded = fdl.export.load_params(path, like=jax.eval_shape(lambda: MODEL.init(jax.random.key(0), (5,))))
    assert bits(loaded) == bits((params, state))
    assert all(isinstance(a, jax.Array) for a in jax.tree.leaves(loaded))
    assert fdl.export.load_metadata(path) == {"run": "seven"}


def test_other_programs_read_the_names(saved):
    import safetensors.numpy

    path, params, _ = saved
    read = safetensors.numpy.load_file(path)
    assert "params/serial_2/out/w" in read and "state/batch_norm_1/mean" in read
    np.testing.assert_array_equal(read["params/dense_0/w"], params["dense_0"]["w"])


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float16", "float64", "float8_e4m3fn", "float8_e5m2", "complex64", "int8", "uint32", "bool"]
)
def test_every_dtype_comes_back_bit_for_bit(tmp_path, getkey, dtype):
    random = jax.random.bits(getkey(), (2, 3), jnp.uint8)
    values = random % 2 == 1 if dtype == "bool" else random.astype(dtype)
    tree = {
        "z": {"matrix": values, "scalar": values[0, 0], "none": values[:0], "transposed": values.T},
        "empty": {},
    }  # in no alphabetical order
    fdl.export.save_params(tmp_path / "f", tree)
    params, state = fdl.export.load_params(tmp_path / "f")
    assert bits(params) == bits(tree) and params["empty"] == {} and state == {}
    assert list(params) == ["z", "empty"] and list(params["z"]) == list(tree["z"])


def test_nan_payloads_and_big_endian_arrays_keep_their_values(tmp_path):
    odd = np.asarray([0x7FC00123, 0xFFC00001, 0x80000000], np.uint32).view(np.float32)
    fdl.export.save_params(tmp_path / "f", {"odd": odd, "big": np.asarray([1.5, -2.0], ">f4")})
    params, _ = fdl.export.load_params(tmp_path / "f")
    assert np.asarray(params["odd"]).tobytes() == odd.tobytes()
    assert params["big"].dtype == jnp.float32 and params["big"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("tree", "kind", "words"),
    [
        ({"dense": {"w": 1.5}}, InputTypeError, "params/dense/w is float 1.5"),
        ({"dense": [jnp.ones(2)]}, InputTypeError, "params/dense is list"),
        ({"dense/w": jnp.ones(2)}, InputError, "'dense/w'"),
        ({1: jnp.ones(2)}, InputError, "named 1"),
        ({"noise": jax.random.key(0)}, InputTypeError, "jax.random.key_data"),
        ({"w": jnp.ones(2, jnp.complex128)}, InputTypeError, r"params/w is complex128\[2\]"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path, tree, kind, words):
    with pytest.raises(kind, match=words):
        fdl.export.save_params(tmp_path / "f", tree)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("metadata", [{"epoch": 7}, {"fdl": "mine"}])
def test_metadata_are_texts_under_names_of_their_own(tmp_path, metadata):
    with pytest.raises(ValueError if "fdl" in metadata else TypeError, match="metadata has"):
        fdl.export.save_params(tmp_path / "f", {}, metadata=metadata)


def test_every_cut_and_every_flipped_byte_is_noticed(saved):
    path, params, state = saved
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for damaged in (
        *(whole[:length] for length in (0, 7, 8, start - 1, start, len(whole) - 1)),
        *(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in (0, start, start + 33, len(whole) - 1)),
        whole + b"\0",
        b"\x80\x04 a pickle, say",
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"model\.safetensors"):
            fdl.export.load_params(path)
    path.write_bytes(whole)
    assert bits(fdl.export.load_params(path)) == bits((params, state))


def test_files_of_other_programs(tmp_path):
    import safetensors.numpy

    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    safetensors.numpy.save_file({"params/dense_0/w": array}, tmp_path / "ours")
    assert fdl.export.load_params(tmp_path / "ours")[0]["dense_0"]["w"].tolist() == array.tolist()
    for names in (["layer.weight"], ["params"], ["params//w"], ["params/a", "params/a/b"]):
        safetensors.numpy.save_file(dict.fromkeys(names, array), tmp_path / "theirs")
        with pytest.raises(DataError, match=names[-1].replace(".", r"\.")):
            fdl.export.load_params(tmp_path / "theirs")
    for ours in ("[", "[]", '{"format": 2}', '{"names": ["params/b"]}', '{"names": 3}'):
        safetensors.numpy.save_file({"params/a": array}, tmp_path / "odd", {"fdl": ours})
        with pytest.raises(DataError, match="metadata"):
            fdl.export.load_params(tmp_path / "odd")


def test_what_does_not_fit_is_refused_by_name(saved):
    path, params, state = saved

    def other(**changed):
        return {**params, **changed}, state

    w, b = params["dense_0"]["w"], params["dense_0"]["b"]
    for like, words in (
        (other(dense_0={"w": w[:4], "b": b}), r"'params/dense_0/w' is float32\[5, 3\], wanted float32\[4, 3\]"),
        (other(dense_0={"w": w, "b": b.astype(jnp.float16)}), r"'params/dense_0/b' is float32\[3\], wanted float16"),
        (other(dense_0={"w": w}), "'params/dense_0/b' is not in like"),
        (other(dense_7={"w": w}), "'params/dense_7/w' is missing"),
        ((params, {}), "'state/batch_norm_1/"),
    ):
        with pytest.raises(DataError, match=words):
            fdl.export.load_params(path, like=like)
    with pytest.raises(InputTypeError, match="wanted \\(params, state\\)"):
        fdl.export.load_params(path, like=params)


def test_64_bits_are_not_cut_to_32(tmp_path):
    fdl.export.save_params(tmp_path / "f", {"w": jnp.ones(2, jnp.float64)})
    with jax.enable_x64(False), pytest.raises(DataError, match="'params/w' is float64.*jax_enable_x64"):
        fdl.export.load_params(tmp_path / "f")


def test_an_interrupted_write_leaves_the_old_file_whole(saved, monkeypatch):
    path, params, state = saved
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fdl.export.save_params(path, {}, {})
    assert bits(fdl.export.load_params(path)) == bits((params, state))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_paths_that_cannot_be_used_and_a_missing_extra(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="cannot be written"):
        fdl.export.save_params(tmp_path / "no" / "folder", {})
    with pytest.raises(DataError, match="cannot be read"):
        fdl.export.load_params(tmp_path)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(InputError, match=r"pip install 'fdl\[export\]'"):
        fdl.export.save_params(tmp_path / "f", {})


def test_the_header_says_what_wrote_it(saved):
    data = saved[0].read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    ours = json.loads(header["__metadata__"]["fdl"])
    assert ours["fdl"] == fdl.__version__ and "params/dense_0/b" in ours["names"]
