import shutil

import numpy as np
import pytest
import torch
from pictures import smooth
from PIL import Image

from tacit.data.open import open_source
from tacit.errors import BadFile, TacitError, UsageError

datasets = pytest.importorskip("datasets")


def table(count, first=0, **labels):
    images = [Image.fromarray(smooth(10, 12, first + i)) for i in range(count)]
    features = {"id": datasets.Value("int64"), "image": datasets.Image()}
    columns = {"id": list(range(count)), "image": images}
    for name, (feature, cells) in labels.items():
        features[name], columns[name] = feature, cells
    return datasets.Dataset.from_dict(columns, datasets.Features(features))


def test_a_saved_dictionary_of_splits(tmp_path):
    kind = datasets.ClassLabel(names=["zebra", "ant"])
    whole = datasets.DatasetDict(
        train=table(3, label=(kind, [0, 1, 0])), validation=table(2, 3, label=(kind, [1, -1]))
    )
    whole.save_to_disk(tmp_path / "set")
    source = open_source(f"hf:{tmp_path}/set", size=12, progress=False)
    assert source.spec.classes == ("zebra", "ant")  # in the order of the dataset, not of the alphabet
    assert source.labels.tolist() == [0, 1, 0, 1, -1]
    assert {name: part.tolist() for name, part in source.splits.items()} == {
        "train": [0, 1, 2],
        "val": [3, 4],
    }
    assert source.names[4] == "val/000001"
    exact = Image.fromarray(smooth(10, 12, 4)).resize((12, 12), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(source[4].data, np.moveaxis(np.asarray(exact), 2, 0))
    assert source[4].extra["true_size"].tolist() == [10, 12]


def test_the_store_is_found_again(tmp_path, monkeypatch):
    table(3).save_to_disk(tmp_path / "set")
    first = open_source(f"hf:{tmp_path}/set")
    assert first.labels.tolist() == [-1, -1, -1]
    assert first.splits == {}
    monkeypatch.setattr("tacit.data.image.hub.decode", None)
    assert open_source(f"hf:{tmp_path}/set").fingerprint == first.fingerprint


def test_other_rows_in_the_same_place_are_another_store(tmp_path):
    table(3).save_to_disk(tmp_path / "set")
    first = open_source(f"hf:{tmp_path}/set")[0].data.clone()
    shutil.rmtree(tmp_path / "set")
    table(3, 7).save_to_disk(tmp_path / "set")
    assert not torch.equal(open_source(f"hf:{tmp_path}/set")[0].data, first)


def test_whole_numbers_called_label(tmp_path):
    table(4, label=(datasets.Value("int32"), [7, 3, None, 7])).save_to_disk(tmp_path / "set")
    source = open_source(f"hf:{tmp_path}/set")
    assert source.spec.classes == ("3", "7")
    assert source.labels.tolist() == [1, 0, -1, 1]


def test_a_plain_folder_that_the_library_reads(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(smooth(8, 8)).save(tmp_path / "set" / name / "1.png")
    source = open_source(f"hf:{tmp_path}/set")
    assert source.spec.classes == ("cat", "dog")
    assert source.labels.tolist() == [0, 1]
    assert source.splits == {}  # nothing is set apart


def test_bad_rows(tmp_path):
    rows = table(3).cast_column("image", datasets.Image(decode=False)).to_list()
    rows[1]["image"] = {"bytes": b"not an image", "path": None}
    rows[2]["image"] = None
    features = datasets.Features({"id": datasets.Value("int64"), "image": datasets.Image()})
    datasets.Dataset.from_list(rows, features).save_to_disk(tmp_path / "set")
    with pytest.raises(BadFile, match="000001: not an image"):
        open_source(f"hf:{tmp_path}/set")
    source = open_source(f"hf:{tmp_path}/set", on_bad_file="skip")
    assert source.names == ["000000"]
    assert [file.name for file in source.skipped] == ["000001", "000002"]
    assert source.skipped[1].reason == "no image in this row"


def test_errors_are_one_line(tmp_path):
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "words")
    with pytest.raises(UsageError, match="has no column of images; its columns are text"):
        open_source(f"hf:{tmp_path}/words")
    with pytest.raises(UsageError, match="did you mean 'words'"):
        open_source(f"hf:{tmp_path}/word")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TacitError, match=r"cannot open hf:.*empty: ") as caught:
        open_source(f"hf:{tmp_path}/empty")
    assert "\n" not in str(caught.value)


def test_the_missing_library_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'tacit\[hub\]'"):
        open_source("hf:mnist")
