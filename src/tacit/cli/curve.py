"""`tacit curve --data WHERE [--methods A,B] [--budgets 5,20] [--seeds N]`."""

from __future__ import annotations

from collections.abc import Sequence

from tacit.battle.curve import curve
from tacit.battle.outcome import Unfinished
from tacit.cli.arguments import Parser, add_option, add_options, help_of


def run(argv: Sequence[str]) -> None:
    """Run what is missing, print the table, and say where the figure is."""
    parser = Parser("curve", curve, "--data WHERE [--methods A,B] [--budgets 5,20,80] [--seeds N] ...")
    add_option(parser, "methods", str | None, help_of(curve, "methods"))
    add_option(parser, "budgets", str | None, help_of(curve, "budgets"))
    add_options(parser, curve, skip=("methods", "budgets", "options"))
    try:
        outcome = curve(**parser.parse(argv).as_dict())
    except Unfinished as error:
        if error.outcome is not None:
            print(f"\n{error.outcome}\n")
        raise
    print(f"\n{outcome}\n")
