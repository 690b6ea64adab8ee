"""Knee radiographs: geometry against exact averages, grey values by hand, and files that are not usable."""

import sys

import numpy as np
import pydicom
import pytest
from pictures import smooth, turned
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1, generate_uid

from tacit.data.image.knees import convert_knees, knee_patches, read_radiograph
from tacit.data.open import open_source
from tacit.errors import BadFile, TacitError, UsageError


def film(side=700, seed=0):
    """Structure and noise, (side, side) uint8."""
    noise = np.random.default_rng(seed).integers(0, 40, (side, side))
    return (smooth(side, side, seed, 1)[..., 0] * 0.8 + noise).astype(np.uint8)


def dicom(path, values, **elements):
    """A DICOM file of these (H, W) values; `elements` are set last, None removes one."""
    content = Dataset()
    content.file_meta = FileMetaDataset()
    content.file_meta.TransferSyntaxUID = elements.pop("syntax", ExplicitVRLittleEndian)
    content.file_meta.MediaStorageSOPClassUID = content.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    content.file_meta.MediaStorageSOPInstanceUID = content.SOPInstanceUID = generate_uid()
    content.Rows, content.Columns = values.shape[:2]
    content.SamplesPerPixel, content.PhotometricInterpretation = 1, "MONOCHROME2"
    content.BitsAllocated, content.BitsStored, content.HighBit = 16, 12, 11
    content.PixelRepresentation = int(values.min() < 0)
    content.PixelData = values.astype("<i2" if values.min() < 0 else "<u2").tobytes()
    for keyword, value in elements.items():
        if value is None:
            delattr(content, keyword)
        else:
            setattr(content, keyword, value)
    content.save_as(path, enforce_file_format=True)
    return path


def ramp(*values):
    """These values as the columns of a square."""
    return np.tile(np.array(values), (len(values), 1))


def first_row(path):
    return read_radiograph(path).image[0].tolist()


def averaged(square):
    """Any square to (300, 300), exactly: every pixel as 300 x 300 small ones, in blocks of the old side."""
    side = len(square)
    steps = np.gcd(side, 300)
    for axis in (0, 1):
        small = np.repeat(square, 300 // steps, axis)
        square = np.add.reduceat(small.astype(float), np.arange(0, small.shape[axis], side // steps), axis)
    return square / (side // steps) ** 2


@pytest.mark.parametrize(
    ("height", "width", "spacing", "side"),
    [
        (700, 700, 0.2, 550),
        (700, 700, None, 550),
        (810, 821, 0.1375, 800),
        (224, 224, None, 176),
        (110, 111, 1.0, 110),
    ],
)
def test_patches_are_area_averages_at_their_place(height, width, spacing, side):
    image = film(max(height, width))[:height, :width]
    top, left = (height - side) // 2, (width - side) // 2
    whole = averaged(image[top : top + side, left : left + side])
    expected = whole[100:228, 0:128], np.fliplr(whole[100:228, 172:300])
    patches = knee_patches(image, spacing)
    assert patches.shape == (2, 128, 128)
    assert patches.dtype == np.uint8
    assert np.abs(patches - np.stack(expected)).max() <= 0.5 + 1e-9
    assert patches.std() > 10


def test_a_mirrored_knee_has_its_patches_exchanged():
    image = film()
    mirrored = knee_patches(np.fliplr(image), 0.2)
    np.testing.assert_array_equal(mirrored, knee_patches(image, 0.2)[::-1])
    symmetric = knee_patches(np.maximum(image, np.fliplr(image)), 0.2)
    np.testing.assert_array_equal(*symmetric)


def test_millimetres_count_and_not_pixels():
    coarse = film(351)
    fine = coarse.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(knee_patches(coarse, 0.4), knee_patches(fine, 0.2))
    assert (knee_patches(fine, 0.2) != knee_patches(fine, 0.25)).mean() > 0.5


@pytest.mark.parametrize(
    ("image", "spacing", "message"),
    [
        (np.zeros((700, 700, 3), np.uint8), 0.2, r"not \(700, 700, 3\) uint8"),
        (np.zeros((700, 700), np.uint16), 0.2, "uint16"),
        (np.zeros((0, 700), np.uint8), None, r"not \(0, 700\)"),
        (np.zeros((700, 500), np.uint8), 0.2, r"500 x 700 px of 0.2 mm show 100 x 140 mm; 110 x 110 mm are"),
        (np.zeros((700, 700), np.uint8), 0.0, "spacing_mm must be above 0"),
        (np.zeros((700, 700), np.uint8), float("nan"), "spacing_mm must be above 0"),
        (np.zeros((700, 700), np.uint8), 200.0, "below 110, not 200"),
    ],
)
def test_wrong_images_get_one_line(image, spacing, message):
    with pytest.raises(UsageError, match=message):
        knee_patches(image, spacing)


def test_pictures_are_read_as_they_are(tmp_path):
    grey = film(60)
    Image.fromarray(grey).save(tmp_path / "a.png", dpi=(300, 300))
    image, spacing = read_radiograph(tmp_path / "a.png")
    np.testing.assert_array_equal(image, grey)
    assert spacing is None
    Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_radiograph(tmp_path / "b.png").image, grey)
    Image.fromarray(grey).save(tmp_path / "c.jpg", quality=95)
    assert np.abs(read_radiograph(tmp_path / "c.jpg").image.astype(int) - grey).mean() < 6
    upright = turned(tmp_path / "d.jpeg")
    assert read_radiograph(tmp_path / "d.jpeg").image.shape == upright.shape[:2]


def test_deep_pictures_are_spread_by_percentiles(tmp_path):
    # 0, 10, ..., 1000: the 1st and the 99th percentile are 10 and 990
    Image.fromarray(ramp(*range(0, 1001, 10)).astype(np.uint16)).save(tmp_path / "a.png")
    assert first_row(tmp_path / "a.png") == [round(255 * min(max(v - 1, 0), 98) / 98) for v in range(101)]


def test_dicom_without_a_window_is_spread_by_percentiles(tmp_path):
    expected = [round(255 * min(max(v - 1, 0), 98) / 98) for v in range(101)]
    for name, values in {"a": range(101), "signed": range(-50, 51), "scaled": range(0, 303, 3)}.items():
        assert first_row(dicom(tmp_path / name, ramp(*values))) == expected
    assert first_row(dicom(tmp_path / "lut", ramp(*range(101)), WindowCenter="", WindowWidth="")) == expected
    # few bright pixels on black: both percentiles are 0, and the extremes count
    spots = np.zeros((40, 40), int)
    spots[0, :3] = 100, 200, 400
    assert first_row(dicom(tmp_path / "spots", spots))[:4] == [64, 128, 255, 0]


STEP = ramp(*[0] * 4, *[4] * 4).astype("<u2").tobytes()
WINDOWED = (0, 1536, 1537, 1792, 2048, 2559, 2560, 4095)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        # black up to c - 0.5 - (w - 1) / 2 = 1536, white above 2559
        ({"WindowCenter": 2048, "WindowWidth": 1024}, [0, 0, 0, 64, 128, 255, 255, 255]),
        ({"WindowCenter": [2048, 9], "WindowWidth": [1024, 9]}, [0, 0, 0, 64, 128, 255, 255, 255]),
        # (v - c) / w + 0.5
        ({"WindowCenter": 2048, "WindowWidth": 1024, "VOILUTFunction": "LINEAR_EXACT"},
         [0, 0, 0, 64, 128, 255, 255, 255]),
        # 1 / (1 + exp(-4 (v - c) / w)): exp(-8), exp(-2), exp(-1), 1, exp(1.996), ...
        ({"WindowCenter": 2048, "WindowWidth": 1024, "VOILUTFunction": "SIGMOID"},
         [0, 30, 31, 69, 128, 224, 225, 255]),
        # the window is of rescaled values: 2 v - 1000 has the centre where v = 1524
        ({"WindowCenter": 2048, "WindowWidth": 2048, "RescaleSlope": 2, "RescaleIntercept": -1000},
         [0, 131, 131, 194, 255, 255, 255, 255]),
        # a window without a width is none
        ({"WindowCenter": 2048, "WindowWidth": 0, "PixelData": STEP}, [0] * 4 + [255] * 4),
    ],
)  # fmt: skip
def test_the_window_of_the_file_is_used(tmp_path, elements, expected):
    path = dicom(tmp_path / "a.dcm", ramp(*WINDOWED), **elements)
    assert first_row(path) == expected
    inverted = dicom(tmp_path / "b.dcm", ramp(*WINDOWED), PhotometricInterpretation="MONOCHROME1", **elements)
    assert first_row(inverted) == [255 - value for value in expected]


@pytest.mark.parametrize(
    ("elements", "spacing"),
    [
        ({"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.25, 0.25]}, 0.2),
        ({"ImagerPixelSpacing": [0.148, 0.148]}, 0.148),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.1, 0.1]}, 0.1),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.1, 0.1]}, 0.1),
        ({}, None),
    ],
)
def test_spacing(tmp_path, elements, spacing):
    elements = {keyword: "" if value is None else value for keyword, value in elements.items()}
    assert read_radiograph(dicom(tmp_path / "a", ramp(1, 2, 3, 4), **elements)).spacing_mm == spacing


def test_files_that_cannot_be_used_say_why(tmp_path):
    def refused(path, reason):
        with pytest.raises(BadFile, match=reason) as caught:
            read_radiograph(path)
        assert "\n" not in str(caught.value)
        assert caught.value.name == path.name

    good = ramp(1, 2, 3, 4)
    text = tmp_path / "text.dcm"
    text.write_text("patient,grade\n" * 20)
    refused(text, "not a DICOM file: it starts with b'patient,'")
    (tmp_path / "empty.dcm").touch()
    refused(tmp_path / "empty.dcm", "empty file")
    refused(tmp_path / "gone.dcm", "does not exist")
    (tmp_path / "text.png").write_text("<html>")
    refused(tmp_path / "text.png", "not an image")
    refused(dicom(tmp_path / "report.dcm", good, PixelData=None), "no pixel data")
    frames = {"NumberOfFrames": 2, "PixelData": good.astype("<u2").tobytes() * 2}
    refused(dicom(tmp_path / "frames.dcm", good, **frames), "2 frames: save the one")
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    refused(dicom(tmp_path / "colour.dcm", good, **colour), "colours of the kind RGB")
    refused(dicom(tmp_path / "flat.dcm", 7 * np.ones((4, 4))), "blank")
    refused(dicom(tmp_path / "wide.dcm", good, PixelSpacing=[0.1, 0.2]), "pixels of 0.1 x 0.2 mm")
    refused(dicom(tmp_path / "short.dcm", good, PixelData=b"\0\0" * 9), "damaged: .*less than expected")
    Image.new("L", (20, 20)).save(tmp_path / "flat.png")
    refused(tmp_path / "flat.png", "blank")


def test_a_missing_decoder_is_named(tmp_path):
    if pydicom.pixels.get_decoder(JPEGLosslessSV1).is_available:
        pytest.skip("a decoder of lossless JPEG is installed here")
    data = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    path = dicom(tmp_path / "a.dcm", ramp(1, 2, 3, 4), syntax=JPEGLosslessSV1, PixelData=data)
    with pytest.raises(BadFile, match=r"JPEG Lossless.* needs a decoder: pip install pylibjpeg"):
        read_radiograph(path)


def test_no_cut_file_is_taken_for_a_whole_one(tmp_path):
    whole = dicom(
        tmp_path / "a.dcm", film(24), PixelSpacing=[0.2, 0.2], WindowCenter=90, WindowWidth=90
    ).read_bytes()
    for end in [*range(1, len(whole), 13), len(whole) - 1]:
        (tmp_path / "cut.dcm").write_bytes(whole[:end])
        with pytest.raises(BadFile) as caught:
            read_radiograph(tmp_path / "cut.dcm")
        assert "\n" not in caught.value.reason


def test_a_spoilt_header_is_a_bad_file_or_an_image(tmp_path, capfd):
    whole = dicom(
        tmp_path / "a.dcm", film(24), PixelSpacing=[0.2, 0.2], WindowCenter=90, WindowWidth=90
    ).read_bytes()
    draw, refused = np.random.default_rng(0), 0
    for _ in range(300):
        spoilt = bytearray(whole)
        spoilt[draw.integers(132, len(whole) - 2 * 24 * 24)] = draw.integers(0, 256)
        (tmp_path / "b.dcm").write_bytes(spoilt)
        try:
            assert read_radiograph(tmp_path / "b.dcm").image.dtype == np.uint8
        except BadFile as bad:
            assert "\n" not in bad.reason  # noqa: PT017
            refused += 1
    assert 20 < refused < 280
    assert capfd.readouterr() == ("", "")


def test_a_missing_extra_is_one_line(tmp_path, monkeypatch):
    path = dicom(tmp_path / "a.dcm", ramp(1, 2, 3, 4))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UsageError, match=r"pip install 'tacit\[radiographs\]'"):
        read_radiograph(path)
    Image.fromarray(film(20)).save(tmp_path / "a.png")
    read_radiograph(tmp_path / "a.png")  # pictures need nothing


@pytest.fixture
def knees(tmp_path):
    """A folder of five knees of four patients, and things that are none."""
    folder = tmp_path / "knees"
    (folder / "p1").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    Image.fromarray(film(seed=0)).save(folder / "p1" / "left.png")
    Image.fromarray(film(seed=1)).save(folder / "p1" / "right.jpg")
    dicom(folder / "p2.dcm", film(400, seed=2), PixelSpacing=[0.3, 0.3])
    dicom(folder / "00001", film(600, seed=3), ImagerPixelSpacing=[0.2, 0.2])  # as archives name them
    Image.fromarray(film(seed=4)).save(folder / "z.png")
    Image.fromarray(film(seed=5)).save(folder / ".hidden" / "a.png")
    dicom(folder / "DICOMDIR", film(20))
    (folder / "notes.txt").write_text("none")
    return folder


NAMES = ["00001", "p1/left.png", "p1/right.jpg", "p2.dcm", "z.png"]


def test_an_archive_opens_with_its_two_channels(knees, tmp_path):
    table = tmp_path / "grades.csv"
    table.write_text("image,grade\np1/left.png,4\np1/right.jpg,0\n00001,1\np2.dcm,3.0\n")
    done = convert_knees(knees, tmp_path / "out" / "knees.npz", labels=table)
    assert done == (tmp_path / "out" / "knees.npz", 5, 4, ())
    with np.load(done.path) as archive:
        assert archive["images"].shape == (5, 128, 128, 2)
        assert archive["names"].tolist() == NAMES
        assert archive["labels"].tolist() == [1, 4, 0, 3, -1]  # grades, not their order
    source = open_source(done.path)
    assert source.spec.shape == (2, 128, 128)
    assert source.spec.classes == ("0", "1", "3", "4")
    assert source.labels.tolist() == [1, 3, 0, 2, -1]
    for i, name in enumerate(NAMES):
        expected = knee_patches(*read_radiograph(knees / name))
        np.testing.assert_array_equal(source.batch([i]).data[0], expected)


def test_labels_that_are_words_stay_words(knees, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("image,label\nz.png,severe\np2.dcm,none\n")
    done = convert_knees(knees, tmp_path / "a.npz", labels=table)
    assert done.labelled == 2
    assert open_source(done.path).spec.classes == ("none", "severe")
    assert open_source(done.path).labels.tolist() == [-1, -1, -1, 0, 1]
    assert "labels" not in np.load(convert_knees(knees, tmp_path / "b.npz").path)


def test_bad_files_stop_or_are_skipped(knees, tmp_path):
    Image.fromarray(film()[:, :100]).save(knees / "p1" / "narrow.png")  # pictures have no millimetres: read
    dicom(knees / "small.dcm", film(100), PixelSpacing=[0.2, 0.2])
    (knees / "text.dcm").write_text("nothing")
    table = tmp_path / "grades.csv"
    table.write_text("image,grade\ntext.dcm,4\nz.png,2\n")
    out = tmp_path / "a.npz"
    out.write_bytes(b"older")
    with pytest.raises(BadFile, match=r"^small.dcm: 100 x 100 px of 0.2 mm show 20 x 20 mm"):
        convert_knees(knees, out, labels=table)
    assert out.read_bytes() == b"older"
    done = convert_knees(knees, out, labels=table, on_bad_file="skip")
    assert [bad.name for bad in done.skipped] == ["small.dcm", "text.dcm"]
    assert (done.images, done.labelled) == (6, 1)
    archive = np.load(out)
    assert archive["names"].tolist() == sorted([*NAMES, "p1/narrow.png"])
    assert archive["labels"].tolist() == [-1] * 5 + [2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "grades.csv", "knees"]


def test_what_is_wrong_is_known_before_the_work(knees, tmp_path):
    table = tmp_path / "grades.csv"
    table.write_text("image,grade\np9.dcm,4\n")
    (tmp_path / "none").mkdir()
    for arguments, message in {
        (knees, tmp_path / "a.npy"): "written as .npz, not 'a.npy'",
        (tmp_path / "kness", tmp_path / "a.npz"): "no folder .*kness",
        (tmp_path / "none", tmp_path / "a.npz"): "no radiographs in .*none",
    }.items():
        with pytest.raises(UsageError, match=message):
            convert_knees(*arguments)
    with pytest.raises(UsageError, match=r"no sample is called 'p9\.dcm'; did you mean 'p2\.dcm'"):
        convert_knees(knees, tmp_path / "a.npz", labels=table)
    with pytest.raises(UsageError, match="did you mean 'skip'"):
        convert_knees(knees, tmp_path / "a.npz", on_bad_file="skp")
    (tmp_path / "none" / "a.png").write_text("nothing")
    with pytest.raises(TacitError, match=r"none of the 1 radiographs can be used; a.png: not an image"):
        convert_knees(tmp_path / "none", tmp_path / "a.npz", on_bad_file="skip")
    assert not (tmp_path / "a.npz").exists()
