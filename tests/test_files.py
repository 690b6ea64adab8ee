"""Text that any file can hold, and CSV that no spreadsheet executes."""

import csv
import io
import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tacit.errors import TacitError, escaped
from tacit.files import csv_line, plain_cell, without_nan, write_atomically

LATIN = os.fsdecode(b"caf\xe9.png")  # a name in Latin-1, as Python has it: "caf\udce9.png"


def test_bytes_that_are_not_utf_8_are_escaped_and_all_else_stays():
    assert escaped(LATIN) == r"caf\xe9.png"
    assert escaped(os.fsdecode(b"\xff\xfe")) == r"\xff\xfe"
    assert escaped("café, 日本, plain") == "café, 日本, plain"
    assert escaped("half \ud800") == r"half \ud800"  # of no file: half of a pair
    assert str(TacitError(f"no {LATIN}")) == r"no caf\xe9.png"


def test_text_files_and_json_hold_any_name(tmp_path):
    write_atomically(tmp_path / "a.txt", f"{LATIN} é")
    assert (tmp_path / "a.txt").read_bytes() == b"caf\\xe9.png \xc3\xa9"
    assert without_nan({LATIN: [LATIN, float("nan")]}) == {r"caf\xe9.png": [r"caf\xe9.png", None]}


@pytest.mark.parametrize(
    ("cells", "line"),
    [
        (["a.png", "cat", 0.5, 3, None], "a.png,cat,0.5,3,"),
        (["=1+1", "+a", "-a", "@a"], "'=1+1,'+a,'-a,'@a"),
        (["=a,b", 'say "x"'], '"\'=a,b","say ""x"""'),
        (["x;=1+1"], '"x;=1+1"'),  # where ; separates, the rest would be a cell of its own
        (["x\t=1", "a\nb"], '"x\t=1","a\nb"'),
        (["\uff1d1+1"], "'\uff1d1+1"),
        (["-5", "+3.5", "-1e-3", "-.5", "-5-"], "-5,+3.5,-1e-3,-.5,'-5-"),  # numbers are what they are
        ([-5, -0.5], "-5,-0.5"),
        ([LATIN], r"caf\xe9.png"),
    ],
)
def test_lines_by_hand(cells, line):
    assert csv_line(cells) == line + "\n"


def test_numbers_behind_the_cells_are_written_as_they_are():
    assert csv_line(["-x"], ["-0.5", "-inf"]) == "'-x,-0.5,-inf\n"


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8"), max_size=6) | st.text("=+-@';,\"\t\n a1", max_size=5),
        min_size=2,
    )
)
@example(["", "'"])
def test_what_was_written_is_read_again(cells):
    cells = [cell for cell in cells if not cell.startswith("'")] or ["x", "y"]
    (row,) = csv.reader(io.StringIO(csv_line(cells), newline=""))
    assert [plain_cell(cell) for cell in row] == cells
    assert not any(cell.startswith(tuple("=@\t\r\n")) for cell in row)
