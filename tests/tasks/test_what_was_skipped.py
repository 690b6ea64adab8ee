"""Files that were left out are counted, named and listed by every verb that reads data."""

import csv

import numpy as np
import pytest
from PIL import Image

import tacit
from tacit.cli.main import main
from tacit.data.skipped import report_skipped, skipped_line
from tacit.data.source import Skipped, Source, Spec

TINY = {"encoder": "tacit/convnet?width=8", "epochs": 1, "batch_size": 8, "device": "cpu"}


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run that learned two classes."""
    folder = pictures(tmp_path_factory.mktemp("learned") / "data", 12)
    run = tacit.fit("supervised", folder, out=folder.parent / "run", labels_per_class=4, quiet=True, **TINY)
    return run.folder


def pictures(folder, each):
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 160)):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = (level + rng.integers(0, 60, (12, 12, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02}.png")
    return folder


@pytest.fixture
def damaged(tmp_path):
    """24 pictures and five files that are none."""
    folder = pictures(tmp_path / "some", 12)
    for i in range(5):
        (folder / "dark" / f"bad{i}.png").write_bytes(b"")
    return folder


LINE = (
    "note: skipped 5, used 24: dark/bad0.png: empty file (0 bytes); dark/bad1.png: empty file (0 bytes); "
    "dark/bad2.png: empty file (0 bytes); and 2 more; all are listed in "
)
ROWS = [{"name": f"dark/bad{i}.png", "reason": "empty file (0 bytes)"} for i in range(5)]


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def verb(name, run, data, out):
    return {
        "embed": ["embed", str(run), "--data", str(data), "--out", str(out / "found.npz")],
        "predict": ["predict", str(run), "--data", str(data), "--out", str(out / "found.csv")],
        "probe": ["probe", str(run), "--data", str(data), "--out", str(out / "found.json")],
    }[name]


@pytest.mark.parametrize("name", ["embed", "predict", "probe"])
def test_each_verb_says_what_was_skipped(learned, damaged, tmp_path, capsys, name):
    words = verb(name, learned, damaged, tmp_path)
    assert main(words) == 1
    assert capsys.readouterr().err.strip().startswith("tacit: dark/bad0.png: empty file")
    assert main([*words, "--on-bad-file", "skip"]) == 0
    listed = tmp_path / "found.skipped.csv"
    assert f"{LINE}{listed}\n" in capsys.readouterr().err
    assert rows_of(listed) == ROWS
    for i in range(5):
        (damaged / "dark" / f"bad{i}.png").unlink()
    assert main([*words, "--on-bad-file", "skip"]) == 0
    assert "skipped" not in capsys.readouterr().err
    assert not listed.exists()  # the list of another time would be taken for this one's


def test_fit_says_it_too(damaged, tmp_path, capsys):
    tacit.fit("dcl", damaged, out=tmp_path / "run", on_bad_file="skip", **TINY)
    assert f"{LINE}{tmp_path / 'run' / 'skipped.csv'}\n" in capsys.readouterr().err
    assert rows_of(tmp_path / "run" / "skipped.csv") == ROWS


def test_a_line_names_three_at_most_and_no_file_where_there_is_none():
    two = [Skipped("a", "x"), Skipped("b", "y")]
    assert skipped_line(two, 1234) == "note: skipped 2, used 1,234: a: x; b: y"
    assert skipped_line(two * 2, 0).endswith("a: x; b: y; a: x; and 1 more")


def test_another_file_of_that_name_stays(tmp_path):
    (tmp_path / "a.skipped.csv").write_text("my own notes")
    source = Source(Spec("image", (3, 8, 8)), ["a"])
    report_skipped(source, tmp_path / "a.skipped.csv")
    assert (tmp_path / "a.skipped.csv").read_text() == "my own notes"


def test_a_name_that_is_no_text_is_listed(tmp_path, capsys):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    source = Source(Spec("image", (3, 8, 8)), ["a"], skipped=[Skipped(name, "empty file (0 bytes)")])
    report_skipped(source, tmp_path / "a.skipped.csv")
    assert rows_of(tmp_path / "a.skipped.csv")[0]["name"] == r"caf\xe9.png"
    assert r"skipped 1, used 1: caf\xe9.png: empty" in capsys.readouterr().err
