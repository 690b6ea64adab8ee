"""Names that are not UTF-8 or look like formulas, from the folder to every file that is written."""

import csv
import json
import os

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

import tacit
from tacit.cli.main import main
from tacit.data.open import open_source

FAST = {"encoder": "tacit/convnet?width=4", "epochs": 1, "batch_size": 8, "device": "cpu", "quiet": True}
RAW = [b"=1+1.png", b"-x.png", *(b"caf\xe9%d.png" % i for i in range(10))]
WRITTEN = sorted(["=1+1.png", "-x.png", *(rf"caf\xe9{i}.png" for i in range(10))])
CELLS = sorted(["'=1+1.png", "'-x.png", *(rf"caf\xe9{i}.png" for i in range(10))])


def make(place, raw=RAW):
    """Pictures of these names, every other one bright, and a CSV of the names' bytes and classes."""
    place.mkdir()
    draw, rows = np.random.default_rng(0), [b"file,label"]
    for i, name in enumerate(raw):
        pixels = draw.integers(0, 90, (16, 16), np.uint8) + np.uint8(120 * (i % 2))
        Image.fromarray(pixels).save(os.path.join(os.fsencode(place), name))
        rows.append(name + b"," + (b"bright", b"=dark")[i % 2])
    (place.parent / "labels.csv").write_bytes(b"\n".join(rows))
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("strange")
    try:
        return make(place / os.fsdecode(b"donn\xe9es"))
    except (OSError, UnicodeError):
        pytest.skip("names are UTF-8 in this file system")


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A run that learned from them and skipped a bad one."""
    bad = os.path.join(os.fsencode(folder), b"\xff.png")
    with open(bad, "wb") as file:
        file.write(b"nothing")
    out = tmp_path_factory.mktemp("runs") / os.fsdecode(b"\xe9t\xe9")
    words = {"labels": str(folder.parent / "labels.csv"), "held_out": 0.0, "on_bad_file": "skip", **FAST}
    yield tacit.fit("supervised", folder, out=out, **words)
    os.unlink(bad)


def test_a_run_on_them_ends_with_all_its_files(run, folder):
    with (run.folder / "skipped.csv").open(newline="", encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [r"\xff.png"]
    assert r"on" in (run.folder / "report.html").read_text(encoding="utf-8")
    assert r"donn\xe9es" in (run.folder / "report.html").read_text(encoding="utf-8")
    assert run.settings()["data"] == str(folder)  # faithful, so that it can be resumed
    assert json.loads((run.folder / "predictor.json").read_text())["classes"] == ["=dark", "bright"]


@pytest.mark.parametrize("what", ["embed", "predict"])
def test_every_format_has_the_same_names(what, run, folder, tmp_path):
    read = {"on_bad_file": "skip", "labels": str(folder.parent / "labels.csv"), "device": "cpu"}
    names = {}
    for ending in ("csv", "parquet", *(["npz"] if what == "embed" else [])):
        out = tmp_path / f"o.{ending}"
        getattr(tacit, what)(run, folder, out, **read)
        if ending == "npz":
            names[ending] = np.load(out)["name"].tolist()
        elif ending == "parquet":
            names[ending] = pyarrow.parquet.read_table(out)["file"].to_pylist()
        else:
            with out.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            assert sorted(row["file"] for row in rows) == CELLS
            assert {row["label"] for row in rows} == {"bright", "'=dark"}
    assert all(sorted(found) == WRITTEN for found in names.values())
    # the table's names find the samples again
    source = open_source(folder, labels=tmp_path / "o.csv", label_column="label", on_bad_file="skip")
    assert source.spec.classes == ("=dark", "bright")
    assert len(source.labelled) == 12


def test_the_command_line_prints_them(run, folder, tmp_path, capsys):
    out = tmp_path / os.fsdecode(b"r\xe9sultat.csv")
    words = ["predict", str(run), "--data", str(folder), "--out", str(out), "--on-bad-file", "skip"]
    assert main([*words, "--device", "cpu"]) == 0
    assert r"r\xe9sultat.csv (12 rows)" in capsys.readouterr().out
    assert main(["embed", "tacit/convnet", "--data", str(folder), "--out", str(out)]) == 1
    assert r"\xff.png: not an image" in capsys.readouterr().err


def test_a_probe_report_is_json_that_others_read(run, folder, tmp_path):
    read = {"on_bad_file": "skip", "labels": str(folder.parent / "labels.csv"), "device": "cpu"}
    tacit.probe(run, folder, out=str(tmp_path / "p.json"), baselines=False, k=1, **read)
    report = json.loads((tmp_path / "p.json").read_text())
    assert report["protocol"]["data"].endswith(r"donn\xe9es")


def test_masks_have_the_names_of_their_table(tmp_path):
    place = tmp_path / "data"
    try:
        for i in range(4):
            for part, value in (("images", 40 * i + 50), ("masks", 255)):
                (place / part).mkdir(parents=True, exist_ok=True)
                pixels = np.full((16, 16), 10, np.uint8) if part == "images" else np.zeros((16, 16), np.uint8)
                pixels[4:12, 4:12] = value
                name = b"caf\xe9%d.png" % i
                Image.fromarray(pixels).save(os.path.join(os.fsencode(place / part), name))
    except (OSError, UnicodeError):
        pytest.skip("names are UTF-8 in this file system")
    small = {**FAST, "encoder": "tacit/unet2d?width=4", "size": 16, "batch_size": 2}
    run = tacit.fit("supervised-segmentation", place, out=tmp_path / "run", **small)
    tacit.predict(run, place, tmp_path / "out", device="cpu")
    with (tmp_path / "out" / "images.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [rf"images/caf\xe9{i}.png" for i in range(4)]
    assert all((tmp_path / "out" / row["mask"]).is_file() for row in rows)


def test_a_cache_and_names_kept_in_it(folder, tmp_path, monkeypatch):
    cache = tmp_path / os.fsdecode(b"caf\xe9")
    first = open_source(folder, cache=cache, on_bad_file="skip")

    def stamps_of():  # listings of a folder that has just changed are made again
        files = (path for path in cache.rglob("*") if path.is_file() and "indices" not in path.parts)
        return {path: path.stat().st_mtime_ns for path in files}

    stamps = stamps_of()
    again = open_source(folder, cache=cache, on_bad_file="skip")
    assert list(again.names) == list(first.names) == sorted(map(os.fsdecode, RAW))
    assert stamps_of() == stamps
    assert stamps
