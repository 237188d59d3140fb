"""The prover in pytest: a fixture, and a table of everything it checked.

    def test_huber(gradcheck):
        gradcheck(huber, pred, target)                  # fdl.check.assert_gradients: anything but "right" fails the test
        gradcheck(model, x)                             # of a Layer: fdl.check.layer

    pytest --gradcheck                                  # ends with a line per check: verdict, comparisons, modes
    pytest --gradcheck-shrink FOLDER                    # and writes a small failing case for each wrong gradient

pytest finds it wherever fdl is installed.
"""

import re
from pathlib import Path
from typing import Any

import pytest

_PROPERTY = "gradcheck"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fdl")
    group.addoption("--gradcheck", action="store_true", help="list every gradient that the gradcheck fixture checked")
    group.addoption(
        "--gradcheck-shrink",
        metavar="FOLDER",
        type=Path,
        help="for every wrong gradient, write the smallest failing case found as a pytest file in this folder",
    )


@pytest.fixture
def gradcheck(request: pytest.FixtureRequest) -> Any:
    """fdl.check.assert_gradients, whose reports `--gradcheck` lists, and whose failures `--gradcheck-shrink` shrinks."""
    from fdl.check import GradientError, shrink
    from fdl.check.layer import report_on

    folder = request.config.getoption("--gradcheck-shrink")

    def check(candidate: Any, *args: Any, **settings: Any) -> Any:
        report = report_on(candidate, *args, **settings)
        row = {
            "verdict": report.verdict,
            "candidate": report.candidate,
            "comparisons": report.comparisons,
            "modes": ", ".join(report.modes),
        }
        request.node.user_properties.append((_PROPERTY, row))
        if report.ok:
            return report
        error = GradientError(report)
        if folder is not None and report.verdict == "wrong":
            shrunk = shrink(candidate, *args, **settings)
            # several checks of one test are numbered
            count = sum(name == _PROPERTY for name, _ in request.node.user_properties)
            name = re.sub(r"\W+", "_", request.node.nodeid).strip("_").removeprefix("test_")
            error.add_note(f"{shrunk.sentence}: {shrunk.save(folder / f'test_{name}_{count}.py')}")
        raise error

    return check


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not config.getoption("--gradcheck"):
        return
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    rows = [
        (report.nodeid, row)
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, row in report.user_properties
        if name == _PROPERTY
    ]
    terminalreporter.section("gradients checked")
    for nodeid, row in rows:
        terminalreporter.line(
            f"{row['verdict']:9s}  {row['candidate']}  {row['comparisons']:,} comparisons ({row['modes']})  {nodeid}"
        )
    if not rows:
        terminalreporter.line("none: no test used the gradcheck fixture")
