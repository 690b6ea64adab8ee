import numpy as np
import pytest
import torch
from pictures import smooth, turned
from PIL import Image

from tacit.data.image.canvas import PictureCanvas
from tacit.data.image.form import ImageForm
from tacit.data.open import open_source
from tacit.errors import BadFile, UsageError

FORM = ImageForm(channels=1, size=64, mean=(0.5,), std=(0.5,))


@pytest.fixture
def folder(tmp_path):
    """A bright rectangle in two images of 48 x 96 px, with a mask of it for one."""
    pixels = np.full((48, 96), 20, np.uint8)
    pixels[12:36, 24:60] = 230
    for name in ("a", "b"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray((pixels > 99).astype(np.uint8) * 255).save(tmp_path / "masks" / "a.png")
    return tmp_path


def bright(x):
    """Class 1 where the picture is bright."""
    assert x.shape == (1, 1, 64, 64)
    assert x.dtype == torch.float32
    found = (x > 0).float()
    return torch.cat([1 - found, found], 1)


def test_a_picture_in_its_own_size(folder):
    canvas = FORM.canvas(open_source(folder), 0)
    assert isinstance(canvas, PictureCanvas)
    assert canvas.name == "images/a.png"
    assert canvas.shape == (48, 96)
    assert canvas.origin == (folder / "images" / "a.png").resolve()
    assert (canvas.spacing, canvas.unit, canvas.element, canvas.ending) == (None, "px", 1.0, ".png")
    assert canvas.windows() == 1
    mask = canvas.mask()
    assert mask.dtype == np.int64
    expected = np.zeros((48, 96), np.int64)
    expected[12:36, 24:60] = 1
    assert mask.tolist() == expected.tolist()


def test_predictions_keep_their_place(folder):
    canvas = FORM.canvas(open_source(folder), 0)
    probabilities = canvas.predict(bright, "cpu")
    assert probabilities.shape == (2, 48, 96)
    assert probabilities.dtype == torch.float32
    assert torch.allclose(probabilities.sum(0), torch.ones(48, 96))
    found = probabilities.argmax(0).numpy()
    wrong = found != canvas.mask()
    assert not wrong[14:34, 26:58].any()
    assert wrong.sum() < 0.02 * wrong.size
    rows, columns = (np.flatnonzero(found.any(axis)) for axis in (1, 0))
    assert abs(rows.mean() - 23.5) < 0.6
    assert abs(columns.mean() - 41.5) < 0.6


def test_what_is_written_lies_over_the_picture(folder, tmp_path):
    canvas = FORM.canvas(open_source(folder), 0)
    mask = np.arange(48 * 96).reshape(48, 96) % 256
    path = tmp_path / "out" / "a.png"
    canvas.write(mask, path)
    with Image.open(path) as image:
        assert image.mode == "P"
        assert image.size == (96, 48)
        assert np.asarray(image).tolist() == mask.tolist()
        colours = np.array(image.getpalette()).reshape(-1, 3)
    assert colours[0].tolist() == [0, 0, 0]
    assert len(np.unique(colours, axis=0)) == 256
    near = np.abs(colours[:8, None] - colours[None, :8]).sum(-1) + 999 * np.eye(8, dtype=int)
    assert near.min() > 80
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]
    with pytest.raises(
        UsageError, match=r"the mask of images/a.png has shape \(9, 9\), the picture \(48, 96\)"
    ):
        canvas.write(np.zeros((9, 9), int), path)


def test_written_masks_are_read_again(folder):
    canvas = FORM.canvas(open_source(folder), 0)
    mask = canvas.mask()
    canvas.write(mask, folder / "masks" / "b.png")
    (folder / "masks" / "a.png").unlink()
    source = open_source(folder)
    assert source.labels.tolist() == [-1, 0]
    assert source.file_values == (0, 1)
    assert FORM.canvas(source, 1).mask().tolist() == mask.tolist()


def test_pictures_without_masks(folder):
    source = open_source(folder)
    with pytest.raises(UsageError, match=r"images/b.png has no mask"):
        FORM.canvas(source, 1).mask()
    plain = open_source(folder / "images")
    canvas = FORM.canvas(plain.subset(np.array([1, 0])), 0)
    assert canvas.name == "b.png"
    assert canvas.origin == (folder / "images" / "b.png").resolve()
    assert canvas.predict(bright, "cpu").shape == (2, 48, 96)
    with pytest.raises(UsageError, match=r"b.png has no mask"):
        canvas.mask()


def test_a_photo_that_is_turned(tmp_path):
    turned(tmp_path / "a.jpg")
    canvas = FORM.canvas(open_source(tmp_path, channels=1), 0)
    assert canvas.shape == (40, 24)
    found = canvas.predict(lambda x: torch.cat([x, -x], 1), "cpu").argmin(0)
    assert not found[25:].any()  # the red half is above


def test_pictures_of_an_archive_have_no_file(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.stack([smooth(16, 24, i, 1)[..., 0] for i in range(3)]))
    canvas = FORM.canvas(open_source(tmp_path / "a.npz"), 2)
    assert canvas.origin is None
    assert canvas.shape == (16, 24)


def test_a_mask_that_was_changed_since(folder):
    canvas = FORM.canvas(open_source(folder), 0)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / "masks" / "a.png")
    with pytest.raises(BadFile, match=r"a.png: 9 x 9 px, and the image is 96 x 48 px"):
        canvas.mask()


def test_a_written_mask_says_that_it_is_upright(tmp_path):
    (tmp_path / "photos").mkdir()
    picture, turned = np.zeros((16, 16), np.uint8), Image.Exif()
    picture[2:6, 2:6] = 200
    turned[274] = 3
    Image.fromarray(picture).save(tmp_path / "photos" / "a.png", exif=turned)
    source = open_source(tmp_path / "photos", progress=False)
    upright = np.rot90(picture, 2) > 100
    canvas = ImageForm.make(1, size=16).canvas(source, 0)
    canvas.write(upright.astype(np.uint8), tmp_path / "masks" / "a.png")
    again = open_source(tmp_path / "photos", masks=tmp_path / "masks", progress=False)
    assert np.array_equal(again[0].target.numpy() > 0, again[0].data[0].numpy() > 100)
