"""Training: `fit` runs compiled loops of steps and returns what it learned and how it went."""

import contextlib
import dataclasses
import os
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.backprop import require_loss, require_model, require_penalty
from fdl.errors import refuse, require_array, require_count, require_key, shown
from fdl.layer import Layer, Params, State
from fdl.op import Op
from fdl.train.checkpoint import Checkpoint, CheckpointError, Store, open_store
from fdl.train.early_stopping import Best, EarlyStopping, checked_early_stopping
from fdl.train.evaluate import Metric, checked_data, checked_metrics, evaluate
from fdl.train.event import Event
from fdl.train.guard import Divergence, scalable
from fdl.train.placement import Placement
from fdl.train.precision import computed_in
from fdl.train.progress import Progress
from fdl.train.run import Pace, Recipe, Run, copied
from fdl.train.source import InMemory, Streamed
from fdl.train.step import Carry, require_optimizer

_SECONDS_BEFORE_ANOTHER_TRY = 30


@dataclasses.dataclass(frozen=True)
class Result:
    """What `fit` returns. history: one entry per epoch, {"loss", "valid_loss", "valid_accuracy", ...} as numpy arrays.

    divergence: None, or where the run stopped being finite; params, state and opt_state are then the last finite ones.
    best_epoch: from 1, where early stopping returned an earlier epoch's parameters. charts, findings: of `fit(doctor=n)`.
    """

    params: Params
    state: State
    history: dict[str, np.ndarray]
    opt_state: Any
    steps: int
    divergence: Divergence | None = None
    best_epoch: int | None = None
    charts: Any = dataclasses.field(default=None, repr=False)
    findings: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        numbers = {name: values for name, values in self.history.items() if len(values) and values.dtype.kind == "f"}
        last = "".join(f", {name} {values[-1]:.4g}" for name, values in numbers.items())
        return f"Result(steps={self.steps}{last}{f', diverged: {self.divergence}' if self.divergence else ''})"


def fit(
    model: Layer,
    loss: Op | Callable,
    optimizer: Any,
    data: Any,
    *,
    key: Any,
    valid: tuple[Any, Any] | None = None,
    epochs: int = 10,
    batch_size: int = 128,
    steps: int | None = None,
    penalty: Op | None = None,
    weights: Any = None,
    gradient: str = "manual",
    metrics: tuple[str | Metric, ...] | None = None,
    params: Params | None = None,
    state: State | None = None,
    accumulate: int = 1,
    precision: str | None = None,
    early_stopping: EarlyStopping | int | None = None,
    on_divergence: str = "stop",
    callbacks: tuple[Callable[[Event], Any], ...] = (),
    checkpoint: Checkpoint | str | os.PathLike | None = None,
    resume: bool = False,
    mesh: Any = None,
    doctor: int | None = None,
    progress: bool = True,
) -> Result:
    """Trains a model in a compiled loop over steps, shuffled on the device; one call of it runs many steps or epochs.

    data, valid: (x, target) with examples first; data may be an `fdl.data.stream` of arrays larger than the device's memory.
    optimizer: an optax transformation, with any schedule. key: `jax.random.key(0)`; it decides the initial parameters, the order
    of the examples and every random draw. steps: train for so many instead of `epochs`.
    The last partial batch of an epoch is padded and masked: every example counts once, with equal weight in its batch.
    weights: [N], one per example; what weighs 0 contributes exactly 0. gradient: "manual", or "autodiff" for `jax.grad` of
    the plain equations, which overflow where textbook formulas do (exp of logits above 88 in float32).
    metrics: see `evaluate`; measured on `valid` after every epoch. params, state: where to start, instead of `model.init`.

    accumulate: cut every batch into so many parts, differentiated one after the other (it must divide batch_size).
    precision: "bfloat16" computes in 16 bits, with parameters, sums and state in float32.
    early_stopping: a patience in epochs, or an `EarlyStopping`. callbacks: functions of an `Event`, called after every epoch; a
    run ends after one that returns True.
    mesh: a `jax.sharding.Mesh` with an axis "data" (batches are cut along it) and, if wanted, "model" (wide dense layers are).
    checkpoint: a folder or a `Checkpoint`: the run is saved there as it goes and at its end, and SIGTERM or SIGINT saves and exits
    with 143 or 130. resume: continue the run in that folder, bit for bit; without it a folder that holds a run is refused.

    doctor: chart every so many-th step (`fdl.doctor`); the worst finding is shown as it goes, `Result.charts` and
    `Result.findings` hold them all, and the history has error_ratio, update_ratio, saturated and dead (see `fdl.train.watching`).

    The loss in the history is the mean over the epoch, while the parameters move. On the first value that is not finite the
    run goes back to the last finite state, says where it began (`Result.divergence`), and stops with a warning; with
    on_divergence="rollback" it goes on from the start of its best epoch with updates half as large, up to 8 times.
    Errors: InputError or InputTypeError for data that hold NaN or infinities, unequal numbers of examples, a plain function as loss
    with "manual", sizes below 1, settings that do not go together; CheckpointError for a folder that cannot be used.
    """
    where = "train.fit"
    require_model(where, model)
    require_loss(where, loss, gradient)
    require_key(where, key, "pass key=jax.random.key(0)")
    require_optimizer(where, optimizer)
    require_penalty(where, penalty)
    for name, number in (("epochs", epochs), ("batch_size", batch_size), ("accumulate", accumulate)):
        require_count(where, name, number)
    if steps is not None:
        require_count(where, "steps", steps)
    if on_divergence not in ("stop", "rollback"):
        refuse(where, f'on_divergence is {on_divergence!r}, wanted "stop" or "rollback"')
    settings = checkpoint if checkpoint is None or isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    if doctor is not None:
        require_count(where, "doctor", doctor)
        for name, value, wanted in (
            ("gradient", gradient, "manual"),
            ("precision", precision, None),
            ("accumulate", accumulate, 1),
        ):
            if value != wanted:
                refuse(
                    where,
                    f"doctor={doctor} was given with {name}={value!r}; charts are made of the {wanted!r} one: leave {name} out",
                )
    early = checked_early_stopping(where, early_stopping)
    if early is not None and valid is None and early.monitor != "loss":
        refuse(where, f"early_stopping monitors {early.monitor!r} but there is no valid=; pass it, or monitor 'loss'")
    if resume and checkpoint is None:
        refuse(where, "resume is True but there is no checkpoint=; pass the folder to continue from")

    streams = hasattr(data, "prefetched")
    if streams and weights is not None:
        refuse(where, "weights was given with a stream; pass them to fdl.data.stream(x, target, weights)")
    if streams:
        spec_x, spec_target = data.specs[:2]
    else:
        data = spec_x, spec_target = checked_data(where, data)
        weights = _checked_weights(where, weights, spec_x)
        require_finite(where, spec_x, spec_target, weights)
    if valid is not None:
        valid = checked_data(f"{where}(valid)", valid)
        require_finite(f"{where}(valid)", *valid, None)
    measured = tuple(metric for _, metric in checked_metrics(where, metrics, spec_target))
    examples = data.examples if streams else spec_x.shape[0]
    batch_size = min(batch_size, examples)
    if batch_size % accumulate:
        refuse(where, f"accumulate is {accumulate} and batch_size {batch_size}; wanted a divisor of it")
    placement = Placement(where, mesh, batch_size)

    init_key, train_key = jax.random.split(key)
    if params is None:
        params, state = model.init(init_key, jax.ShapeDtypeStruct(spec_x.shape[1:], spec_x.dtype))
    if on_divergence == "rollback":
        optimizer = scalable(optimizer)
    # the loop donates what it starts from: the caller's arrays stay the caller's
    params = placement.params(params)
    carry = placement.carry(copied(Carry(params, state or {}, optimizer.init(params), jnp.zeros((), jnp.int32))))
    if streams:
        seed = int(jax.random.bits(train_key, dtype=jnp.uint32))
        source: Any = Streamed(data, seed, batch_size, placement.data)
    else:
        x, target, weights = placement.data((spec_x, spec_target, weights))
        source = InMemory(x, target, weights, batch_size)
    if valid is not None:
        valid = placement.data(valid)
    recipe = Recipe(
        *(model, model if precision is None else computed_in(model, precision), loss, optimizer, penalty),
        *(gradient, precision, accumulate, batch_size, doctor),
    )
    run = Run(recipe, carry, source, placement.data(train_key), placement)
    if early is None and checkpoint is not None and valid is not None:
        early_rule, patience = EarlyStopping(1), False  # the best epoch is kept beside the last one
    else:
        early_rule, patience = early, early is not None
    if early_rule is not None:
        run.best, run.best_arrays = Best(early_rule), copied(carry[:2])
    if on_divergence == "rollback":
        run.mark()

    total = epochs * source.per_epoch if steps is None else steps
    by_epoch = valid is not None or bool(callbacks) or early is not None or on_divergence == "rollback"
    started = time.perf_counter()
    unfinished = None  # the figures of a last epoch that did not end
    with contextlib.ExitStack() as stack:
        stack.callback(source.close)
        store, saved_at, identity, next_try = None, None, {}, 0.0
        if settings is not None:
            store = stack.enter_context(open_store(settings))
            identity = _identity(recipe, data, weights, key, on_divergence)
            saved_at = _continue(run, store, settings.folder, identity, resume)
        bar = stack.enter_context(Progress(progress and jax.process_index() == 0, total, run.position))

        def save() -> None:
            nonlocal saved_at
            if store is not None and saved_at != run.position:
                best = run.best is not None and run.best.epoch == run.epoch
                store.save(run.position, run.arrays(), run.facts() | {"identity": identity, "best": best})
                saved_at = run.position

        def try_to_save() -> None:
            """A disk that is full for a while costs no run: only the last save has to succeed."""
            nonlocal next_try
            stops = store is not None and store.signal is not None
            if time.monotonic() < next_try and not stops:
                return
            try:
                save()
            except CheckpointError as error:
                if stops:
                    raise
                next_try = time.monotonic() + _SECONDS_BEFORE_ANOTHER_TRY
                _warn(f"{error}. Going on, and trying again in {_SECONDS_BEFORE_ANOTHER_TRY} s")

        def leave_if_told() -> None:
            if store is None or store.signal is None or settings is None:
                return
            told = f"step {saved_at} is saved in {settings.folder}; continue it with resume=True"
            print(f"{where}: stopped by {store.signal.name}; {told}", file=sys.stderr)
            raise SystemExit(store.exit_code)

        def validated() -> dict[str, float]:
            if valid is None:
                return {}
            of_valid = evaluate(model, loss, run.carry.params, run.carry.state, valid, metrics=measured)
            return {f"valid_{name}": float(figure) for name, figure in of_valid.items()}

        def closed_epochs(since: int) -> bool:
            """Validation, early stopping and callbacks; whether to stop."""
            if not by_epoch or run.epoch == since:
                return False
            row = run.epochs[-1]
            row |= validated()
            stop = False
            if run.best is not None:
                if run.best.update(where, run.epoch, row):
                    run.best_arrays = copied((run.carry.params, run.carry.state))
                stop = patience and run.best.exhausted
            if callbacks:
                seconds = time.perf_counter() - started
                event = Event(run.epoch, run.position, dict(row), seconds, (run.carry.params, run.carry.state))
                stop = any([callback(event) is True for callback in callbacks]) or stop
            if on_divergence == "rollback":
                run.mark()
            return stop

        pace = Pace(min(source.per_epoch, 64))
        stopped = patience and run.best is not None and run.best.exhausted
        while run.position < total and not stopped and run.divergence is None:
            last = min(total, run.position + pace.steps)
            if by_epoch:
                last = min(last, (run.epoch + 1) * source.per_epoch)
            if settings is not None and settings.steps is not None:
                last = min(last, (run.position // settings.steps + 1) * settings.steps)
            since = run.epoch
            taken = run.advance(last)
            began = run.divergence
            if began is not None and on_divergence == "rollback" and run.roll_back(0.5):
                factor = f"1/{2**run.rollbacks}"
                _warn(
                    f"{began}; went back to step {run.position}, from here the updates are {factor} of what was asked for"
                )
            elif began is None:
                stopped = closed_epochs(since)
            pace.update(taken)
            bar.update(run.epoch, run.position, _figures(run), "" if run.watch is None else run.watch.worst)
            if store is not None and run.divergence is None and store.due(run.position):
                try_to_save()
                leave_if_told()
        if run.divergence is not None:
            _warn(_divergence_told(run, run.divergence, gradient))
        else:
            save()
            if run.has_open_epoch:
                unfinished = {"loss": run.loss_so_far()} | validated()
        leave_if_told()
    return _result(run, unfinished, patience and early is not None and early.restore_best)


def _result(run: Run, unfinished: dict[str, Any] | None, restore_best: bool) -> Result:
    params, state, opt_state, _ = run.placement.local(run.carry)
    if run.marks is not None:
        opt_state = opt_state.inner
    best_epoch = None
    if restore_best and run.best is not None and run.best.epoch:
        (params, state), best_epoch = run.placement.local(run.best_arrays), run.best.epoch
    rows = [dict(row) for row in run.epochs]
    if run.divergence is not None:
        rows.append({"loss": run.bad_loss})
    elif unfinished is not None:
        rows.append(unfinished)
    names = list(dict.fromkeys(name for row in rows for name in row))
    history = {name: np.asarray([row[name] for row in rows if name in row]) for name in names}
    charts, findings = None, ()
    if run.watch is not None:
        charts, findings = run.watch.charts, run.watch.findings(history)
        history |= run.watch.series(run.source.per_epoch, len(rows))
    return Result(params, state, history, opt_state, run.position, run.divergence, best_epoch, charts, findings)


def _figures(run: Run) -> dict[str, float]:
    loss = run.loss_so_far()
    latest = dict(run.epochs[-1]) if run.epochs else {}
    return latest | ({} if loss is None else {"loss": loss})


def _warn(text: str) -> None:
    warnings.warn(f"train.fit: {text}", RuntimeWarning, stacklevel=3)


def _divergence_told(run: Run, began: Divergence, gradient: str) -> str:
    overflow = ', or ask for gradient="manual": the plain equations overflow at large logits'
    return (
        f"the loss became {run.bad_loss} in epoch {began.epoch}; stopped, and kept the state after step {run.position}, the last "
        f"finite one. {began}. Lower the learning rate, or look for a label outside the "
        f"classes{overflow if gradient == 'autodiff' else ''}"
    )


# ---- checkpoints ----


def _continue(run: Run, store: Store, folder: Any, identity: dict[str, Any], resume: bool) -> int | None:
    """Restores the run that the folder holds, if any; the step at which it was saved."""
    if store.steps and not resume:
        refuse(
            "train.fit",
            f"the checkpoint folder {folder} holds a run, at step {store.steps[-1]}; pass resume=True to continue it, or "
            "another folder",
        )
    saved = store.newest(run.arrays())
    if saved is None:
        return None
    for name, value in identity.items():
        before = saved.facts["identity"].get(name)
        if before != value:
            refuse(
                "train.fit",
                f"{name} is {value}, and {before} in the run saved in {folder}; to continue it pass the same, "
                "or start another folder",
            )
    run.restore(saved.tree, saved.facts)
    return saved.step


def _identity(recipe: Recipe, data: Any, weights: Any, key: Any, on_divergence: str) -> dict[str, Any]:
    """What has to be the same for a run to be continued."""
    arrays = data.specs if hasattr(data, "prefetched") else (*data, weights)
    return {
        "model": repr(recipe.model),
        "loss": repr(recipe.loss) if isinstance(recipe.loss, Op) else getattr(recipe.loss, "__name__", "a function"),
        "penalty": repr(recipe.penalty),
        "gradient": recipe.gradient,
        "precision": recipe.precision,
        "accumulate": recipe.accumulate,
        "batch_size": recipe.batch_size,
        "on_divergence": on_divergence,
        "data": [None if a is None else f"{shown(a)} {_fingerprint(a)}".strip() for a in arrays]
        + ([repr(data)] if hasattr(data, "prefetched") else []),  # how a stream is cut decides its order
        "key": [int(word) for word in np.ravel(jax.random.key_data(key))],
    }


def _fingerprint(array: Any) -> str:
    """A checksum of the first and the last megabyte: another order or another file is noticed, every change is not."""
    if isinstance(array, jax.ShapeDtypeStruct):
        return ""
    rows = max(1, 2**20 // max(1, array[:1].nbytes))
    ends = (np.asarray(array[:rows]), np.asarray(array[-rows:]))
    return f"{zlib.crc32(ends[1].tobytes(), zlib.crc32(ends[0].tobytes())):08x}"


# ---- the door ----


def _checked_weights(where: str, weights: Any, x: Any) -> Any:
    if weights is None:
        return None
    require_array(where, "weights", weights)
    if weights.ndim == 0 or weights.shape[0] != x.shape[0]:
        refuse(where, f"weights is {shown(weights)} and x is {shown(x)}: wanted one weight per example")
    return jnp.asarray(weights)


def require_finite(where: str, x: Any, target: Any, weights: Any) -> None:
    """NaN and infinities in the data are refused before the first step, unless their example weighs 0."""
    for name, array in (("x", x), ("target", target), ("weights", weights)):
        if array is None or not jnp.issubdtype(array.dtype, jnp.inexact):
            continue
        bad, first = _not_finite(array, None if name == "weights" else weights)
        if bad:
            refuse(
                where,
                f"{name} holds NaN or infinity in {int(bad)} example(s), first in {name}[{int(first)}]; "
                "clean the data, or give these examples the weight 0 in training",
            )


@jax.jit
def _not_finite(array, weights):
    """(number, first) of the examples that are not finite and weigh something."""
    bad = ~jnp.isfinite(array).reshape(array.shape[0], -1).all(axis=1)
    if weights is not None:
        bad &= weights.reshape(array.shape[0], -1).any(axis=1)
    return bad.sum(), jnp.argmax(bad)
