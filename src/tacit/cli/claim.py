"""`tacit claim [NAME] [--quick]`."""

from __future__ import annotations

from collections.abc import Sequence

from tacit.claims.run import CLAIMS, as_table, claim, load_claim
from tacit.cli.arguments import Parser, add_options, help_of


def run(argv: Sequence[str]) -> None:
    """List the claims, or run one and print what came out."""
    parser = Parser("claim", claim, "[NAME] [--quick] [--data FOLDER] [--out FOLDER] [--jobs N]")
    parser.add_argument("name", type=str, nargs="?", help=help_of(claim, "name"))
    add_options(parser, claim, skip=("name",))
    arguments = parser.parse(argv).as_dict()
    if arguments["name"] is None:
        _list()
        return
    outcome = claim(**arguments)
    print(f"\n{load_claim(arguments['name']).statement}\n")
    for title, rows in outcome.tables.items():
        print(f"{title}\n\n{as_table(rows)}\n")
    verdict = "none, this was a quick run" if arguments["quick"] else outcome.verdict
    print(f"verdict: {verdict}\nbecause: {outcome.because}")


def _list() -> None:
    for name, (_, what, minutes) in CLAIMS.items():
        print(f"{name:10}{what} (about {minutes} min on two cores)")
    print("\ntacit claim NAME runs one; tacit claim NAME --quick shows it in a minute or two")
