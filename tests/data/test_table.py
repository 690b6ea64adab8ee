"""CSV files as spreadsheets, pandas and R save them."""

import os

import pytest

from tacit.data.table import read_table
from tacit.errors import UsageError


@pytest.fixture
def cells(tmp_path):
    def read(content):
        path = tmp_path / "t.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return [line.cells for line in read_table(path, "label").lines]

    return read


TWO = [("file", "label"), ("a.png", "grün")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_separators_and_line_ends(cells, encoding, separator, end):
    text = end.join(separator.join(row) for row in TWO)
    assert cells(text.encode(encoding)) == TWO
    assert cells((text + end + separator + end).encode(encoding)) == TWO  # an empty row at the end


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("sep=;\nfile;label\na;1,5\n", [("file", "label"), ("a", "1,5")]),
        ('"sep=,"\r\nfile,label\r\na,b\r\n', [("file", "label"), ("a", "b")]),
        ("a;1,5\nb;2\n", [("a", "1,5"), ("b", "2")]),
        ("a;1,5\nb;2,5\n", [("a", "1,5"), ("b", "2,5")]),  # as many commas: no decimal comma is a separator
        ('"name, of file";label\na;b\n', [("name, of file", "label"), ("a", "b")]),
        ("a.png;black, white\nb.png;red\n", [("a.png", "black, white"), ("b.png", "red")]),
        ('"a","x\ny",1\n"b","z",2\n', [("a", "x\ny", "1"), ("b", "z", "2")]),
        ('"a", "b c" , d\ne, f, g\n', [("a", "b c", "d"), ("e", "f", "g")]),
        ("file,label,,\na,b,,\n", [("file", "label"), ("a", "b")]),
        ("file,label,,\na,b,,c\n", [("file", "label", "", ""), ("a", "b", "", "c")]),
        ("a,b\u2028c\nd,e\x85f\n", [("a", "b\u2028c"), ("d", "e\x85f")]),  # no ends of lines in CSV
        ("", [()]),
    ],
)
def test_tables_by_hand(cells, text, rows):
    assert cells(text) == rows


def test_lines_are_those_of_the_file(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('sep=,\nfile,label\n\na,"x\ny"\nb,z\n')
    assert [line.number for line in read_table(path, "label").lines] == [2, 4, 6]


def test_one_byte_per_character(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("file,label\na.png,grün €\n".encode("cp1252"))
    table = read_table(path, "label")
    assert table.encoding == "Windows-1252"
    assert table.readable(table.lines[1].cells[1]) == "grün €"
    path.write_bytes(b"file,label\ncaf\xe9.png,b\n")  # or the bytes of a name
    assert read_table(path, "label").lines[1].cells[0] == os.fsdecode(b"caf\xe9.png")


def test_cells_are_composed_and_formulas_are_what_they_were(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("file,label\na,cafe\u0301\nb,'=x\nc,'x\n", encoding="utf-8")
    table = read_table(path, "label")
    assert [table.readable(line.cells[1]) for line in table.lines[1:]] == ["café", "=x", "'x"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'file,label\na,"b\nc,d\ne,f\n', r"t\.csv, after line 1: .*is a quote open\?"),
        (b'file,label\na,"b"c\nd,"e\nf\n', r"after line 1: "),
        (b"\xff\xfea", r"cannot read the labels file .*t\.csv"),
    ],
)
def test_what_cannot_be_read_is_one_line(cells, content, message):
    with pytest.raises(UsageError, match=message) as caught:
        cells(content)
    assert "\n" not in str(caught.value)


def test_a_label_in_no_encoding_that_is_known(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("file,label\na,データ\n".encode("shift-jis"))  # has a byte that Windows-1252 lacks
    table = read_table(path, "label")
    with pytest.raises(UsageError, match="neither UTF-8 nor Windows-1252: save it as UTF-8"):
        table.readable(table.lines[1].cells[1])


def test_a_pipe_or_a_device_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "labels.csv")
    (tmp_path / "endless.csv").symlink_to("/dev/zero")
    for name in ("labels.csv", "endless.csv"):
        with pytest.raises(UsageError, match=f"cannot read the labels file .*{name}: ") as caught:
            read_table(tmp_path / name, "label")
        assert "\n" not in str(caught.value)
