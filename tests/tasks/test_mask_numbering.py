"""Classes of true masks that a run numbers in another way, and files with names in upper case."""

import csv
import json

import numpy as np
import pytest
from torch import nn

from tacit.data.open import open_source
from tacit.data.understood import understood
from tacit.data.volume.canvas import VolumeCanvas
from tacit.data.volume.form import VolumeForm
from tacit.encoders.card import EncoderCard, with_card
from tacit.errors import UsageError
from tacit.tasks.base import Asked
from tacit.tasks.masks.numbering import numbering
from tacit.tasks.masks.predict import write_masks
from tacit.tasks.masks.segmenter import MaskCard, Segmenter

nibabel = pytest.importorskip("nibabel")
pytest.importorskip("monai")

RUN = ("background", "liver", "spleen")
AFFINE = np.diag([1.5, 1.2, 2, 1.0])


class Bands(nn.Module):
    """Voxels at 0, 0.5 and 1 are the three classes of a run."""

    def forward_pyramid(self, x):
        return [x]


def segmenter(classes=RUN):
    encoder = with_card(Bands(), EncoderCard("", VolumeForm.make(1, patch=(8, 8, 8))))
    head = nn.Conv3d(1, 3, 1)  # -(x - c)^2 without its x^2, which is the same for all classes
    with_values = [0.0, 0.5, 1.0]
    for k, value in enumerate(with_values):
        head.weight.data[k] = 200 * value
        head.bias.data[k] = -100 * value**2
    return Segmenter(encoder, head, MaskCard(classes=classes))


def anatomy(seed=0):
    return np.random.default_rng(seed).choice(3, (10, 9, 8)).astype(np.uint8)


def folder(place, numbers=(0, 1, 2), names=None, affine=AFFINE, name="a.nii.gz"):
    """A volume whose voxels show the run's classes; in its mask class k has the value numbers[k]."""
    for part, voxels in (
        ("images", anatomy() * np.int16(500)),
        ("labels", np.array(numbers, np.uint8)[anatomy()]),
    ):
        (place / part).mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(voxels, affine), place / part / "a.nii.gz")
        (place / part / "a.nii.gz").rename(place / part / name)
    if names is not None:
        (place / "dataset.json").write_text(json.dumps({"labels": names}))
    return place


def graded(place, out, classes=RUN):
    return write_masks(segmenter(classes), open_source(place), Asked(out, (place,)))


def test_swapped_numbers_are_graded_by_name(tmp_path):
    data = folder(tmp_path / "a", (0, 2, 1), {"background": 0, "spleen": 1, "liver": 2})
    found = graded(data, tmp_path / "out")
    assert found.grades.dice == (1.0, 1.0)
    assert found.notes == (
        "note: classes are matched by name: spleen is 1 in the data and 2 in the run, liver is 2 in the data "
        "and 1 in the run",
    )
    (row,) = csv.DictReader((tmp_path / "out" / "volumes.csv").open())
    assert (row["dice_liver"], row["dice_spleen"]) == ("1.0000", "1.0000")
    written = np.asarray(nibabel.load(tmp_path / "out" / "images" / "a.nii.gz").dataobj)
    np.testing.assert_array_equal(written, anatomy())  # in the run's numbers


def test_the_same_names_and_numbers_say_nothing(tmp_path):
    data = folder(tmp_path / "a", names={"bg": 0, "liver": 1, "spleen": 2, "kidney": 9})
    found = graded(data, tmp_path / "out")
    assert (found.grades.dice, found.notes) == ((1.0, 1.0), ())  # no mask holds a kidney


def test_a_class_that_the_run_does_not_know_is_one_line(tmp_path):
    data = folder(tmp_path / "a", names={"background": 0, "liver": 1, "kidney": 2})
    with pytest.raises(UsageError, match=r"the class 'kidney' \(2\), which the run does not know") as caught:
        graded(data, tmp_path / "out")
    assert "0 background, 1 liver, 2 spleen" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("found", "known", "numbers", "note"),
    [
        (("background", "1", "2"), RUN, [0, 1, 2], "the data's classes have no names"),
        (RUN, ("background", "1", "2"), [0, 1, 2], "the run's classes have no names"),
        (("background", "1"), ("background", "1", "2"), [0, 1], ""),
        (("nothing", "spleen"), RUN, [0, 2], "spleen is 1 in the data and 2 in the run"),
        (("background", "1", "2", "spleen"), RUN, [0, 0, 0, 2], "spleen is 3 in the data and 2"),
        (("b", "cafe\u0301"), ("b", "a", "caf\u00e9"), [0, 2], "is 1 in the data and 2 in the run"),
    ],
)
def test_numberings(found, known, numbers, note):
    held = [k for k, name in enumerate(found) if name != str(k)]
    seen = numbering(found, known, held)
    assert seen.numbers.tolist() == numbers
    assert note in seen.note
    assert bool(note) == bool(seen.note)


def test_more_values_than_the_run_has_are_refused():
    with pytest.raises(UsageError, match="values up to 3, and the run knows 0 to 2"):
        numbering(("background", "1", "2", "3"), RUN, [3])


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("X.NII.GZ", "X.nii.gz"),
        ("X.Nii", "X.nii.gz"),
        ("a.b.nii.gz", "a.b.nii.gz"),
        ("v1.0.NII", "v1.0.nii.gz"),
    ],
)
def test_the_names_of_written_masks(tmp_path, name, mask):
    data = folder(tmp_path / "a", name=name)
    graded(data, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "images").iterdir()] == [mask]


def test_labels_of_files_with_upper_case_names(tmp_path):
    data = folder(tmp_path / "a", name="X.NII.GZ")
    (tmp_path / "labels.csv").write_text("file,label\nX,ill\n")
    assert open_source(data, labels=tmp_path / "labels.csv").spec.classes == ("ill",)


def test_millilitres_and_distances_of_sheared_grids(tmp_path):
    """A tilt of 25 degrees: slices are 2 cos 25 mm apart, not 2 mm."""
    sheared = AFFINE.copy()
    sheared[1, 2], sheared[2, 2] = -2 * np.sin(np.deg2rad(25)), 2 * np.cos(np.deg2rad(25))
    data = folder(tmp_path / "a", affine=sheared)
    source = open_source(data)
    found = graded(data, tmp_path / "out")
    (row,) = csv.DictReader((tmp_path / "out" / "volumes.csv").open())
    cell = 1.5 * 1.2 * 2 * np.cos(np.deg2rad(25)) / 1000
    assert float(row["ml_liver"]) == pytest.approx((anatomy() == 1).sum() * cell, abs=5.1e-5)
    assert found.grades.unit == "mm"
    assert source.notes == (
        "images/a.nii.gz has axes that are not at right angles (a tilted gantry): patches are cut along "
        "these; millilitres and distances are true",
    )
    assert understood(source)[-1].startswith("note: images/a.nii.gz has axes")


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 1.0)])
def test_the_millilitres_of_a_box_are_those_of_its_edges(tmp_path, spacing):
    """Edges of 15, 10.8 and 16 mm, two of them at 65 degrees; also where voxels are sampled again."""
    sheared = AFFINE.copy()
    sheared[1, 2], sheared[2, 2] = -2 * np.sin(np.deg2rad(25)), 2 * np.cos(np.deg2rad(25))
    volume = open_source(folder(tmp_path / "a", affine=sheared), spacing=spacing).volume(0)
    canvas = VolumeCanvas(volume, (8, 8, 8))
    millilitres = 15 * 10.8 * 16 * np.cos(np.deg2rad(25)) / 1000
    assert np.prod(canvas.shape) * canvas.element == pytest.approx(millilitres, rel=0.02)  # whole voxels
    assert np.shape(canvas.grid) == (3, 3)
    upright = open_source(folder(tmp_path / "b", name="b.nii.gz")).volume(0)
    assert VolumeCanvas(upright, (8, 8, 8)).grid == upright.spacing
