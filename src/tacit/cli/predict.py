"""`tacit predict RUN --data WHERE --out FILE.csv`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tacit.cli.arguments import Parser, add_options, help_of, require_out
from tacit.tasks.predict import predict


def run(argv: Sequence[str]) -> None:
    """Write the predictions; say how they were calibrated and, with labels, how good they are."""
    parser = Parser("predict", predict, "RUN --data WHERE --out FILE.csv|FOLDER")
    parser.add_argument("run", type=str, help=help_of(predict, "run"))
    add_options(parser, predict, skip=("run",))
    words = parser.parse(argv).as_dict()
    require_out(words, "predict")
    found = predict(**words)
    for line in found.said:
        print(line)
    for line in found.notes:
        print(line, file=sys.stderr)
    if found.grades is not None:
        print(found.grades)
    print(f"written: {found.path} ({found.samples} {found.what})")
