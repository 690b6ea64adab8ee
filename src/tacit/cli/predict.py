"""`tacit predict RUN --data WHERE --out FILE.csv`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tacit.cli.arguments import Parser, add_options, help_of
from tacit.evaluation.predict import Predictions, predict
from tacit.evaluation.predict_masks import TABLE


def run(argv: Sequence[str]) -> None:
    """Write the predictions; say how they were calibrated and, with labels, how good they are."""
    parser = Parser("predict", predict, "RUN --data WHERE --out FILE.csv|FOLDER")
    parser.add_argument("run", type=str, help=help_of(predict, "run"))
    add_options(parser, predict, skip=("run",))
    found = predict(**parser.parse(argv).as_dict())
    if not isinstance(found, Predictions):
        if found.grades is not None:
            print(found.grades)
        print(f"written: {Path(found.path)} ({found.samples} masks and {TABLE})")
        return
    if found.card.held_out:
        print(
            f"calibrated on {found.card.held_out} held-out labels (temperature {found.card.temperature:.2f})"
        )
    else:
        print("note: not calibrated, as the run has no held-out labels", file=sys.stderr)
    if found.grades is not None:
        print(found.grades)
    print(f"written: {Path(found.path)} ({found.samples} rows)")
