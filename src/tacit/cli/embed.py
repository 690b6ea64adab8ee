"""`tacit embed RUN|SPEC --data WHERE --out FILE`."""

from __future__ import annotations

from collections.abc import Sequence

from tacit.cli.arguments import Parser, add_options, help_of, require_out
from tacit.evaluation.embed import embed


def run(argv: Sequence[str]) -> None:
    """Print where the vectors are."""
    parser = Parser("embed", embed, "RUN|SPEC --data WHERE --out FILE.parquet|FILE.csv|FILE.npz ...")
    parser.add_argument("what", type=str, help=help_of(embed, "what"))
    add_options(parser, embed, skip=("what",))
    words = parser.parse(argv).as_dict()
    require_out(words, "embed")
    print(embed(**words))
