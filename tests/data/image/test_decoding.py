import logging
import warnings

import numpy as np
import pytest
from pictures import bad_files, good_files, smooth, turned
from PIL import Image, ImageFile

from tacit.data.image.decoding import Form, decode, fit_array, peak, read_header, white_above
from tacit.errors import BadFile

RGB16 = Form(3, 16, 65_535)


def read(path, form):
    return decode(path.name, path.read_bytes(), form)


def direct(image, size, mode="RGB"):
    pixels = np.asarray(image.convert(mode).resize((size, size), Image.Resampling.BICUBIC))
    return np.moveaxis(pixels, 2, 0) if pixels.ndim == 3 else pixels[None]


@pytest.mark.parametrize("kind", ["jpg", "png", "bmp", "webp", "tif"])
def test_the_pixels_are_those_of_a_direct_resize(tmp_path, kind):
    Image.fromarray(smooth(30, 20)).save(tmp_path / f"a.{kind}")
    decoded = read(tmp_path / f"a.{kind}", RGB16)
    with Image.open(tmp_path / f"a.{kind}") as image:
        np.testing.assert_array_equal(decoded.pixels, direct(image, 16))
    assert decoded.true_size == (30, 20)


def test_without_resizing_not_a_pixel_changes(tmp_path):
    pixels = smooth(16, 16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png", RGB16).pixels, np.moveaxis(pixels, 2, 0))


def test_every_good_kind_is_read_in_one_three_and_four_channels(tmp_path):
    names = good_files(tmp_path)
    assert len(names) == 13
    for name in names:
        for channels in (1, 3, 4):
            decoded = read(tmp_path / name, Form(channels, 12, 2047))
            assert decoded.pixels.shape == (channels, 12, 12), name
            assert decoded.pixels.dtype == np.uint8
            assert decoded.pixels.flags.c_contiguous
            assert decoded.pixels.std() > 5, name  # not blank
            assert decoded.true_size == ((40, 24) if name == "turned.jpeg" else (30, 40))


def test_every_bad_kind_has_its_own_reason_and_nothing_reaches_the_terminal(tmp_path, capfd, monkeypatch):
    reasons = bad_files(tmp_path)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own, which would take Pillow's words
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, words in reasons.items():
            if name == "gone.jpg":
                continue
            with pytest.raises(BadFile) as caught:
                read(tmp_path / name, RGB16)
            assert words in caught.value.reason, name
            assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_what_the_header_tells_is_known_without_the_pixels(tmp_path, monkeypatch):
    reasons = bad_files(tmp_path)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)  # decoding would fail
    for name in ("wide.png", "bomb.png", "print.jpg", "float.tif", "pages.tiff", "float.npy", "first.npy"):
        with open(tmp_path / name, "rb") as file, pytest.raises(BadFile) as caught:
            read_header(name, file)
        assert reasons[name] in caught.value.reason


def test_the_picture_is_turned_upright_and_so_is_its_size(tmp_path):
    upright = turned(tmp_path / "a.jpg")
    pixels = read(tmp_path / "a.jpg", Form(3, 24, 255)).pixels
    assert upright.shape == (40, 24, 3)
    assert (pixels[0, :10] > 230).all()  # red above
    assert (pixels[0, 14:] < 20).all()
    with open(tmp_path / "a.jpg", "rb") as file:
        assert read_header("a.jpg", file)[:2] == (40, 24)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_all_eight_orientations(tmp_path, orientation, kind):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:4, :8] = 255  # a white corner says how the picture lies
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"a.{kind}", exif=exif)
    corner = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[orientation]
    decoded = read(tmp_path / f"a.{kind}", Form(1, 8, 255))
    halves = {"t": slice(0, 3), "b": slice(5, 8), "l": slice(0, 3), "r": slice(5, 8)}
    assert decoded.pixels[0][halves[corner[0]], halves[corner[1]]].min() > 200
    assert decoded.pixels.mean() < 80
    assert decoded.true_size == ((16, 8) if orientation > 4 else (8, 16))


def test_a_large_jpeg_is_reduced_while_decoding_but_keeps_its_size_and_look(tmp_path, monkeypatch):
    Image.fromarray(smooth(640, 480)).save(tmp_path / "a.jpg", quality=95)
    loaded = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: (loaded.append(self.size), load(self))[1])
    decoded = read(tmp_path / "a.jpg", Form(3, 64, 255))
    monkeypatch.undo()
    with Image.open(tmp_path / "a.jpg") as image:
        exact = direct(image, 64)
    assert loaded[0] == (240, 320)  # a quarter of 480 would be less than 2 x 64
    assert decoded.true_size == (640, 480)
    assert np.abs(decoded.pixels.astype(int) - exact).mean() < 2


def test_a_camera_file_with_a_preview_is_one_picture(tmp_path):
    picture, preview = Image.fromarray(smooth(32, 32)), Image.fromarray(smooth(8, 8, 5))
    picture.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
        np.testing.assert_array_equal(read(tmp_path / "a.jpg", RGB16).pixels, direct(image, 16))


def test_transparency_is_laid_over_white_or_kept(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[..., 0], pixels[..., 3] = 200, 51  # a fifth of red
    Image.fromarray(pixels).save(tmp_path / "a.png")
    over_white = read(tmp_path / "a.png", Form(3, 8, 255)).pixels
    assert over_white[:, 0, 0].tolist() == [244, 204, 204]  # 0.2 x 200 + 0.8 x 255, 0.8 x 255
    assert read(tmp_path / "a.png", Form(4, 8, 255)).pixels[:, 0, 0].tolist() == [200, 0, 0, 51]


def test_colour_becomes_grey_by_luminance_and_grey_is_repeated(tmp_path):
    pixels = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "colour.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    luminance = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)  # 124
    assert read(tmp_path / "colour.png", Form(1, 8, 255)).pixels.tolist() == [[[luminance] * 8] * 8]
    assert fit_array("a", pixels, Form(1, 8, 255)).tolist() == [[[luminance] * 8] * 8]
    assert read(tmp_path / "grey.png", Form(3, 8, 255)).pixels[:, 0, 0].tolist() == [200, 200, 200]
    assert read(tmp_path / "grey.png", Form(4, 8, 255)).pixels[:, 0, 0].tolist() == [200, 200, 200, 255]


@pytest.mark.parametrize(("highest", "white"), [(1, 255), (255, 255), (256, 511), (3000, 4095), (4095, 4095),
                                               (4096, 8191), (65_535, 65_535)])  # fmt: skip
def test_white_is_the_next_power_of_two_less_one(highest, white):
    assert white_above(highest) == white


@pytest.mark.parametrize("save", ["png", "tif", "big-endian tif", "npy", "int32 tif"])
def test_deep_greys_are_scaled_by_one_white_and_clipped(tmp_path, save):
    values = np.array([[0, 1], [8, 9], [2048, 4095], [4096, 65_535]], np.uint16).repeat(2, axis=1)
    if save == "npy":
        np.save(tmp_path / "a.npy", values)
    elif save == "big-endian tif":
        data = values.astype(">u2").tobytes()
        Image.frombytes("I;16B", (4, 4), data).save(tmp_path / "a.tif")
    elif save == "int32 tif":
        Image.fromarray(values.astype(np.int32)).save(tmp_path / "a.tif")
    else:
        Image.fromarray(values).save(tmp_path / f"a.{save}")
    path = next(tmp_path.iterdir())
    pixels = read(path, Form(1, 4, 4095)).pixels[0, :, ::2]
    # 8 x 255 / 4095 = 0.498, 9 x 255 / 4095 = 0.560, 2048 x 255 / 4095 = 127.53
    assert pixels.tolist() == [[0, 0], [0, 1], [128, 255], [255, 255]]
    assert peak(path.name, path.read_bytes()) == 65_535


def test_a_deep_image_is_rounded_once_after_resizing():
    values = np.tile(np.array([[0, 100]], np.uint16), (8, 4))
    halved = fit_array("a", values, Form(1, 4, 4095))
    assert set(halved.ravel()) <= {2, 3, 4}  # 50 x 255 / 4095 = 3.1, with ringing at the borders
    assert peak("a.png", b"no image") == 0


def test_what_is_brighter_than_white_is_clipped_before_it_spreads():
    values = np.zeros((8, 8), np.uint16)
    values[4, 4] = 65_535
    clipped = fit_array("a", np.minimum(values, 255), Form(1, 4, 255))
    assert 30 < clipped.max() < 120
    np.testing.assert_array_equal(fit_array("a", values, Form(1, 4, 255)), clipped)


def test_arrays_keep_their_channels_and_each_is_resized_alone(tmp_path):
    array = smooth(20, 30, channels=5)
    np.save(tmp_path / "a.npy", array)
    decoded = read(tmp_path / "a.npy", Form(5, 10, 255))
    for c in range(5):
        assert np.array_equal(decoded.pixels[c], direct(Image.fromarray(array[..., c]), 10, "L")[0])
    with pytest.raises(BadFile, match="5 channels where 3 are wanted"):
        read(tmp_path / "a.npy", Form(3, 10, 255))


def test_the_digest_is_of_the_bytes(tmp_path):
    Image.fromarray(smooth(16, 16)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    assert decode("a.png", data, RGB16).digest == decode("b.png", data, RGB16).digest
    assert decode("a.png", data, RGB16).digest != decode("a.png", data + b"\0", RGB16).digest
