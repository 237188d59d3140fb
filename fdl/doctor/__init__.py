"""See where the gradient dies, and why.

    chart    = fdl.doctor.examine(model, loss, params, state, x, target)       what one batch shows: pure, for jit and scan
    findings = fdl.doctor.diagnose(chart)                                      what is wrong, with numbers and the remedy
    for finding in findings: print(finding)
    fdl.doctor.save(folder, result)                                            then: python -m fdl doctor folder --page page.html

| file                              | what                                                                         |
|-----------------------------------|------------------------------------------------------------------------------|
| chart.py                          | the pytree of measurements                                                   |
| examine.py                        | one batch through one model; watch.py observes its layers                    |
| signals, spectrum, parameters, batch, faults | the measurements                                                  |
| function.py                       | the same for a plain function with parameters (Flax, Equinox, Haiku, yours)  |
| diagnose.py, rules*.py, finding.py | from charts to ranked findings: rules.py is the table                       |
| counterfactual.py                 | short trainings that say what a remedy would do                              |
| record.py                         | `save` and `load`: charts, history and findings in a folder                  |
| pictures.py, page.py, events.py   | what they look like: PNG, one interactive page, TensorBoard (style.py: the look) |
"""

from fdl.doctor.chart import CAUSES, PERCENTILES, Chart
from fdl.doctor.counterfactual import Case, Outcome, what_if
from fdl.doctor.diagnose import diagnose
from fdl.doctor.examine import examine, examine_step
from fdl.doctor.finding import Finding
from fdl.doctor.function import examine_function
from fdl.doctor.record import Record, load, save
from fdl.doctor.rules import CODES

__all__ = [
    "CAUSES",
    "CODES",
    "PERCENTILES",
    "Case",
    "Chart",
    "Finding",
    "Outcome",
    "Record",
    "diagnose",
    "examine",
    "examine_function",
    "examine_step",
    "load",
    "save",
    "what_if",
]
