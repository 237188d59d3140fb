"""Many trainings at once: seeds and settings as the members of one compiled program.

    sweep = fdl.train.sweep(lambda rate: mlp(rate), loss, optax.sgd, (x, y), valid=(xt, yt),
                            grid={"learning_rate": [0.03, 0.1, 0.3], "rate": [0.0, 0.2], "seed": [0, 1, 2]})
    print(sweep)                       # 18 members, the best first
    sweep.table["valid_accuracy"]      # [18], beside the columns learning_rate, rate, seed, ...
    sweep.best().params                # what fit would have returned

A member trains as `fit` does with its settings: its own initial parameters, order of examples and draws. What a member does cannot
reach another, so one that diverges spoils nothing (it goes on computing NaN beside the others, and its row says so).

How the members share the machine (`layout`):

    "vmap"   one batched program                            bits differ from single runs in the last place
    "map"    one after the other inside one program         the bits of single runs
    mesh=    "vmap" on every device with its share of the members

On a CPU the members are dealt out to as many threads as there are cores, each running such a program. Measured on two cores,
32 members, microseconds per member and step: 64-32-10 batch 32: one model alone 10.3, vmap 7.3, vmap on two threads 2.9, map on two
threads 4.1. 784-100x3-10 batch 60: alone 347, vmap 364, vmap on two threads 300, map on two threads 198. So "auto" batches small
models and takes large ones one after the other there; elsewhere it batches.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from fdl.backprop import require_loss, require_penalty
from fdl.errors import refuse, refuse_type, require_count, shown
from fdl.layer import Layer
from fdl.op import Op
from fdl.train.evaluate import Metric, checked_data, checked_metrics
from fdl.train.fit import require_finite
from fdl.train.grid import Takers, groups, initial_scale, members
from fdl.train.halving import Halving
from fdl.train.heat import Heat
from fdl.train.loop import batches_in
from fdl.train.placement import checked_mesh
from fdl.train.progress import Progress
from fdl.train.result import Result
from fdl.train.step import require_optimizer
from fdl.train.team import Plan, Team


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What `sweep` returns.

    table: {column: [M]}: a column per setting, then the last figures of each member, `epochs` and `steps` it was trained, and
    `diverged`. histories: {figure: [M, epochs]}, NaN after a member was stopped. seconds: of the whole sweep.

        >>> data = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
        >>> grid = {"learning_rate": [0.01, 0.1], "seed": [0, 1]}
        >>> mse = fdl.losses.mean_squared_error
        >>> sweep = fdl.train.sweep(fdl.dense(2), mse, optax.sgd, data, grid=grid, epochs=2, progress=False)
        >>> sweep.best().params["w"].shape
        (3, 2)
    """

    table: dict[str, np.ndarray]
    histories: dict[str, np.ndarray]
    settings: tuple[str, ...]
    seconds: float
    _results: tuple[Result, ...] = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self._results)

    def member(self, number: int) -> Result:
        """A member as `fit` would have returned it."""
        return self._results[number]

    def order(self, by: str | None = None) -> np.ndarray:
        """The members' numbers, the best first: by validation loss, or by loss; diverged ones last."""
        by = by or ("valid_loss" if "valid_loss" in self.table else "loss")
        if by not in self.table:
            refuse("train.Sweep", f"there is no column {by!r}; there are {list(self.table)}")
        sign = -1.0 if by.endswith("accuracy") else 1.0
        values = np.where(self.table["diverged"], np.inf, sign * self.table[by].astype(np.float64))
        stopped_earlier = -self.table["epochs"]
        return np.lexsort((np.where(np.isnan(values), np.inf, values), stopped_earlier, self.table["diverged"]))

    def best(self, by: str | None = None) -> Result:
        """The result of the first member in `order`."""
        return self._results[int(self.order(by)[0])]

    def rows(self) -> list[dict[str, Any]]:
        """The table row by row, ready for csv.DictWriter or a data frame."""
        return [{name: column[i].item() for name, column in self.table.items()} for i in range(len(self))]

    def __str__(self) -> str:
        columns = {name: [_text(value) for value in self.table[name][self.order()]] for name in self.table}
        widths = {name: max(map(len, [name, *texts])) for name, texts in columns.items()}
        lines = ["  ".join(name.rjust(width) for name, width in widths.items())]
        for i in range(len(self)):
            lines.append("  ".join(columns[name][i].rjust(width) for name, width in widths.items()))
        return "\n".join(lines)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def sweep(
    model_or_factory: Layer | Callable[..., Layer],
    loss: Op | Callable,
    make_optimizer: Any,
    data: tuple[Any, Any],
    *,
    grid: Any,
    valid: tuple[Any, Any] | None = None,
    epochs: int = 10,
    batch_size: int = 128,
    steps: int | None = None,
    penalty: Any = None,
    gradient: str = "manual",
    metrics: tuple[str | Metric, ...] | None = None,
    accumulate: int = 1,
    precision: str | None = None,
    halving: Halving | None = None,
    layout: str = "auto",
    mesh: Any = None,
    progress: bool = True,
) -> Sweep:
    """Trains one model per member of the grid, all at once (see the module's docstring).

    model_or_factory: a Layer, or a function of settings that makes one. make_optimizer: a function of settings, as optax.sgd is one of
    learning_rate and momentum; or an optax transformation. loss: its options can be settings (huber's delta). penalty: an Op, or a
    function of settings: fdl.regularizers.l2 takes `strength`. grid: {"setting": [values]}, whose product is trained, or a list of
    dicts, one per member; see `fdl.train.grid` for who takes what and which settings share a program.
    halving: stop the worse members early. layout: "auto", "vmap" or "map". mesh: spread the members over its devices.
    The rest as in `fit`.

    Errors: InputError or InputTypeError for a setting that nobody takes, and whatever `fit` refuses.

        >>> data = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
        >>> grid = {"learning_rate": [0.01, 0.1], "seed": [0, 1]}
        >>> mse = fdl.losses.mean_squared_error
        >>> sweep = fdl.train.sweep(fdl.dense(2), mse, optax.sgd, data, grid=grid, epochs=2, progress=False)
        >>> sweep.table["learning_rate"].shape, sweep.histories["loss"].shape
        ((4,), (4, 2))
    """
    where = "train.sweep"
    started = time.perf_counter()
    if layout not in ("auto", "vmap", "map"):
        refuse(where, f'layout is {layout!r}, wanted "auto", "vmap" or "map"')
    if not callable(model_or_factory) and not isinstance(model_or_factory, Layer):
        refuse_type(where, f"model is {shown(model_or_factory)}, wanted an fdl.Layer or a function that makes one")
    if not callable(make_optimizer):
        require_optimizer(where, make_optimizer)
    if penalty is not None and not callable(penalty):
        require_penalty(where, penalty)
    require_loss(where, loss, gradient)
    for name, number in (("epochs", epochs), ("batch_size", batch_size), ("accumulate", accumulate)):
        require_count(where, name, number)
    if steps is not None:
        require_count(where, "steps", steps)
    if halving is not None and not isinstance(halving, Halving):
        refuse_type(where, f"halving is {shown(halving)}, wanted a train.Halving")
    mesh = checked_mesh(where, mesh)
    if mesh is not None and mesh.is_multi_process:
        refuse(
            where, "the mesh spans several processes; members are independent: give each process its part of the grid"
        )
    x, target = checked_data(where, data)
    require_finite(where, x, target, None)
    if valid is not None:
        valid = checked_data(f"{where}(valid)", valid)
        require_finite(f"{where}(valid)", *valid, None)
    batch_size = min(batch_size, x.shape[0])
    if batch_size % accumulate:
        refuse(where, f"accumulate is {accumulate} and batch_size {batch_size}; wanted a divisor of it")
    rows = members(where, grid)
    takers = Takers(model_or_factory, loss, make_optimizer, penalty)
    takers.require(where, list(rows[0]))
    checked = checked_metrics(where, metrics, target)
    _refuse_columns(where, rows[0], [name for name, _ in checked])
    plan = Plan(takers, gradient, precision, accumulate, batch_size, layout, mesh, checked)
    for row in rows:
        plan.make(row)  # the programs get numbers that are traced, which no factory can refuse
        if takers.scales_init:
            initial_scale(where, row)
    per_epoch = batches_in(x.shape[0], batch_size)
    total = epochs * per_epoch if steps is None else steps
    found: list[Result | None] = [None] * len(rows)
    parts = groups(rows)
    with Progress(progress, total * len(parts)) as bar:
        for part, numbers in enumerate(parts):
            team = Team(plan, [rows[n] for n in numbers], x, target, valid)
            heat = Heat(team, x.shape[0], batch_size, total, valid is not None, halving)
            heat.run(lambda heat, part=part: bar.update(heat.epoch, part * total + heat.position, heat.best_figures()))
            for n, result in zip(numbers, heat.results(), strict=True):
                found[n] = result
    results = tuple(result for result in found if result is not None)
    return _tabulated(rows, results, time.perf_counter() - started)


def _refuse_columns(where: str, names: Iterable[str], metrics: list[str]) -> None:
    own = {"epochs", "steps", "diverged", "loss", "valid_loss", *(f"valid_{name}" for name in metrics)}
    for name in names:
        if name in own:
            refuse(
                where,
                f"the setting {name!r} has the name of a column of the table; call the factory's parameter otherwise",
            )


def _tabulated(rows: list[dict[str, Any]], results: tuple[Result, ...], seconds: float) -> Sweep:
    settings = tuple(rows[0])
    table = {name: np.asarray([row[name] for row in rows]) for name in settings}
    epochs = np.asarray([len(result.history["loss"]) for result in results])
    names = list(results[0].history)
    histories = {
        name: np.stack(
            [np.pad(r.history[name], (0, epochs.max() - len(r.history[name])), constant_values=np.nan) for r in results]
        )
        for name in names
    }
    figures = {name: np.asarray([result.history[name][-1] for result in results]) for name in names}
    finite = [
        all(np.isfinite(a).all() for a in jax.tree.leaves(r.params)) and math.isfinite(r.history["loss"][-1])
        for r in results
    ]
    more = {"epochs": epochs, "steps": np.asarray([r.steps for r in results]), "diverged": ~np.asarray(finite)}
    return Sweep(table | figures | more, histories, settings, seconds, results)
