"""`tacit probe RUN|SPEC --data WHERE`."""

from __future__ import annotations

from collections.abc import Sequence

from tacit.cli.arguments import Parser, add_options, help_of
from tacit.tasks.probe import probe


def run(argv: Sequence[str]) -> None:
    """Print the report's table."""
    parser = Parser("probe", probe, "RUN|SPEC --data WHERE [--labels CSV] [--out FILE.json] ...")
    parser.add_argument("what", type=str, help=help_of(probe, "what"))
    add_options(parser, probe, skip=("what",))
    print(probe(**parser.parse(argv).as_dict()))
