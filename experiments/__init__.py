"""Experiments: one script per question, each with claims that are judged by what was measured.

    python -m experiments [NAME ...] [--all] [--list] [--full] [--data-dir DIR] [--out results] [--seed 0]
                          [--processes N]

An experiment is a file `experiments/NAME.py`, found without registration unless its name begins with an underscore. Its
docstring is a title line and three paragraphs that begin with `Question:`, `Command:` and `Expected:`. Its one function

    def run(settings: Settings) -> Iterator[Evidence]:
        yield "a line of progress"
        yield claim("manual equals autodiff", worst, "<", 1e-12, quantity="relative difference", source="chain rule")
        yield Figure("learning-curve", figure, caption="Loss against step.")
        yield Table("Agreement", ("leaf", "difference"), rows)

yields what it finds when it finds it. The runner prints the progress, judges nothing (a claim carries its verdict,
computed by `claim` from the comparison), and writes `<out>/NAME/result.json`, the figures beside it, and the page
`<out>/index.html` of all results.
"""

from experiments._evidence import Claim as Claim
from experiments._evidence import Evidence as Evidence
from experiments._evidence import Figure as Figure
from experiments._evidence import Settings as Settings
from experiments._evidence import Table as Table
from experiments._evidence import claim as claim
from experiments._evidence import largest as largest
from experiments._evidence import not_run as not_run
from experiments._evidence import relative_difference as relative_difference
