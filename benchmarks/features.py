"""What fdl, PyTorch, Keras, Flax, Equinox and what JAX ships with (optax, chex) can do, each entry verified by a run.

Claim: every entry of the table is true of the versions named below it: a name resolves, an argument is in its signature, a small
call returns what it should; where nothing is named, no public name of that library matches the pattern beside it.

    python -m benchmarks features

Method: a library in a process of its own; Keras on its JAX backend. An entry says "has" (by its name, and an argument in
brackets), "partly" and what is missing, "by hand" where a few lines over what is named do it, or "no" with a regular expression
which was searched for, ignoring case, in the names of all public modules, of what is in them and of its members. What the column
of JAX has, fdl, Flax and Equinox call as it is; it is repeated in their columns only where it is the usual way to do it there.
The small calls are in _feature_checks.py. Rows in which fdl has nothing are there because users ask for them.

Result: for each library how many entries were verified. The exit code is 1 if one is not true.
"""

# pyright: reportMissingImports=false
# (the peers are optional)

import importlib
import importlib.metadata
import inspect
import os
import re
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks import _feature_checks as checks
from benchmarks._harness import Row, Settings, Trial, missing, result_of

# with these versions the table was last found true
VERIFIED = {
    "torch": "2.13.0",
    "keras": "3.15.1",
    "flax": "0.12.8",
    "equinox": "0.13.8",
    "jax": "0.10.2",
    "optax": "0.2.8",
    "chex": "0.1.92",
}


class Peer(NamedTuple):
    """A column. Its entries are names in `prefix`; public names are looked for in these modules and those below them."""

    title: str
    prefix: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]


PEERS = (
    Peer("fdl", "fdl.", (), ("fdl", "fdl.check", "fdl.doctor")),
    Peer(
        "PyTorch",
        "torch.",
        ("torch",),
        ("torch", "torch.nn.utils.fusion", "torch.optim.swa_utils", "torch.func", "torch.onnx", "torch.utils.data"),
    ),
    Peer("Keras", "keras.", ("keras",), ("keras",)),
    Peer("Flax", "flax.", ("flax",), ("flax.linen", "flax.nnx", "flax.training.train_state", "flax.serialization")),
    Peer("Equinox", "equinox.", ("equinox",), ("equinox", "equinox.nn", "equinox.debug")),
    Peer(
        "JAX, optax, chex",
        "",
        ("jax", "optax", "chex"),
        ("jax", "jax.nn", "jax.test_util", "jax.example_libraries.stax", "jax.export", "jax.numpy", "optax", "chex"),
    ),
)


class Entry(NamedTuple):
    """What a library has: `kind` "has", "partly", "by hand" or "no"."""

    kind: str
    name: str = ""
    note: str = ""
    check: Callable[[], str] | None = None  # "" or what is not true
    pattern: str = ""


def has(name: str, note: str = "", check: Callable[[], str] | None = None) -> Entry:
    return Entry("has", name, note, check)


def partly(name: str, note: str, check: Callable[[], str] | None = None) -> Entry:
    return Entry("partly", name, note, check)


def by_hand(name: str, check: Callable[[], str] | None = None) -> Entry:
    return Entry("by hand", name, check=check)


def no(pattern: str, check: Callable[[], str] | None = None, note: str = "") -> Entry:
    return Entry("no", note=note, check=check, pattern=pattern)


class Feature(NamedTuple):
    """A row: one entry for each of PEERS, in their order."""

    group: str
    what: str
    entries: tuple[Entry, ...]


def _feature(group: str, what: str, *entries: Entry) -> Feature:
    if len(entries) == 2 and entries[1].kind == "no":  # none of the peers
        entries = (entries[0], *[entries[1]] * (len(PEERS) - 1))
    assert len(entries) == len(PEERS), what
    return Feature(group, what, entries)


_BACKWARD, _LAYERS, _GATED = "Backprop by hand", "Layers", "Gated recurrent units"
_NORMS, _LOSSES, _CHECKING = "Normalization", "Losses and penalties", "Checking gradients"
_DIAGNOSIS, _TRAINING, _LEAVING = "Diagnosis", "Training", "Leaving, and what surrounds it"

FEATURES = (
    _feature(
        _BACKWARD,
        "every layer's and loss's backward pass can be called alone",
        has("ops.dense.backward", "and of every Op", checks.fdl_every_op_has_a_backward),
        partly("ops.aten.convolution_backward", "many operators, undocumented"),
        *[no(r"^(dense|linear|conv|batch_?norm|gru)\w*_(backward|bwd|vjp|grad)$")] * 4,
    ),
    _feature(
        _BACKWARD,
        "a backward pass of your own",
        has("Op"),
        has("autograd.Function"),
        has("ops.custom_gradient"),
        has("nnx.custom_vjp"),
        has("filter_custom_vjp"),
        has("jax.custom_vjp"),
    ),
    _feature(
        _BACKWARD,
        "a whole model's gradients with no autodiff",
        has("backprop.value_and_grad", check=checks.fdl_gradients_agree),
        no(r"manual_?(grad|back)|^backprop"),
    ),
    _feature(
        _BACKWARD,
        "the error at every layer's output",
        has("backprop.deltas"),
        by_hand("nn.Module.register_full_backward_hook"),
        no(r"^deltas$|backward_hook|perturb"),
        by_hand("linen.Module.perturb"),
        by_hand("filter_vjp"),
        by_hand("jax.vjp"),
    ),
    _feature(
        _BACKWARD,
        "every path from a weight to the cost, with its product",
        has("backprop.paths"),
        no(r"sum_over_paths|backprop_?paths|path_?(products?|table)"),
    ),
    _feature(
        _BACKWARD,
        "forward mode (jvp) of the layers as they run",
        partly("Op.equation", "of the plain equations; `custom_vjp` refuses it", checks.fdl_refuses_forward_mode),
        has("func.jvp"),
        by_hand("Layer.stateless_call"),
        has("nnx.jvp"),
        has("filter_jvp"),
        has("jax.jvp"),
    ),
    _feature(
        _LAYERS,
        "convolutions, transposed and grouped too",
        has("conv(groups)"),
        has("nn.Conv2d(groups)"),
        has("layers.Conv2D(groups)"),
        has("nnx.Conv(feature_group_count)"),
        has("nn.Conv2d(groups)"),
        has("jax.lax.conv_general_dilated"),
    ),
    _feature(
        _LAYERS,
        "attention, and the blocks of transformers",
        no(r"attention|transformer"),
        has("nn.MultiheadAttention"),
        has("layers.MultiHeadAttention"),
        has("nnx.MultiHeadAttention"),
        has("nn.MultiheadAttention"),
        has("jax.nn.dot_product_attention"),
    ),
    _feature(
        _LAYERS,
        "recurrent layers over sequences of different lengths",
        has("gru", "masks", checks.fdl_masks_sequences),
        has("nn.utils.rnn.pack_padded_sequence"),
        has("layers.Masking"),
        has("linen.RNN.__call__(seq_lengths)"),
        by_hand("nn.GRUCell"),
        partly("jax.experimental.rnn.lstm", "LSTM, on GPU"),
    ),
    _feature(
        _LAYERS,
        "a new sequence that begins inside a row of the batch (resets)",
        has("ops.gru", "its argument `resets`", checks.fdl_resets_sequences),
        no(r"reset_?mask|^resets$"),
    ),
    _feature(
        _LAYERS,
        "spectral normalization of weights",
        no(r"spectral"),
        has("nn.utils.parametrizations.spectral_norm"),
        has("layers.SpectralNormalization"),
        has("nnx.SpectralNorm"),
        has("nn.SpectralNorm"),
        no(r"spectral_?norm"),
    ),
    _feature(
        _GATED,
        "the reset before the product, as published",
        has("gru", check=checks.fdl_gru_before),
        by_hand("nn.GRUCell", checks.torch_gru_after),
        has("layers.GRU(reset_after)", check=checks.keras_gru_before),
        by_hand("linen.GRUCell", checks.linen_gru_after),
        by_hand("nn.GRUCell", checks.equinox_gru_after),
        no(r"(^|_)gru"),
    ),
    _feature(
        _GATED,
        "the reset after the product, as in cuDNN",
        has("gru(variant)", check=checks.fdl_gru_after),
        has("nn.GRU", check=checks.torch_gru_after),
        has("layers.GRU", check=checks.keras_gru_after),
        has("linen.GRUCell", check=checks.linen_gru_after),
        has("nn.GRUCell", check=checks.equinox_gru_after),
        no(r"(^|_)gru"),
    ),
    _feature(
        _GATED,
        "types 1, 2 and 3, the minimal gated unit",
        has("gru(variant)", check=checks.fdl_gru_variants),
        no(r"mgu|minimal_?gated|gru_?(type_?)?[123]$"),
        no(r"mgu|minimal_?gated|gru_?(type_?)?[123]$"),
        partly("linen.MGUCell", "another unit: it resets after the product", checks.linen_mgu_is_another),
        no(r"mgu|minimal_?gated|gru_?(type_?)?[123]$"),
        no(r"mgu|minimal_?gated|gru_?(type_?)?[123]$"),
    ),
    _feature(
        _GATED,
        "light, Bayesian and content-adaptive units (LiGRU, LiBRU, CARU)",
        has("gru(variant)", check=checks.fdl_gru_variants),
        no(r"li_?gru|light_?g|li_?bru|bayesian_?rec|(^|_)caru"),
    ),
    _feature(
        _NORMS,
        "running variance m/(m-1) of the batch's, as published",
        has("batch_norm", check=checks.fdl_variances),
        has("nn.BatchNorm1d", check=checks.torch_variance),
        no(r"unbiased|bessel", checks.keras_variance),
        no(r"unbiased|bessel", checks.linen_variance),
        no(r"unbiased|bessel", checks.equinox_variance),
        no(r"running_?var"),
    ),
    _feature(
        _NORMS,
        "statistics by a pass over batches after training",
        has("batch_norm.population_statistics"),
        has("optim.swa_utils.update_bn"),
        *[no(r"population_stat|precise_?b|update_bn|recalibrat")] * 4,
    ),
    _feature(
        _NORMS,
        "float32 right at mean 1e4, deviation 1e-2",
        has("batch_norm", check=checks.fdl_far_from_zero),
        has("nn.BatchNorm1d", check=checks.torch_far_from_zero),
        has("layers.BatchNormalization", check=checks.keras_far_from_zero),
        partly("nnx.BatchNorm(use_fast_variance)", "not by default", checks.nnx_far_from_zero),
        has("nn.BatchNorm", check=checks.equinox_far_from_zero),
        partly("jax.nn.standardize(variance)", "not by default", checks.jax_far_from_zero),
    ),
    _feature(
        _NORMS,
        "masked batch norm",
        has("batch_norm", check=checks.fdl_masks_batch_norm),
        no(r"masked_?batch_?norm|batch_?norm_?mask"),
        has("layers.BatchNormalization.call(mask)"),
        has("nnx.BatchNorm.__call__(mask)"),
        *[no(r"masked_?batch_?norm|batch_?norm_?mask")] * 2,
    ),
    _feature(
        _NORMS,
        "folded into the layer before it",
        has("batch_norm.fold"),
        has("nn.utils.fusion.fuse_conv_bn_eval"),
        *[no(r"fuse_?(conv|linear|dense)|fold_?(bn|batch)|fuse_?(bn|batch)")] * 4,
    ),
    _feature(
        _LOSSES,
        "all of Keras's losses",
        has("losses.get", check=checks.fdl_has_keras_losses),
        partly("nn", "10 of 22", checks.torch_losses),
        has("losses", "22", checks.keras_losses),
        no(r"huber|hinge_?loss|cross_?entropy"),
        no(r"huber|hinge_?loss|cross_?entropy"),
        partly("optax.losses", "12 of 22", checks.optax_losses),
    ),
    _feature(
        _LOSSES,
        "cross-entropy of a linear layer without its logits in memory",
        has("losses.linear_cross_entropy"),
        has("nn.LinearCrossEntropyLoss"),
        *[no(r"linear_?(softmax_?)?cross_?entropy|fused_?cross")] * 4,
    ),
    _feature(
        _LOSSES,
        "L1 with exact zeros (a proximal step)",
        has("regularizers.proximal_l1", check=checks.fdl_proximal_makes_zeros),
        by_hand("nn.functional.softshrink"),
        by_hand("ops.soft_shrink"),
        no(r"proximal|soft_?(shrink|threshold)"),
        no(r"proximal|soft_?(shrink|threshold)"),
        no(r"prox(imal)?_?l1|soft_?threshold"),
    ),
    _feature(
        _CHECKING,
        "a gradient checker",
        has("check.gradients"),
        has("autograd.gradcheck"),
        no(r"grad(ient)?s?_?check|check_?grad|numerical_?grad"),
        no(r"grad(ient)?s?_?check|check_?grad|numerical_?grad"),
        no(r"grad(ient)?s?_?check|check_?grad|numerical_?grad"),
        has("jax.test_util.check_grads"),
    ),
    _feature(
        _CHECKING,
        "it rejects a backward that returns 0, for a cost of 1e-6 sum x^2",
        has("check.gradients", check=checks.fdl_rejects_zero),
        no(r"relative_?grad_?check", checks.torch_accepts_zero, note="accepts it"),
        *[no(r"grad(ient)?s?_?check|check_?grad|numerical_?grad")] * 3,
        no(r"relative_?grad_?check", checks.jax_and_chex_accept_zero, note="both accept it"),
    ),
    _feature(
        _CHECKING,
        "it names the term that is wrong",
        has("check.Failure.diagnosis", check=checks.fdl_names_the_term),
        no(r"wrong_?term|explain_?grad|diagnose_?grad"),
    ),
    _feature(
        _CHECKING,
        "under jit, vmap, scan, remat, shard_map, in 16 bits",
        has("check.gradients(modes)"),
        partly("autograd.gradcheck(check_batched_grad)", "vmap, forward mode"),
        *[no(r"check_?(all_?)?modes|grad(ient)?_?check")] * 3,
        partly("chex.all_variants", "values under jit, pmap"),
    ),
    _feature(
        _CHECKING,
        "faults planted in a backward: would your test notice?",
        has("check.mutants"),
        no(r"(^|_)mutants?($|_)|mutation_?(score|test)"),
    ),
    _feature(
        _CHECKING,
        "where the first NaN came from",
        has("check.nan_origin"),
        has("autograd.detect_anomaly"),
        partly("callbacks.TerminateOnNaN", "stops"),
        no(r"nan_?(origin|check)|check_?nan"),
        has("debug.backward_nan"),
        has("jax.experimental.checkify"),
    ),
    _feature(
        _DIAGNOSIS,
        "per-layer error, saturation, dead units, update:data, noise as one pure function",
        has("doctor.examine"),
        by_hand("nn.Module.register_forward_hook"),
        partly("callbacks.TensorBoard(histogram_freq)", "histograms of weights"),
        by_hand("linen.Module.sow"),
        by_hand("filter_vjp"),
        by_hand("optax.global_norm"),
    ),
    _feature(
        _DIAGNOSIS,
        "what is wrong, in words, with a remedy",
        has("doctor.diagnose"),
        no(r"^diagnos|vanishing|dead_?(units|neurons|relu)"),
    ),
    _feature(
        _DIAGNOSIS,
        "what the remedy would do, by short trainings",
        has("doctor.what_if"),
        no(r"counterfactual|what_?if"),
    ),
    _feature(
        _DIAGNOSIS,
        "a table of the model's layers and sizes",
        has("summary"),
        no(r"model_?summary|tabulate"),
        has("Model.summary"),
        has("nnx.tabulate"),
        partly("tree_pformat", "its tree"),
        no(r"model_?summary|tabulate"),
    ),
    _feature(
        _DIAGNOSIS,
        "gradients of every example",
        by_hand("backprop.value_and_grad", checks.jax_per_example_gradients),
        by_hand("func.vmap", checks.torch_per_example_gradients),
        by_hand("Layer.stateless_call"),
        by_hand("nnx.vmap"),
        by_hand("filter_vmap"),
        by_hand("jax.vmap", checks.jax_per_example_gradients),
    ),
    _feature(
        _TRAINING,
        "a training loop in one call",
        has("train.fit"),
        no(r"^(fit|trainer|train_model)$"),
        has("Model.fit"),
        no(r"^(fit|trainer|train_model)$"),
        no(r"^(fit|trainer|train_model)$"),
        no(r"^(fit|trainer|train_model)$"),
    ),
    _feature(
        _TRAINING,
        "many steps in one compiled program",
        has("train.fit"),
        no(r"steps_per_execution|multi_?step_?compile"),
        has("Model.compile(steps_per_execution)"),
        by_hand("nnx.scan"),
        by_hand("filter_jit"),
        by_hand("jax.lax.scan"),
    ),
    _feature(
        _TRAINING,
        "many trainings in one program (a sweep)",
        has("train.sweep"),
        by_hand("func.stack_module_state", checks.torch_trains_two_at_once),
        no(r"(^|_)sweep|ensemble_?(fit|train)"),
        by_hand("nnx.vmap"),
        by_hand("filter_vmap"),
        by_hand("jax.vmap"),
    ),
    _feature(
        _TRAINING,
        "stopped and resumed, the same bits",
        has("train.fit(resume)"),
        by_hand("save"),
        partly("callbacks.BackupAndRestore", "by epoch; bits not promised"),
        by_hand("training.checkpoints.save_checkpoint"),
        by_hand("tree_serialise_leaves"),
        no(r"checkpoint_?manager|save_?checkpoint"),
    ),
    _feature(
        _TRAINING,
        "batches cut over several devices",
        has("train.fit(mesh)"),
        has("nn.parallel.DistributedDataParallel"),
        has("distribution.DataParallel"),
        by_hand("nnx.get_named_sharding"),
        has("filter_shard"),
        has("jax.make_mesh"),
    ),
    _feature(
        _TRAINING,
        "16-bit training",
        has("train.fit(precision)"),
        has("amp.autocast"),
        has("mixed_precision.set_global_policy"),
        has("nnx.Linear(dtype)"),
        by_hand("is_inexact_array"),
        by_hand("jax.tree.map"),
    ),
    _feature(
        _TRAINING,
        "a search for the learning rate",
        has("train.find_learning_rate"),
        no(r"(find|range)_?(lr|learning_?rate)|lr_?(find|range_?test)"),
    ),
    _feature(
        _TRAINING,
        "loaders with worker processes",
        no(r"workers"),
        has("utils.data.DataLoader(num_workers)"),
        has("utils.PyDataset(workers)"),
        *[no(r"(num_|n_)?workers$|data_?loader")] * 3,
    ),
    _feature(
        _TRAINING,
        "kernels written for GPUs",
        no(r"pallas|triton|cuda|cudnn"),
        has("backends.cudnn"),
        partly("layers.GRU(use_cudnn)", "through its backend"),
        no(r"pallas|triton|cuda|cudnn"),
        no(r"pallas|triton|cuda|cudnn"),
        has("jax.nn.dot_product_attention(implementation)"),
    ),
    _feature(
        _TRAINING,
        "compiling a step",
        has("train.fit", check=checks.fdl_jits),
        has("compile"),
        has("Model.compile(jit_compile)"),
        has("nnx.jit"),
        has("filter_jit"),
        has("jax.jit"),
    ),
    _feature(
        _LEAVING,
        "weights from and to other libraries' layouts",
        has("convert.gru", "and dense, conv, LSTM, norms"),
        no(r"(from|to)_(torch|keras|flax|pytorch)$"),
        no(r"(from|to)_(torch|flax|equinox|pytorch)$"),
        no(r"(from|to)_(torch|keras|pytorch)$"),
        no(r"(from|to)_(torch|keras|flax|pytorch)$"),
        no(r"(from|to)_(torch|keras|flax|pytorch)$"),
    ),
    _feature(
        _LEAVING,
        "a file of the model in use that runs without the library",
        has("export.inference", "needs jax"),
        partly("export.save", "needs torch"),
        has("Model.export"),
        by_hand("nnx.to_pure_dict"),
        by_hand("filter_closure_convert"),
        has("jax.export.export"),
    ),
    _feature(
        _LEAVING,
        "ONNX",
        no(r"onnx"),
        has("onnx.export"),
        has("Model.export(format)", check=checks.keras_exports_onnx),
        no(r"(^|_)onnx"),
        partly("internal.to_onnx", "internal"),
        no(r"(^|_)onnx"),
    ),
    _feature(
        _LEAVING,
        "pretrained models",
        no(r"pretrained|resnet|hub$"),
        has("hub.load"),
        has("applications.ResNet50(weights)"),
        *[no(r"pretrained|resnet|from_hub")] * 3,
    ),
    _feature(
        _LEAVING,
        "quantized models",
        no(r"quanti[sz]"),
        has("ao.quantization"),
        has("Model.quantize"),
        *[no(r"quanti[sz](e_model|er$)|int4_?linear")] * 3,
    ),
)


# ---- verifying


def problem(peer: Peer, entry: Entry, names: set[str]) -> str:
    """What is not true of this entry, "" if it is."""
    if entry.name and (wrong := unresolved(peer.prefix + entry.name)):
        return wrong
    if entry.kind == "no":
        found = sorted(name for name in names if re.search(entry.pattern, name, re.IGNORECASE))
        if found:
            return f"no name was to match {entry.pattern!r}, {', '.join(found[:5])} does"
    return entry.check() if entry.check else ""


def unresolved(dotted: str) -> str:
    """ "" if that name exists, with the argument in brackets in its signature; else what does not."""
    name, _, argument = dotted.rstrip(")").partition("(")
    root, *rest = name.split(".")
    thing, path = importlib.import_module(root), root
    for part in rest:
        path = f"{path}.{part}"
        if not hasattr(thing, part):
            try:  # a module that its package does not import
                thing = importlib.import_module(path)
            except ImportError:
                return f"there is no {path}"
        thing = getattr(thing, part, thing)
    takes: Any = thing.__init__ if inspect.isclass(thing) else thing
    if argument and argument not in inspect.signature(takes).parameters:
        return f"{name} takes no {argument}"
    return ""


def public_names(peer: Peer) -> set[str]:
    """The names of its public modules, of what is in them, and of the members of its classes."""
    names: set[str] = set()
    for module in _modules(peer):
        for name in dir(module):
            if name.startswith("_"):
                continue
            names.add(name)
            thing = _attribute(module, name)
            if inspect.isclass(thing) and (thing.__module__ or "").split(".")[0] in _roots(peer):
                names.update(member for member in dir(thing) if not member.startswith("_"))
    return names


def _roots(peer: Peer) -> set[str]:
    return {module.split(".")[0] for module in peer.modules}


def _modules(peer: Peer) -> Iterator[types.ModuleType]:
    todo = [importlib.import_module(name) for name in peer.modules]
    seen: set[int] = set()
    while todo:
        module = todo.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield module
        for name in dir(module):
            inner = None if name.startswith("_") else _attribute(module, name)
            if isinstance(inner, types.ModuleType) and _is_public(inner.__name__, peer):
                todo.append(inner)


def _is_public(name: str, peer: Peer) -> bool:
    parts = name.split(".")
    return parts[0] in _roots(peer) and not any(part.startswith("_") for part in parts)


def _attribute(module: types.ModuleType, name: str) -> Any:
    try:
        return getattr(module, name)
    except Exception:  # of a lazy or a deprecated name
        return None


def verify(title: str) -> Trial:
    """What is not true of each entry of a column; runs in a process of its own."""
    os.environ["KERAS_BACKEND"] = "jax"
    index = [peer.title for peer in PEERS].index(title)
    names = public_names(PEERS[index])
    found = {f"{n:02d} {f.what}": _said(PEERS[index], f.entries[index], names) for n, f in enumerate(FEATURES)}
    return Trial({what: said for what, said in found.items() if said})


def _said(peer: Peer, entry: Entry, names: set[str]) -> str:
    try:
        return problem(peer, entry, names)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def run(settings: Settings) -> list[Row]:
    return [_row(peer) for peer in PEERS]


def _row(peer: Peer) -> Row:
    row = Row("features", "entry", peer.title, peer.title, "not installed")
    if absent := missing(peer.packages):
        row.note = f"no {', '.join(absent)}: pip install 'fdl[bench]'"
        return row
    try:
        wrong = result_of(verify, {"title": peer.title})
    except RuntimeError as error:
        row.status, row.note = "failed", str(error)
        return row
    row.status = "unequal" if wrong else "equal"
    row.measured = f"{len(FEATURES) - len(wrong)} of {len(FEATURES)} entries verified"
    row.note = "; ".join([*(f"{what}: {said}" for what, said in wrong.items()), *_other_versions(peer)])
    return row


def _other_versions(peer: Peer) -> list[str]:
    here = {package: importlib.metadata.version(package).partition("+")[0] for package in peer.packages}
    return [f"{p} is {v}, the table says {VERIFIED[p]}" for p, v in here.items() if v != VERIFIED[p]]


# ---- writing


def render() -> str:
    """The table in Markdown."""
    lines = [f"| | {' | '.join(peer.title for peer in PEERS)} |", "|---" * (len(PEERS) + 1) + "|"]
    group = ""
    for feature in FEATURES:
        if feature.group != group:
            group = feature.group
            lines.append(f"| **{group}** |{' |' * len(PEERS)}")
        lines.append(f"| {feature.what} | {' | '.join(map(cell, feature.entries))} |")
    versions = ", ".join(f"{package} {version}" for package, version in VERIFIED.items())
    legend = "A name: it has that. (A name): in a few lines over it. Partly: what is said. -: nothing was found."
    shared = "What JAX has, fdl, Flax and Equinox use too."
    return "\n".join([*lines, "", f"{legend} {shared} Verified with {versions}: `python -m benchmarks features`."])


def cell(entry: Entry) -> str:
    if entry.kind == "no":
        return entry.note or "-"
    shown = f"`{re.sub(r'[.](__call__|call)(?=[(])', '', entry.name)}`"
    if entry.kind == "by hand":
        return f"({shown})"
    if entry.kind == "partly":
        return f"partly: {shown}, {entry.note}"
    return f"{shown}, {entry.note}" if entry.note else shown
