"""A file's features do not depend on which other files lie beside it."""

import csv

import numpy as np
import pytest
from PIL import Image

import tacit
from tacit.cli.main import main

TINY = {"encoder": "tacit/convnet?width=8", "epochs": 1, "batch_size": 16, "device": "cpu", "quiet": True}


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def deep(rng, peak):
    """16 bits of grey: stripes up to about this value."""
    y, x = np.mgrid[:24, :24]
    wave = 0.5 + 0.5 * np.sin(x * rng.uniform(0.3, 0.8) + y * rng.uniform(0.3, 0.8) + rng.uniform(0, 6))
    return (wave * peak * rng.uniform(0.9, 1)).astype(np.uint16)


@pytest.fixture
def depths(tmp_path):
    """Bright and dim 16-bit pictures to learn from; the same dim ones alone, and among bright ones."""
    rng = np.random.default_rng(0)
    for i in range(32):
        save(tmp_path / "train" / ("dim", "bright")[i % 2] / f"{i:02}.png", deep(rng, (6000, 60000)[i % 2]))
    for i in range(4):
        dim = deep(rng, 6000)
        save(tmp_path / "alone" / f"dim{i}.png", dim)
        save(tmp_path / "mixed" / f"dim{i}.png", dim)
        save(tmp_path / "mixed" / f"very bright{i}.png", deep(rng, 60000))
    return tmp_path


@pytest.fixture
def sides(tmp_path):
    """Fine pictures of 48 pixels to learn from; one alone, and among thumbnails."""
    rng = np.random.default_rng(0)
    for i in range(32):
        save(tmp_path / "train" / f"{i:02}.png", (rng.integers(0, 2, (48, 48)) * 255).astype(np.uint8))
    one = (rng.integers(0, 2, (48, 48)) * 255).astype(np.uint8)
    save(tmp_path / "alone" / "dim0.png", one)
    save(tmp_path / "mixed" / "dim0.png", one)
    for i in range(20):
        save(tmp_path / "mixed" / f"thumb{i:02}.png", rng.integers(0, 255, (12, 12), dtype=np.uint8))
    return tmp_path


@pytest.mark.parametrize("case", ["depths", "sides"])
def test_features_are_the_same_alone_and_among_others(case, request):
    folder = request.getfixturevalue(case)
    run = tacit.fit("dcl", folder / "train", out=folder / "run", labels="none", **TINY)
    found = {}
    for place in ("alone", "mixed"):
        table = tacit.embed(run.folder, folder / place, folder / f"{place}.npz", device="cpu")
        with np.load(table) as archive:
            names = [str(name) for name in archive["name"]]
            found[place] = archive["embedding"][[i for i, n in enumerate(names) if n.startswith("dim")]]
    assert found["alone"].shape[0] >= 1
    np.testing.assert_allclose(found["alone"], found["mixed"], rtol=1e-5, atol=1e-7)


def test_the_card_says_what_decided(depths):
    run = tacit.fit("dcl", depths / "train", out=depths / "run", labels="none", **TINY)
    card = run.encoder().card.form
    assert (card.stored, card.white) == (24, 65535)
    again = tacit.fit("dcl", depths / "alone", out=depths / "more", **{**TINY, "batch_size": 4,
                      "encoder": f"run:{run.folder}"})  # fmt: skip
    assert (again.encoder().card.form.stored, again.encoder().card.form.white) == (24, 65535)


def test_pictures_of_eight_bits_leave_the_white_open(sides):
    run = tacit.fit("dcl", sides / "train", out=sides / "run", **TINY)
    assert (run.encoder().card.form.stored, run.encoder().card.form.white) == (48, 0)


def test_brighter_pictures_than_those_learned_from_are_reported_each_time(depths, capsys):
    run = tacit.fit("dcl", depths / "alone", out=depths / "run", **{**TINY, "batch_size": 4})
    assert run.encoder().card.form.white == 8191
    words = [str(run.folder), "--data", str(depths / "mixed"), "--out", str(depths / "x.npz")]
    for _ in range(2):  # the second time the pictures are in the cache
        assert main(["embed", *words]) == 0
        said = capsys.readouterr().err
        assert "warning: values up to" in said
        assert "are cut off at 8191" in said


def halves(folder):
    """Class folders of what `sides` or `depths` has to learn from."""
    if not (folder / "train" / "dim").exists():
        for i in range(32):
            (folder / "train" / "ab"[i % 2]).mkdir(exist_ok=True)
            (folder / "train" / f"{i:02}.png").rename(folder / "train" / "ab"[i % 2] / f"{i:02}.png")
    return folder / "train"


@pytest.mark.parametrize("case", ["depths", "sides"])
def test_predictions_are_the_same_alone_and_among_others(case, request):
    folder = request.getfixturevalue(case)
    run = tacit.fit("supervised", halves(folder), out=folder / "run", labels_per_class=6, **TINY)
    rows = {}
    for place in ("alone", "mixed"):
        out = folder / f"{place}.csv"
        tacit.predict(run.folder, folder / place, out, device="cpu")
        with out.open() as file:
            found = [row for row in csv.DictReader(file) if row["file"].startswith("dim")]
        rows[place] = [
            [float(value) for name, value in row.items() if name.startswith("p_")] for row in found
        ]
    assert len(rows["alone"]) == {"depths": 4, "sides": 1}[case]
    np.testing.assert_allclose(rows["alone"], rows["mixed"], atol=1e-5)


@pytest.mark.parametrize("case", ["depths", "sides"])
def test_a_probe_is_the_same_alone_and_among_others(case, request):
    """The same labelled pictures by themselves, and beside others that have no label."""
    folder = request.getfixturevalue(case)
    run = tacit.fit("dcl", folder / "train", out=folder / "run", labels="none", **TINY)
    rng = np.random.default_rng(1)
    names = [f"dim{i:02}.png" for i in range(20)]
    for name in names:
        tile = deep(rng, 6000) if case == "depths" else (rng.integers(0, 2, (48, 48)) * 255).astype(np.uint8)
        for place in ("few", "many"):
            save(folder / place / name, tile)
    for other in (folder / "mixed").iterdir():
        if not other.name.startswith("dim"):
            other.rename(folder / "many" / other.name)
    table = folder / "labels.csv"
    table.write_text("file,label\n" + "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(names)))
    few, many = (
        tacit.probe(run.folder, folder / place, labels=str(table), k=3, device="cpu")
        for place in ("few", "many")
    )
    assert [result.representation for result in few.results] == ["learned", "random twin", "raw pixels"]
    assert few.as_json()["results"] == many.as_json()["results"]
