"""Chart: what `examine` measures, a pytree of constant size.

The arrays are numbers per layer [L] in the order of `names`, per parameter leaf [P] in the order of `parameters`, or single
numbers; what was not measured is NaN. The names are static, so that charts cross `jit`, are stacked by `scan` and `vmap`, and
two of them are of one structure when they are of one model. E is `PERCENTILES`, S the number of `spectrum` steps.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from fdl.errors import refuse, refuse_type, shown

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)

# What keeps a unit from learning, `Chart.units`. The first that applies.
ALIVE, NEVER_ACTIVE, SATURATED, NO_OUTGOING, MASKED = range(5)
CAUSES = ("alive", "never active", "saturated", "every outgoing weight 0", "masked")

_DATA = (
    "step loss eval_loss chance_loss error growth input_percentiles output_percentiles error_percentiles output_rms "
    "saturated units spectrum drift statistics_of leak first_not_finite "
    "weight gradient update noise cosine weight_spread gradient_spread total_cosine "
    "examples input_rms feature_rms feature constant_features constant_feature label_share label_classes label_entropy "
    "label_outside unit_rows outside_unit"
).split()
_STATIC = (
    "names",
    "kinds",
    "parameters",
    "outgoing",
    "loss_name",
    "takes_logits",
    "places",
    "couples",
    "features",
    "case",
)


@functools.partial(jax.tree_util.register_dataclass, data_fields=_DATA, meta_fields=_STATIC)
@dataclasses.dataclass(frozen=True)
class Chart:
    """One batch seen through one model (see the module's docstring; `examine` says what is exact and what is estimated).

    Static
        names       the layers in the order of execution, "block/dense_1" where nested
        kinds       what each of them is: "dense", "relu", ...
        parameters  the parameter leaves: "dense_0/w"
        outgoing    for every layer of `units`, the layers whose weights lead out of it
        loss_name, takes_logits     the loss, and whether it takes logits (None: no loss over classes)
        places      where a non-finite value may be born: "" (nowhere), "input", "parameter dense_0/w", "forward relu_1", "loss",
                    "backward relu_1", "gradient dense_0/w"
        couples     the layers that mix examples by design: "batch_norm_1"
        features    how many numbers one example has
        case        the `Case` that `examine` was given

    The batch
        step            the training step, -1 if it was not given
        loss            the mean loss; eval_loss: of the model in use (train=False), measured if it has running statistics
        chance_loss     what a model that knows nothing pays: log V for V classes, log 2 for yes or no, the variance of a real target
        examples        how many examples count
        input_rms       root mean square of x; feature_rms: of the largest feature, which is number `feature`
        constant_features   how many features have one value in all examples that is not blank (0, or the least value of x where
                        features that vary have it too); constant_feature: the first of them
        label_share     the share of the most frequent label (1 for a real target that is constant); label_classes: how many
                        classes occur; label_entropy: in nats; label_outside: labels that are no class
        unit_rows       the share of the model's outputs (rows) that lie in [0, 1] and sum to 1; outside_unit: of entries outside [0, 1]
        first_not_finite    the index into `places` of the first value that is not finite

    Layers
        error           [L] ||delta|| at the output: root mean square over the examples, the mean's 1/N taken out
        growth          [L] ||dx|| / ||dy||: what the layer makes of the error that passes back through it
        input_percentiles, output_percentiles, error_percentiles    [L, E] of x (the pre-activation, for an activation), y and delta
        output_rms      [L]
        saturated       [L] share of entries where |f'| is below 1 % of its largest (below 0, for relu); NaN where there is no f'
        units           {name: [U]} of the layers that have units (activations, weights that feed weights): index into CAUSES
        spectrum        [L, S] estimated singular values of the layer's Jacobian, largest first
        drift           [L] distance of the batch's statistics from the running ones (batch_norm), in running deviations
        statistics_of   [L] how many entries a batch statistic is the mean of
        leak            [L] share of the error of one example that arrives at others, born in this layer

    Parameters
        weight, gradient, update    [P] their norms
        noise           [P] trace of the covariance of one example's gradient: the sum over entries of their variance
        cosine          [P] with the previous gradient; total_cosine: over all parameters
        weight_spread, gradient_spread  [P] of weights: how far units differ, max |w_j - w_0| / max |w|; 0 where all are alike

        >>> model, loss = fdl.serial(fdl.dense(2), fdl.tanh()), fdl.losses.mean_squared_error
        >>> params, state = model.init(jax.random.key(0), (3,))
        >>> x, y = jnp.ones((4, 3), jnp.float32), jnp.zeros((4, 2), jnp.float32)
        >>> chart = fdl.doctor.examine(model, loss, params, state, x, y)
        >>> chart.names
        ('dense_0', 'tanh_1')
    """

    step: Any
    loss: Any
    eval_loss: Any
    chance_loss: Any
    error: Any
    growth: Any
    input_percentiles: Any
    output_percentiles: Any
    error_percentiles: Any
    output_rms: Any
    saturated: Any
    units: dict[str, Any]
    spectrum: Any
    drift: Any
    statistics_of: Any
    leak: Any
    first_not_finite: Any
    weight: Any
    gradient: Any
    update: Any
    noise: Any
    cosine: Any
    weight_spread: Any
    gradient_spread: Any
    total_cosine: Any
    examples: Any
    input_rms: Any
    feature_rms: Any
    feature: Any
    constant_features: Any
    constant_feature: Any
    label_share: Any
    label_classes: Any
    label_entropy: Any
    label_outside: Any
    unit_rows: Any
    outside_unit: Any
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    parameters: tuple[str, ...]
    outgoing: tuple[tuple[str, tuple[str, ...]], ...]
    loss_name: str
    takes_logits: bool | None
    places: tuple[str, ...]
    couples: tuple[str, ...]
    features: int
    case: Any = None

    @property
    def gradient_ratio(self) -> Any:
        """[P] ||gradient|| / ||weight||."""
        return _ratio(self.gradient, self.weight)

    @property
    def update_ratio(self) -> Any:
        """[P] ||update|| / ||weight||: by how much of itself a parameter moves in one step."""
        return _ratio(self.update, self.weight)

    @property
    def signal_to_noise(self) -> Any:
        """[P] N ||gradient||^2 / noise: 1 where the batch's mean gradient is what chance alone makes of N examples."""
        return _ratio(self.examples[..., None] * self.gradient**2, self.noise)

    @property
    def largest_singular(self) -> Any:
        return self.spectrum[..., 0]

    @property
    def smallest_singular(self) -> Any:
        return self.spectrum[..., -1]

    @property
    def born(self) -> str:
        """Where the first non-finite value was born, "" if all are finite."""
        return self.places[int(self.first_not_finite)]

    def dead(self, name: str) -> dict[str, list[int]]:
        """{cause: the units of this layer that it keeps from learning}."""
        units = np.asarray(self.units[name])
        found = {cause: np.flatnonzero(units == code).tolist() for code, cause in enumerate(CAUSES)}
        return {cause: of for cause, of in found.items() if of and cause != CAUSES[ALIVE]}


def _ratio(above: Any, below: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):  # what starts at 0 moves by inf of itself
        return above / below


def unstacked(where: str, charts: Any) -> list[Chart]:
    """One chart, a list of them, or a stacked one (of `scan`, `vmap`), as a list of charts of NumPy arrays, all of one model."""
    seen = _apart(where, charts)
    if not seen:
        refuse(where, "got no charts, wanted at least one")
    for number, chart in enumerate(seen):
        for name in (*_STATIC[:-1], "units"):
            theirs, ours = getattr(chart, name), getattr(seen[0], name)
            if name == "units":
                theirs, ours = ({layer: units.shape for layer, units in one.items()} for one in (theirs, ours))
            if theirs != ours:
                wanted = "wanted charts of one model: take them one model at a time"
                refuse(where, f"chart {number} has other {name} than chart 0, {wanted}")
    return seen


def _apart(where: str, charts: Any) -> list[Chart]:
    if isinstance(charts, list | tuple):
        return [one for chart in charts for one in _apart(where, chart)]
    if not isinstance(charts, Chart):
        wanted = "wanted what fdl.doctor.examine returns, a list of them, or Result.charts of fit(doctor=n)"
        refuse_type(where, f"charts is {shown(charts)}, {wanted}")
    on_host = jax.tree.map(np.asarray, charts)
    if on_host.loss.ndim == 0:
        return [on_host]
    lead = on_host.loss.ndim
    flat = jax.tree.map(lambda a: a.reshape(on_host.loss.size, *a.shape[lead:]), on_host)
    return [jax.tree.map(lambda a, at=at: a[at], flat) for at in range(flat.loss.shape[0])]
