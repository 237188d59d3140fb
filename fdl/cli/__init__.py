"""The command line: python -m fdl check ..., python -m fdl data ..., python -m fdl doctor ...; one file per command."""

import argparse
from collections.abc import Sequence

from fdl.cli import check, data, doctor


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m fdl", description="Deep learning with every backward by hand.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (check, data, doctor):
        command.add_to(commands)
    settings = parser.parse_args(argv)
    return settings.run(settings)
