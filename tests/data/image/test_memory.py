"""What people have in memory: arrays, tensors, lists, data sets of torch and torchvision."""

import os

import numpy as np
import pytest
import torch
from pictures import smooth, write
from PIL import Image

import tacit
from tacit.data.memory import class_numbers
from tacit.data.open import open_source
from tacit.errors import BadFile, UsageError

PICTURES = np.stack([smooth(12, 12, seed) for seed in range(6)])  # (6, 12, 12, 3)


@pytest.fixture
def files(tmp_path):
    """The same pictures as files, 0.png to 5.png."""
    for i, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    return tmp_path


def pixels(where, **words):
    return open_source(where, progress=False, **words).batch(range(6)).data


class Pairs:
    """A map-style data set."""

    classes = ("lo", "hi")

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def test_all_ways_give_the_pixels_of_the_files(files):
    wanted = pixels(files)
    tensor = torch.from_numpy(PICTURES).movedim(3, 1)
    ways = [
        PICTURES,
        tensor,
        tensor.float() / 255,
        PICTURES / 255,
        np.moveaxis(PICTURES, 3, 1),
        [files / f"{i}.png" for i in range(6)],
        [str(files / f"{i}.png") for i in range(6)],
        [Image.fromarray(picture) for picture in PICTURES],
        list(PICTURES),
        list(tensor),
        Pairs([(Image.fromarray(picture), i % 2) for i, picture in enumerate(PICTURES)]),
        Pairs([(picture.float() / 255, torch.tensor(i % 2)) for i, picture in enumerate(tensor)]),
        torch.utils.data.TensorDataset(tensor, torch.arange(6)),
    ]
    for way in ways:
        assert torch.equal(pixels(way), wanted), type(way)


def test_greys_and_sixteen_bits():
    deep = (PICTURES[..., 0].astype(np.uint16) << 4).astype(np.uint16)
    assert open_source(deep, progress=False).spec.white == 4095
    assert open_source(torch.from_numpy(PICTURES[..., 0]), progress=False).spec.shape == (1, 12, 12)


def test_pictures_of_different_sizes_and_kinds():
    mixed = [
        Image.fromarray(smooth(20, 10)),
        smooth(10, 20)[..., 0],
        Image.fromarray(smooth(8, 8)).convert("P"),
    ]
    source = open_source(mixed, progress=False)
    assert source[0].extra["true_size"].tolist() == [20, 10]
    assert source.spec.shape[0] == 3


def test_torchvision_brings_files_labels_and_classes(tmp_path):
    datasets = pytest.importorskip("torchvision.datasets")
    write(tmp_path, "cat/1.png", "dog/2.png", "dog/3.png")
    brought = open_source(datasets.ImageFolder(tmp_path, transform=lambda x: 1 / 0), progress=False)
    folder = open_source(tmp_path, progress=False)
    assert (brought.spec.classes, brought.labels.tolist()) == (("cat", "dog"), [0, 1, 1])
    assert torch.equal(brought.batch(range(3)).data, folder.batch(range(3)).data)
    assert brought.notes == ("its transform is left aside: views are made by the method",)
    assert brought.names[0].endswith("cat/1.png")


def test_labels_of_a_data_set():
    source = open_source(Pairs([(picture, i % 2) for i, picture in enumerate(PICTURES)]), progress=False)
    assert (source.spec.classes, source.labels.tolist()) == (("lo", "hi"), [0, 1, 0, 1, 0, 1])
    unnamed = open_source([(picture, i) for i, picture in enumerate(PICTURES)], progress=False)
    assert unnamed.spec.classes == tuple("012345")


def test_a_dark_picture_among_bright_ones_stays_dark():
    dark = np.zeros((12, 12))
    dark[4] = 1  # of 255
    bright = PICTURES[0, ..., 0].astype(float)
    source = open_source([dark, bright], progress=False)
    assert source[0].data.max() == 1
    assert source.notes == ()
    shares = open_source([dark, bright / 255], progress=False)
    assert shares[0].data.max() == 255
    assert "values from 0 to 1" in shares.notes[0]


def test_labels_beside():
    source = open_source(PICTURES, labels=["b", "a", None, float("nan"), "b", -1], progress=False)
    assert (source.spec.classes, source.labels.tolist()) == (("a", "b"), [1, 0, -1, -1, 1, -1])
    again = open_source(source, labels=torch.tensor([3, 3, 10, -1, 3, 10]))
    assert (again.spec.classes, again.labels.tolist()) == (("3", "10"), [0, 0, 1, -1, 0, 1])
    assert source.spec.classes == ("a", "b")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], r"labels have shape \(2,\), and there are 6 samples"),
        (np.zeros((6, 2)), r"labels have shape \(6, 2\)"),
        ([0.5] * 6, "label 0.5 is a fraction"),
    ],
)
def test_labels_that_fit_nothing(labels, message):
    with pytest.raises(UsageError, match=message):
        open_source(PICTURES, labels=labels, progress=False)


def test_what_is_missing_is_as_in_label_files():
    numbers, classes = class_numbers(["none", "None", "?", "NA", "mild"], 5)
    assert (classes, numbers.tolist()) == (("mild", "none"), [1, -1, -1, -1, 0])


def test_a_class_number_without_a_name():
    with pytest.raises(UsageError, match="label 2 of sample 1 is none of the 2 classes"):
        class_numbers([0, 2], 2, ("a", "b"))


def test_labels_in_memory_are_of_data_in_memory(files):
    with pytest.raises(UsageError, match="for files, name a CSV"):
        open_source(files, labels=[0] * 6)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"array \(4, 4\) is none of images"),
        (np.zeros((2, 8, 8)) - 1, "dtype float64 with values from -1 to -1"),
        (np.zeros((0, 8, 8), np.uint8), "none of images"),
        ([], "the list is empty"),
        ([object()], "item 000000 is no picture"),
        (["a.png", "b.png"], "a link to a file that does not exist, or just deleted"),
        (7, "data of type int are nothing that is read"),
        ({"x": 1}, "data of type dict are nothing that is read"),
    ],
)
def test_what_cannot_be_taken_is_one_line(where, message):
    with pytest.raises((UsageError, BadFile), match=message) as caught:
        open_source(where, progress=False)
    assert "\n" not in str(caught.value)


def test_a_frame_with_a_column_of_paths(files):
    pandas = pytest.importorskip("pandas")
    rows = {"id": range(6), "photo": [str(files / f"{i}.png") for i in range(6)], "sex": list("mfmfmf")}
    frame = pandas.DataFrame({**rows, "label": ["lo", "hi", None, "lo", "hi", "lo"]})
    source = open_source(frame, progress=False)
    assert torch.equal(source.batch(range(6)).data, pixels(files))
    assert (source.spec.classes, source.labels.tolist()) == (("hi", "lo"), [1, 0, -1, 1, 0, 1])
    assert source.notes == ("labels are those of the frame's column 'label'",)
    other = open_source(frame, labels="sex", progress=False)
    assert (other.spec.classes, other.notes) == (("f", "m"), ())
    assert open_source(frame, labels="none", progress=False).labels.max() == -1
    with pytest.raises(UsageError, match="the frame has no column 'grade'; its columns are id, photo, sex"):
        open_source(frame, labels="grade")
    with pytest.raises(UsageError, match="no column holds paths of files that exist"):
        open_source(frame[["id", "sex"]])
    with pytest.raises(UsageError, match="columns photo, again hold paths"):
        open_source(frame.assign(again=frame["photo"]))


def test_a_pipe_among_the_paths_is_not_waited_for(files):
    os.mkfifo(files / "pipe.png")
    with pytest.raises(BadFile, match="a pipe, and only files are read"):
        open_source([files / "0.png", files / "pipe.png"], progress=False)


def test_random_transforms_are_found():
    class Changing(Pairs):
        def __getitem__(self, i):
            self.calls = getattr(self, "calls", 0) + 1
            return (self.items[i] + self.calls).astype(np.uint8)

    with pytest.raises(BadFile, match="another picture each time"):
        open_source(Changing(PICTURES), progress=False)


def test_every_verb_takes_an_array(tmp_path, capsys):
    draw = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = draw.integers(0, 100, (60, 12, 12), np.uint8) + (labels * 100).astype(np.uint8)[:, None, None]
    run = tacit.fit(
        "supervised", images, labels=labels, out=tmp_path / "run", epochs=1, batch_size=16, device="cpu",
        quiet=True,
    )  # fmt: skip
    assert run.settings()["data"] == "<array (60, 12, 12)>"
    report = tacit.probe(run, images, labels=labels, device="cpu")
    assert report["raw pixels"].linear.accuracy == 1.0
    assert report.protocol["data"] == "array (60, 12, 12)"
    assert "data: 60 images; 2 classes: 0 30, 1 30" in capsys.readouterr().err
    tacit.embed(run, images, tmp_path / "e.npz", device="cpu", quiet=True)
    found = tacit.predict(run, images, tmp_path / "p.csv", labels=labels, device="cpu", quiet=True)
    assert found.grades.n == 60
    assert tacit.embed(run, images, device="cpu", quiet=True).shape[0] == 60
    table = tacit.predict(run, images, labels=labels, device="cpu", quiet=True)
    assert table.path is None
    assert table.frame()["predicted"].isin(["0", "1"]).all()
    with pytest.raises(UsageError, match="the rows are in"):
        found.frame()
    with pytest.raises(UsageError, match="a curve runs in several processes"):
        tacit.curve(images)
