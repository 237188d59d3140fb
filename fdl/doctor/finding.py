"""What a diagnosis is made of: findings, and the course of a training that the rules read."""

import dataclasses
import functools
from typing import Any

import numpy as np

from fdl.doctor.chart import CAUSES, Chart

SEVERITIES = ("error", "warning", "note", "none")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One diagnosis. evidence and remedy are sentences, with numbers; effects: what remedies did in short trainings.

    severity: "error" (this does not train), "warning" (it trains worse than it could), "note" (worth knowing), "none" (healthy).
    layer: the name of a layer, a parameter or "" for the whole.

        >>> model = fdl.serial(fdl.dense(2), fdl.softmax())
        >>> loss = fdl.losses.softmax_cross_entropy_with_integer_labels  # which takes the logits
        >>> params, state = model.init(jax.random.key(0), (3,))
        >>> x, y = jnp.float32([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]), jnp.int32([0, 1, 0, 1])
        >>> finding = fdl.doctor.diagnose(fdl.doctor.examine(model, loss, params, state, x, y))[0]
        >>> finding.code, finding.layer
        ('loss_expects_logits', 'softmax_1')
    """

    code: str
    layer: str
    severity: str
    evidence: str
    remedy: str
    effects: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f" in {self.layer}" if self.layer else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        effects = f" [{'; '.join(self.effects)}]" if self.effects else ""
        return f"{self.severity}: {self.code}{where}: {self.evidence}{remedy}{effects}"


class Course:
    """Charts in the order of time, and the history of `fit` if there is one. Rules ask it, and get None for what nobody saw."""

    def __init__(self, charts: list[Chart], history: dict[str, Any] | None):
        self.charts = charts
        self.history = {name: np.asarray(values, float) for name, values in (history or {}).items()}
        self.first, self.last = charts[0], charts[-1]

    @functools.cached_property
    def at_start(self) -> bool:
        """Whether the first chart is of untrained parameters. A lone chart without a step is taken for one."""
        return int(self.first.step) == 0 or (int(self.first.step) < 0 and len(self.charts) == 1)

    @functools.cached_property
    def losses(self) -> np.ndarray:
        """The loss over time: that of the charts, then where the history ends."""
        seen = [float(chart.loss) for chart in self.charts]
        return np.asarray(seen + ([float(self.history["loss"][-1])] if len(self.history.get("loss", ())) else []))

    def curve(self, name: str) -> np.ndarray:
        """Of the history, as far as it is finite; empty if there is none."""
        values = self.history.get(name, np.zeros(0))
        return values if np.isfinite(values).all() else np.zeros(0)

    @property
    def trained(self) -> bool:
        """Whether there is a before and an after."""
        return len(self.losses) > 1

    @functools.cached_property
    def examples(self) -> float:
        """How many examples all charts saw together."""
        return float(sum(chart.examples for chart in self.charts))

    @functools.cached_property
    def finite(self) -> list[Chart]:
        return [chart for chart in self.charts if int(chart.first_not_finite) == 0]

    @functools.cached_property
    def weights(self) -> list[int]:
        """The parameter leaves that are weights: what has a direction, and not only a size."""
        return [at for at, spread in enumerate(self.first.weight_spread) if not np.isnan(spread)]

    def layer_of(self, parameter: int) -> str:
        return self.first.parameters[parameter].rsplit("/", 1)[0]

    @functools.cached_property
    def weighted(self) -> list[int]:
        """The places of the layers with weights, in the order of execution; of all, if the weights are nobody's (functions)."""
        names = dict.fromkeys(self.layer_of(at) for at in self.weights)
        places = [place for place, name in enumerate(self.first.names) if name in names]
        return places or list(range(len(self.first.names)))

    def median(self, field: str) -> np.ndarray:
        """Over time, of the finite charts; NaN where there is none."""
        values = [np.asarray(getattr(chart, field), float) for chart in self.finite]
        if not values:
            return np.full(np.shape(getattr(self.first, field)), np.nan)
        with np.errstate(all="ignore"):
            return np.median(np.stack(values), axis=0)

    def always(self, name: str, *causes: str) -> list[int]:
        """The units of a layer that every chart finds kept from learning by one of these causes."""
        codes = [CAUSES.index(cause) for cause in causes]
        return np.flatnonzero(np.all([np.isin(chart.units[name], codes) for chart in self.charts], axis=0)).tolist()

    def largest_update(self) -> float:
        """The largest median update ratio of a weight; NaN if no optimizer was given."""
        ratios = self.median("update_ratio")[self.weights]
        ratios = ratios[np.isfinite(ratios)]
        return float(ratios.max()) if len(ratios) else float("nan")

    def largest_jump(self) -> float:
        """The largest update ratio of half of the weights in any chart; NaN if no optimizer was given."""
        jumps = []
        for chart in self.finite:
            ratios = chart.update_ratio[self.weights]
            ratios = ratios[np.isfinite(ratios)]
            jumps += [float(np.median(ratios))] if len(ratios) else []
        return max(jumps, default=float("nan"))

    def signal_to_noise(self) -> float:
        """N ||G||^2 / noise over all parameters whose noise is known, median over time: 1 is chance."""
        found = []
        for chart in self.finite:
            known = np.isfinite(chart.noise)
            if known.any() and chart.noise[known].sum() > 0:
                found.append(float(chart.examples * (chart.gradient[known] ** 2).sum() / chart.noise[known].sum()))
        return float(np.median(found)) if found else float("nan")


def some(places: list[int], most: int = 6) -> str:
    """Numbers for a sentence: 3, 5, 8 and 20 more."""
    shown = ", ".join(map(str, places[:most]))
    return shown if len(places) <= most else f"{shown} and {len(places) - most} more"
