"""The command python -m fdl doctor RESULT_DIR: what was wrong with a training, and what to do about it.

    python -m fdl doctor runs/seven
    python -m fdl doctor runs/seven --page seven.html --pictures seven --tensorboard boards/seven

RESULT_DIR is a folder of fit(checkpoint=RESULT_DIR, doctor=10), or of fdl.doctor.save(RESULT_DIR, result). The findings are printed, the
first cause first; the exit code is 0 if the training is healthy but for notes, 1 if a finding is an error or a warning, 2 with one
line on the standard error stream if the record or a file to write cannot be used.
"""

import argparse
import dataclasses
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

HEALTHY, FOUND, UNUSABLE = 0, 1, 2
_WIDTH = 100
_COLOURS = {"error": "bold red", "warning": "bold yellow", "note": "bold blue", "none": "bold green"}


def add_to(commands: Any) -> None:
    """The command and its arguments."""
    doctor = commands.add_parser("doctor", help="what is wrong with a training?", description=run.__doc__)
    doctor.add_argument("folder", metavar="RESULT_DIR", type=Path, help="where fit(doctor=) or fdl.doctor.save wrote")
    doctor.add_argument("--page", metavar="FILE.html", type=Path, help="write an interactive page (fdl[doctor])")
    doctor.add_argument("--pictures", metavar="FOLDER", type=Path, help="write the pictures as PNG (fdl[lab])")
    doctor.add_argument("--tensorboard", metavar="FOLDER", type=Path, help="write the charts there (fdl[tensorboard])")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(run=run)


def run(settings: argparse.Namespace) -> int:
    """Prints the findings of a training that was watched. Exit code: 0 healthy, 1 an error or a warning was found, 2 could not
    run."""
    from fdl.errors import InputError, InputTypeError

    try:
        return _doctor(settings)
    except (InputError, InputTypeError) as error:
        print(f"fdl doctor: {' '.join(str(error).split())}", file=sys.stderr)
        return UNUSABLE


def _doctor(settings: argparse.Namespace) -> int:
    from fdl.doctor.record import load

    record = load(settings.folder)
    written = []
    if settings.page is not None:
        from fdl.doctor.page import write_page

        written.append(write_page(settings.page, record, settings.folder.resolve().name))
    if settings.pictures is not None:
        from fdl.doctor.pictures import write_pictures

        written += write_pictures(settings.pictures, record.charts)
    if settings.tensorboard is not None:
        from fdl.doctor.events import write_events

        write_events(settings.tensorboard, record.charts)
        written.append(settings.tensorboard)
    if settings.json:
        print(json.dumps(_facts(settings.folder, record), indent=2))
    else:
        _print(settings.folder, record)
    for path in written:
        print(f"fdl doctor: wrote {path}", file=sys.stderr)
    found = any(finding.severity in ("error", "warning") for finding in record.findings)
    return FOUND if found else HEALTHY


def _facts(folder: Path, record: Any) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "charts": len(record.charts.step),
        "last_step": int(record.charts.step[-1]),
        "layers": list(record.charts.names),
        "divergence": record.divergence or None,
        "findings": [dataclasses.asdict(finding) for finding in record.findings],
    }


def _print(folder: Path, record: Any) -> None:
    charts = record.charts
    count = len(charts.step)
    say = _printer()
    last = f", the last of step {int(charts.step[-1])}" if charts.step[-1] >= 0 else ""
    say(f"{folder}: {count} chart{'s' * (count > 1)} of {len(charts.names)} layers{last}")
    if record.divergence:
        say(textwrap.fill(f"stopped: {record.divergence}", _WIDTH))
    for number, finding in enumerate(record.findings, 1):
        where = f" in {finding.layer}" if finding.layer else ""
        kind = "" if finding.severity == "none" else f" ({finding.severity})"
        say("")
        say(f"{number}. {finding.code}{where}{kind}", _COLOURS[finding.severity])
        for label, text in (
            ("", finding.evidence),
            ("remedy: ", finding.remedy),
            *(("tried: ", e) for e in finding.effects),
        ):
            if text:
                say(textwrap.fill(label + text, _WIDTH, initial_indent="   ", subsequent_indent="   "))


def _printer() -> Any:
    """say(text, style): in colour on a terminal with rich, unless NO_COLOR is set."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.text import Text
        except ImportError:
            pass
        else:
            console = Console()
            return lambda text, style="": console.print(Text(text, style=style), soft_wrap=True)
    return lambda text, style="": print(text)
