"""Which method to start with, by what one has; from our own tables, and revised with them."""

from __future__ import annotations

from typing import NamedTuple


class Start(NamedTuple):
    """What to try first.

    words: of `tacit fit`, behind the method. why: what our tables say, and which they are.
    """

    situation: str
    method: str
    words: str
    why: str


STARTS = (
    Start(
        "images, no labels",
        "dcl",
        "--preset laptop",
        "above raw pixels on photographs, solar cells and nuclei (docs/laptop.md)",
    ),
    Start(
        "images, few classes' labels",
        "mixmatch",
        "--preset laptop",
        "ahead of the same labels alone on all four sets after 600 steps (means); flexmatch is far "
        "ahead on digits and level elsewhere (docs/semi-supervised.md)",
    ),
    Start(
        "volumes or images, few masks",
        "supervised-segmentation",
        "",
        "no method was shown to gain over it in short runs (docs/claims/tracoco.md)",
    ),
    Start("images, few numbers", "supervised-regression", "", "the only one there is (docs/values.md)"),
    Start(
        "volumes, no labels",
        "alice",
        "",
        "finds the same structure in other patients; whether it pays is open (docs/claims/alice.md)",
    ),
)
