"""The public API, name by name: listed, described, annotated, and with an example that prints what it says.

Examples are the ">>>" lines of a docstring: of a function or class, of an Op (its file's), of a module. They run as a user
runs them, most of them in the strict session of these tests too, in a folder with the small files of `prepare`, and must print the
same.
"""

import contextlib
import doctest
import importlib
import inspect
import pathlib
import types
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.op import Op

PACKAGES = (
    "fdl",
    "fdl.layers",
    "fdl.ops",
    "fdl.losses",
    "fdl.regularizers",
    "fdl.backprop",
    "fdl.check",
    "fdl.doctor",
    "fdl.train",
    "fdl.data",
    "fdl.convert",
    "fdl.export",
)
LOOSE = {"fdl.doctor.CAUSES", "fdl.doctor.CODES", "fdl.doctor.PERCENTILES"}  # data, which has no docstring of its own


def public(package):
    """{dotted name: thing} of everything in `__all__`, but for the packages in it."""
    module = importlib.import_module(package)
    things = {f"{package}.{name}": getattr(module, name) for name in module.__all__}
    return {name: thing for name, thing in things.items() if not isinstance(thing, types.ModuleType)}


NAMES = {name: thing for package in PACKAGES for name, thing in public(package).items()}


def described(thing):
    return inspect.cleandoc(thing.__doc__ or "")


# ---- listed

# doors of fdl.backprop that other packages go through as well
SHARED = {"counted", "require_loss", "require_model", "require_penalty"}


@pytest.mark.parametrize("package", PACKAGES)
def test_what_can_be_imported_from_a_package_is_in_its_all(package):
    module = importlib.import_module(package)
    own = {
        name
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and not isinstance(thing, types.ModuleType)
        and (Path(module.__file__ or "").name == "__init__.py" or getattr(thing, "__module__", "") == package)
        and _is_ours(thing)
    }
    assert own - SHARED <= set(module.__all__), own - SHARED - set(module.__all__)
    assert len(module.__all__) == len(set(module.__all__))


def _is_ours(thing):
    """Not what a package imports to make something of: helpers of fdl.errors, Op, and what is not fdl's."""
    home = getattr(thing, "__module__", "") or ""
    return isinstance(thing, Op) or home.startswith("fdl.") and home not in ("fdl.errors", "fdl.op", "fdl.layer")


# ---- described


def test_every_name_has_a_docstring_that_begins_with_a_sentence():
    first = {name: described(thing).split("\n\n")[0].strip() for name, thing in NAMES.items() if name not in LOOSE}
    assert {name: text for name, text in first.items() if not is_sentence(text)} == {}
    assert described(fdl.losses.huber).startswith("Huber loss") and described(Op).startswith("An equation")


def is_sentence(text):
    """Words from a capital, a formula or a name on, to a full stop, or to a colon before what it announces."""
    return len(text.split()) >= 3 and text[-1] in ".:"


def test_what_is_no_sentence_is_noticed():
    assert not is_sentence("") and not is_sentence("Huber.") and not is_sentence("a b c") and is_sentence("It is so.")


# ---- annotated


def _functions():
    for name, thing in NAMES.items():
        if inspect.isclass(thing):
            for member, function in vars(thing).items():
                if not member.startswith("_") and inspect.isfunction(function):
                    yield f"{name}.{member}", function
        elif inspect.isfunction(thing):
            yield name, thing


def unannotated(function):
    parameters = inspect.signature(function).parameters.values()
    missing = [p.name for p in parameters if p.annotation is p.empty and p.name not in ("self", "cls")]
    return missing + (["return"] if inspect.signature(function).return_annotation is inspect.Signature.empty else [])


def test_every_argument_is_annotated():
    assert {name: missing for name, function in _functions() if (missing := unannotated(function))} == {}


def test_a_missing_annotation_is_noticed():
    def function(x: int, y) -> int:
        return x

    assert unannotated(function) == ["y"]


# ---- one voice: the same argument has one name, and stands in the same order

ORDER = ("model", "loss", "params", "state", "x", "target", "key", "mask", "weights")
# a layer is checked without a loss as well, and a plain function brings its own parameters
OTHERWISE = {
    "fdl.check.layer": ["model", "x", "target", "loss", "key"],
    "fdl.doctor.examine_function": ["params", "x", "target", "loss"],
}
ALIASES = {"y_true", "y_pred", "labels_", "rng", "prng_key", "optimiser", "lr", "inputs", "targets", "sample_weight"}


def out_of_order(function):
    """The arguments of a function that have another name, or another place, than everywhere else."""
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    known = [name for name in names if name in ORDER]
    return [name for name in names if name in ALIASES] + (known if known != sorted(known, key=ORDER.index) else [])


def test_the_same_argument_has_one_name_and_one_place():
    functions = [
        (name, f) for name, f in _functions() if not name.startswith("fdl.convert.")
    ]  # its target is a library
    assert {name: found for name, f in functions if (found := out_of_order(f))} == OTHERWISE


def test_an_argument_out_of_place_is_noticed():
    assert out_of_order(lambda x, params: None) and out_of_order(lambda y_true: None)
    assert not out_of_order(lambda params, x, target: None)


# ---- with an example that runs


def prepare(folder):
    """What the examples read."""
    (folder / "mnist").mkdir()
    for part in ("train", "t10k"):
        sizes = np.asarray([2, 28, 28], ">i4").tobytes()
        (folder / f"mnist/{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\3" + sizes + bytes(2 * 28 * 28))
        (folder / f"mnist/{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\1" + sizes[:4] + bytes([3, 8]))
    (folder / "cifar10").mkdir()
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (folder / "cifar10" / name).write_bytes(bytes(2 * 3073))
    (folder / "iris.csv").write_text("length,width,kind\n5.1,3.5,setosa\n7.0,3.2,versicolor\n4.9,3.0,setosa\n")
    (folder / "notes.txt").write_text("to be or not to be\n" * 4)
    np.save(folder / "x.npy", np.ones((4, 3), np.float32))
    np.savez(folder / "data.npz", x=np.ones((4, 3), np.float32), y=np.asarray([0, 1, 0, 1]))


def printed(text, name):
    """ "" if the examples of a docstring print what it says, else the difference."""
    space = {"fdl": fdl, "jax": jax, "jnp": jnp, "np": np, "optax": optax, "pathlib": pathlib}
    said = []
    test = doctest.DocTestParser().get_doctest(text, space, name, None, None)
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    return "".join(said)


@contextlib.contextmanager
def as_users_run_them():
    with (
        jax.enable_x64(False),
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
        warnings.catch_warnings(),
    ):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("examples")
    prepare(path)
    return path


def once():
    """{package: its names}; what has two names, as fdl.dense and fdl.layers.dense, under the first."""
    seen, names = set(), {package: [] for package in PACKAGES}
    for name, thing in NAMES.items():
        if name not in LOOSE and id(thing) not in seen:
            seen.add(id(thing))
            names[name.rpartition(".")[0]].append(name)
    return names


# what these print are verdicts, names and shapes; in the strict session they have tests of their own
PLAIN = ("fdl.check", "fdl.doctor", "fdl.train")


@pytest.mark.parametrize(
    ("package", "session"),
    [(package, "plain") for package in PACKAGES] + [(p, "strict") for p in PACKAGES if p not in PLAIN],
)
def test_every_name_has_an_example_that_prints_what_it_says(package, session, folder, monkeypatch):
    monkeypatch.chdir(folder)
    wrong = {}
    with as_users_run_them() if session == "plain" else contextlib.nullcontext():
        for name in once()[package]:
            text = described(NAMES[name])
            if said := printed(text, name) if ">>>" in text else "no example":
                wrong[name] = said
    assert not wrong, "\n\n".join(f"{name}: {said}" for name, said in wrong.items())


def test_an_example_that_is_wrong_is_noticed():
    assert "Expected" in printed(">>> 1 + 1\n3\n", "wrong") and printed(">>> 1 + 1\n2\n", "right") == ""
