import io
from itertools import pairwise

import numpy as np
import pytest
from pictures import smooth
from PIL import Image

from tacit.data.open import open_source
from tacit.errors import UsageError


def images(n, height=12, width=12, channels=None):
    stack = np.stack([smooth(height, width, i, channels or 1) for i in range(n)])
    return stack if channels else stack[..., 0]


def save(folder, **arrays):
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def test_medmnist_layout(tmp_path):
    train, val, test = images(6, channels=3), images(3, channels=3), images(2, channels=3)
    path = save(tmp_path, train_images=train, train_labels=np.array([[0], [1], [2], [0], [1], [2]]),
                val_images=val, val_labels=np.array([[2], [1], [0]]), test_images=test,
                test_labels=np.array([[1], [1]]))  # fmt: skip
    source = open_source(path)
    assert source.spec.shape == (3, 12, 12)
    assert source.spec.classes == ("0", "1", "2")
    assert {name: part.tolist() for name, part in source.splits.items()} == {
        "train": [0, 1, 2, 3, 4, 5], "val": [6, 7, 8], "test": [9, 10]}  # fmt: skip
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2, 2, 1, 0, 1, 1]
    assert source.names[6] == "val/000000"
    np.testing.assert_array_equal(source.batch([7]).data[0], np.moveaxis(val[1], 2, 0))
    assert open_source(path, labels="none").labels.max() == -1


@pytest.mark.parametrize(("x", "y"), [("images", "labels"), ("x", "y"), ("X", "y"), ("X", None)])
def test_one_set(tmp_path, x, y):
    grey = images(4)
    path = save(tmp_path, **{x: grey}, **({y: np.array([5, -1, 3, 5])} if y else {}))
    source = open_source(path)
    assert source.spec.shape == (1, 12, 12)
    assert source.splits == {}
    assert source.labels.tolist() == ([1, -1, 0, 1] if y else [-1] * 4)
    assert source.spec.classes == (("3", "5") if y else ())
    np.testing.assert_array_equal(source[2].data[0], grey[2])


def test_keras_layout_with_names_as_labels(tmp_path):
    path = save(tmp_path, x_train=images(3), y_train=np.array(["dog", "cat", "dog"]), x_test=images(1),
                y_test=np.array(["cat"]))  # fmt: skip
    source = open_source(path)
    assert source.spec.classes == ("cat", "dog")
    assert source.labels.tolist() == [1, 0, 1, 0]
    assert source.splits["test"].tolist() == [3]


def test_words_for_no_label_are_no_classes_and_two_spellings_are_one(tmp_path):
    words = np.array(["caf\u00e9", "cafe\u0301", "nan", "", "None", "none"])
    source = open_source(save(tmp_path, images=images(6), labels=words))
    assert source.spec.classes == ("caf\u00e9", "none")
    assert source.labels.tolist() == [0, 0, -1, -1, -1, 1]
    source = open_source(save(tmp_path, images=images(2), labels=np.array([b"dog", b"cat"])))
    assert source.spec.classes == ("cat", "dog")


def test_other_shapes_are_resized(tmp_path):
    wide = images(2, 12, 27, channels=5)
    source = open_source(save(tmp_path, images=wide))
    assert source.spec.shape == (5, 18, 18)  # sqrt(12 x 27)
    assert source[1].extra["true_size"].tolist() == [12, 27]
    exact = Image.fromarray(wide[1, ..., 4]).resize((18, 18), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(source[1].data[4], np.asarray(exact))


def test_deep_arrays_have_one_white_over_all_splits_and_all_images(tmp_path):
    train = np.full((300, 8, 8), 100, np.uint16)
    train[1, 0, 0] = 3000  # a single pixel of a single image decides
    source = open_source(save(tmp_path, train_images=train, test_images=np.full((1, 8, 8), 2000, np.uint16)))
    assert source.white == 4095
    assert source[1].data[0, 0, :2].tolist() == [187, 6]  # 3000, 100 x 255 / 4095
    assert source[300].data.unique().tolist() == [125]  # 2000 x 255 / 4095 = 124.5 + 0.04


def test_whole_numbers_of_other_types_are_taken(tmp_path):
    grey = images(3)
    expected = open_source(save(tmp_path, images=grey)).batch(range(3)).data
    for dtype in (np.float32, np.int64):
        source = open_source(save(tmp_path, images=grey.astype(dtype)))
        assert (source.batch(range(3)).data == expected).all()


def test_the_fingerprint_is_of_the_arrays(tmp_path):
    first = open_source(save(tmp_path, images=images(3)))
    np.savez_compressed(tmp_path / "copy.npz", images=images(3), labels=np.arange(3))
    assert open_source(tmp_path / "copy.npz").fingerprint == first.fingerprint
    assert open_source(save(tmp_path, images=images(3)[::-1])).fingerprint != first.fingerprint


def test_an_opened_archive_is_not_decoded_again(tmp_path, monkeypatch):
    path = save(tmp_path, images=images(3), labels=np.arange(3))
    open_source(path)
    monkeypatch.setattr("tacit.data.image.arrays.fit_array", None)
    monkeypatch.setattr("tacit.data.image.arrays.Archive._images", None)
    assert open_source(path).labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"jpeg": np.zeros(3)}, "holds no images: .* it has jpeg"),
        ({"images": np.random.default_rng(0).random((3, 8, 8))}, r"dtype float64 .* multiply by 255"),
        ({"images": np.full((3, 8, 8), -1)}, "values from -1 to -1"),
        ({"images": np.full((3, 8, 8), np.nan)}, "values from nan"),
        ({"images": np.zeros((3, 8, 8), bool)}, "dtype bool; uint8 or uint16 is needed"),
        ({"images": np.zeros((3, 8), np.uint8)}, r"shape \(3, 8\)"),
        ({"images": np.zeros((0, 8, 8), np.uint8)}, r"shape \(0, 8, 8\)"),
        ({"images": np.zeros((3, 2, 8), np.uint8)}, "smaller than 4 px"),
        ({"images": np.zeros((3, 3, 8, 8), np.uint8)}, "channels must come last"),
        ({"images": np.array([{}] * 3)}, "holds Python objects"),
        ({"images": np.zeros((3, 8, 8), np.uint8), "labels": np.zeros((3, 14))}, "several labels an image"),
        ({"images": np.zeros((3, 8, 8), np.uint8), "labels": np.zeros(2, int)}, "2 labels for 3 images"),
        ({"images": np.zeros((3, 8, 8), np.uint8), "labels": np.full(3, 0.5)}, "labels has dtype float64"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, arrays, message):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(UsageError, match=message) as caught:
        open_source(tmp_path / "data.npz")
    assert "\n" not in str(caught.value)
    assert "data.npz" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04cut off"])
def test_no_archive(tmp_path, content):
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(UsageError, match=r"data\.npz is not an \.npz archive, or it is damaged"):
        open_source(tmp_path / "data.npz")


def test_real_grades_as_arrays(tmp_path, real_data):
    archive = np.load(real_data / "elpv_solar" / "elpv_solar_128.npz")
    data, offset = archive["jpeg"], archive["offset"]
    cells = [data[a:b].tobytes() for a, b in pairwise(offset[:61])]
    stack = np.stack([np.asarray(Image.open(io.BytesIO(cell))) for cell in cells])
    source = open_source(save(tmp_path, images=stack, labels=archive["grade"][:60, None]), size=64)
    assert source.spec.shape == (1, 64, 64)
    assert np.bincount(source.labels).sum() == 60
    exact = Image.fromarray(stack[59]).resize((64, 64), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(source[59].data[0], np.asarray(exact))
    assert source[0].extra["true_size"].tolist() == [128, 128]
