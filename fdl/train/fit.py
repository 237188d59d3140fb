"""Training: `fit` runs compiled loops of steps and returns what it learned and how it went."""

import contextlib
import math
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fdl.backprop import require_loss, require_model, require_penalty
from fdl.errors import refuse, refuse_type, require_array, require_count, require_key, shown
from fdl.layer import Layer, Params, State
from fdl.op import Op
from fdl.train.checkpoint import Checkpoint
from fdl.train.early_stopping import Best, EarlyStopping, checked_early_stopping
from fdl.train.evaluate import Metric, checked_data, checked_metrics, evaluate
from fdl.train.event import Event
from fdl.train.guard import Divergence, scalable
from fdl.train.identity import identity_of
from fdl.train.keeper import Keeper, keeping
from fdl.train.placement import Placement
from fdl.train.precision import computed_in
from fdl.train.progress import Progress
from fdl.train.result import Result, result_of
from fdl.train.run import Pace, Recipe, Run, copied
from fdl.train.source import InMemory, Streamed
from fdl.train.step import Carry, require_optimizer


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
    metrics: see `evaluate`; measured on `valid` after every epoch. params, state: where to start; what is not given is `model.init`'s.

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

        >>> x, y = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
        >>> mse, sgd = fdl.losses.mean_squared_error, optax.sgd(0.1)
        >>> result = fdl.train.fit(fdl.dense(2), mse, sgd, (x, y), key=jax.random.key(0), epochs=3, progress=False)
        >>> result.history["loss"].shape, bool(result.history["loss"][-1] < result.history["loss"][0])
        ((3,), True)
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
    callbacks = _checked_callbacks(where, callbacks)
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
    if params is None or state is None:
        fresh, fresh_state = model.init(init_key, jax.ShapeDtypeStruct(spec_x.shape[1:], spec_x.dtype))
        params, state = fresh if params is None else params, fresh_state if state is None else state
    if on_divergence == "rollback":
        optimizer = scalable(optimizer)
    # the loop donates what it starts from: the caller's arrays stay the caller's
    params = placement.params(params)
    carry = placement.carry(copied(Carry(params, state, optimizer.init(params), jnp.zeros((), jnp.int32))))
    if streams:
        seed = int(jax.random.bits(train_key, dtype=jnp.uint32))
        source: Any = Streamed(data, seed, batch_size, placement.data)
    else:
        x, target, weights = placement.data((spec_x, spec_target, weights))
        source = InMemory(x, target, weights, batch_size)
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

    trainer = _Trainer(
        run,
        None if valid is None else placement.data(valid),
        measured,
        callbacks,
        patience,
        on_divergence == "rollback",
        progress,
    )
    identity = {}
    if settings is not None:
        monitored = None if early_rule is None else early_rule.monitored
        identity = identity_of(recipe, data, valid, weights, key, on_divergence, monitored)
    with contextlib.closing(source), keeping(run, settings, identity) as keeper:
        keeper.go_on(resume)
        unfinished = trainer.train(epochs * source.per_epoch if steps is None else steps, keeper)
    result = result_of(run, unfinished, patience and early is not None and early.restore_best)
    if settings is not None and result.charts is not None and jax.process_index() == 0:
        from fdl.doctor.record import save

        save(settings.folder, result)  # for `python -m fdl doctor FOLDER`
    return result


class _Trainer:
    """What happens around the calls of the loop."""

    def __init__(
        self,
        run: Run,
        valid: Any,
        metrics: tuple[Metric, ...],
        callbacks: tuple[Callable[[Event], Any], ...],
        patience: bool,
        rolls_back: bool,
        progress: bool,
    ):
        self._run, self._valid, self._metrics, self._callbacks = run, valid, metrics, callbacks
        self._patience, self._rolls_back = patience, rolls_back
        self._progress = progress and jax.process_index() == 0
        self._started = time.perf_counter()
        self._by_epoch = valid is not None or bool(callbacks) or run.best is not None or rolls_back

    def train(self, total: int, keeper: Keeper) -> dict[str, Any] | None:
        """Up to so many steps in all. Returns the figures of a last epoch that did not end."""
        run, per_epoch = self._run, self._run.source.per_epoch
        pace = Pace(min(per_epoch, 64))
        stopped = self._has_waited_enough
        with Progress(self._progress, total, run.position) as bar:
            while run.position < total and not stopped and run.divergence is None:
                ends = [total, run.position + pace.steps, keeper.boundary(run.position)]
                ends += [(run.epoch + 1) * per_epoch] if self._by_epoch else []
                before = run.epoch
                taken = run.advance(min(end for end in ends if end is not None))
                if run.divergence is not None:
                    self._roll_back()
                elif self._by_epoch and run.epoch > before:
                    stopped = self._end_of_epoch()
                pace.update(taken)
                bar.update(run.epoch, run.position, _figures(run), "" if run.watch is None else run.watch.worst)
                if run.divergence is None:
                    keeper.save_if_due()
        unfinished = None
        if run.divergence is not None:
            _warn(_divergence_told(run, run.divergence))
        else:
            keeper.save()
            if run.has_open_epoch:
                unfinished = {"loss": run.loss_so_far()} | self._validated()
        keeper.leave_if_told()
        return unfinished

    @property
    def _has_waited_enough(self) -> bool:
        return self._patience and self._run.best is not None and self._run.best.exhausted

    def _roll_back(self) -> None:
        began = self._run.divergence
        if self._rolls_back and self._run.roll_back(0.5):
            factor = f"1/{2**self._run.rollbacks}"
            where = f"went back to step {self._run.position}"
            _warn(f"{began}; {where}, from here the updates are {factor} of what was asked for")

    def _validated(self) -> dict[str, float]:
        if self._valid is None:
            return {}
        (params, state, *_), recipe = self._run.carry, self._run.recipe
        found = evaluate(recipe.model, recipe.loss, params, state, self._valid, metrics=self._metrics)
        return {f"valid_{name}": float(figure) for name, figure in found.items()}

    def _end_of_epoch(self) -> bool:
        """Validation, early stopping and callbacks; whether to stop."""
        run = self._run
        row = run.epochs[-1]
        row |= self._validated()
        if run.best is not None and run.best.update("train.fit", run.epoch, row):
            run.best_arrays = copied((run.carry.params, run.carry.state))
        stop = self._has_waited_enough
        if self._callbacks:
            seconds = time.perf_counter() - self._started
            event = Event(run.epoch, run.position, dict(row), seconds, (run.carry.params, run.carry.state))
            stop = any([callback(event) is True for callback in self._callbacks]) or stop
        if self._rolls_back:
            run.mark()
        return stop


def _figures(run: Run) -> dict[str, float]:
    loss = run.loss_so_far()
    latest = dict(run.epochs[-1]) if run.epochs else {}
    return latest | ({} if loss is None else {"loss": loss})


def _warn(text: str) -> None:
    # the caller of fit: beyond this function, a method of _Trainer, train and fit
    warnings.warn(f"train.fit: {text}", RuntimeWarning, stacklevel=4)


def _divergence_told(run: Run, began: Divergence) -> str:
    lost = f"the loss became {run.bad_loss}" if began.stage in ("output", "loss") else "the run left the finite numbers"
    remedy = "Lower the learning rate"
    if began.stage == "loss" and math.isnan(run.bad_loss):  # of finite outputs; a step too large makes it infinite
        remedy = (
            "The outputs are finite: look for a target that the loss does not take, such as a label outside the classes"
        )
    if run.recipe.gradient == "autodiff":
        remedy += ', or ask for gradient="manual": the plain equations overflow at large logits'
    return (
        f"{lost} in epoch {began.epoch}; stopped, and kept the state after step {run.position}, the last "
        f"finite one. {began}. {remedy}"
    )


# ---- the door ----


def _checked_callbacks(where: str, callbacks: Any) -> tuple[Callable[[Event], Any], ...]:
    found = (callbacks,) if callable(callbacks) else callbacks
    if not isinstance(found, tuple | list) or not all(map(callable, found)):
        refuse_type(where, f"callbacks is {shown(callbacks)}, wanted a tuple of functions of an Event")
    return tuple(found)


def _checked_weights(where: str, weights: Any, x: Any) -> Any:
    if weights is None:
        return None
    require_array(where, "weights", weights)
    if weights.ndim == 0 or weights.shape[0] != x.shape[0]:
        refuse(where, f"weights is {shown(weights)} and x is {shown(x)}: wanted one weight per example")
    weights = jnp.asarray(weights)
    if weights.dtype != jnp.bool_ and bool((weights < 0).any()):
        refuse(where, "weights holds negative numbers, wanted at least 0: a negative example would be unlearned")
    return weights


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
