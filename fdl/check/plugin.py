"""The prover in pytest: a fixture, and a table of everything it checked.

    def test_huber(gradcheck):
        gradcheck(huber, pred, target)                  # fdl.check.assert_gradients: anything but "right" fails the test

    pytest --gradcheck                                  # ends with a line per check: verdict, comparisons, modes

pytest finds it wherever fdl is installed.
"""

from typing import Any

import pytest

_PROPERTY = "gradcheck"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("fdl").addoption(
        "--gradcheck", action="store_true", help="list every gradient that the gradcheck fixture checked"
    )


@pytest.fixture
def gradcheck(request: pytest.FixtureRequest) -> Any:
    """fdl.check.assert_gradients, whose reports `--gradcheck` lists."""
    from fdl.check import GradientError, gradients

    def check(candidate: Any, *args: Any, **settings: Any) -> Any:
        report = gradients(candidate, *args, **settings)
        row = {
            "verdict": report.verdict,
            "candidate": report.candidate,
            "comparisons": report.comparisons,
            "modes": ", ".join(report.modes),
        }
        request.node.user_properties.append((_PROPERTY, row))
        if not report.ok:
            raise GradientError(report)
        return report

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
