"""Floors: what labels and masks give without learning, held against slow and plain references."""

import copy
import warnings
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional as F

from balls import save
from tacit.data.open import open_source
from tacit.data.source import UNLABELLED
from tacit.data.volume.form import VolumeForm
from tacit.encoders.card import EncoderCard, attach_card, with_card
from tacit.encoders.zoo import build_encoder
from tacit.rng import Rng, seeded
from tacit.tasks.classes import floors as floors_module
from tacit.tasks.classes.floors import FREQUENT, PIXELS, START, Floor, balanced_accuracy, class_floors
from tacit.tasks.masks import floors as mask_floors_module
from tacit.tasks.masks.floors import BACKGROUND, MEAN, grid_of, mask_floors, most_voted, vote


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with threadpool_limits(1):  # many threads for a small matrix wait for each other
        yield


@pytest.fixture(scope="module")
def digits():
    """The digits, ten labels of each class to learn from, and the test split."""
    source = open_source("digits")
    train, test = source.splits["train"], source.splits["test"]
    return source, some(source, train, 10), test


def some(source, positions, count, classes=range(10)):
    """The first so many positions of each class, ascending."""
    labels = source.labels[positions]
    return np.sort(np.concatenate([positions[labels == c][:count] for c in classes]))


def small():
    with seeded(Rng.of(0)("floors")):
        return build_encoder("tacit/convnet?width=8", channels=1, size=8)


def itself():
    """An encoder whose features are the pixels."""
    return attach_card(nn.Flatten(), channels=1, size=8, num_features=64)


@pytest.fixture(scope="module")
def found(digits):
    return {floor.name: floor for floor in class_floors(*digits, small(), "cpu")}


def test_the_most_frequent_class_is_at_one_over_classes(digits, found):
    source, learned, test = digits
    assert list(found) == [FREQUENT, PIXELS, START]
    assert found[FREQUENT].score(source.labels[test]) == pytest.approx(1 / 10)
    more = np.concatenate([learned, some(source, source.splits["train"], 12, [7])])
    (floor, *_) = class_floors(source, np.unique(more), test[:5], small(), "cpu")
    assert floor.predicted.tolist() == [7] * 5


def test_pixels_are_about_what_a_plain_regression_on_them_is(digits, found):
    source, learned, test = digits
    pixels, labels = load_digits(return_X_y=True)
    plain = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    plain.fit(pixels[learned], labels[learned])
    expected = balanced_accuracy(labels[test], plain.predict(pixels[test]))
    score = found[PIXELS].score(source.labels[test])
    assert score > 0.6
    assert score == pytest.approx(expected, abs=0.05)


def test_the_start_encoder_is_asked_for_its_features(digits, found):
    source, learned, test = digits
    assert 0.3 < found[START].score(source.labels[test]) < 1
    assert not np.array_equal(found[START].predicted, found[PIXELS].predicted)
    floors = class_floors(source, learned, test, itself(), "cpu")
    assert floors[1].name == PIXELS
    assert np.array_equal(floors[1].predicted, found[PIXELS].predicted)
    assert np.mean(floors[2].predicted == floors[1].predicted) > 0.99  # the card's normalisation is undone


@pytest.mark.parametrize("lies", [UNLABELLED, 3, 99, "shifted"])
def test_labels_of_the_test_samples_are_not_looked_at(lies, digits, found):
    source, learned, test = digits
    other = copy.copy(source)
    other.labels = source.labels.copy()
    other.labels[test] = (source.labels[test] + 1) % 10 if lies == "shifted" else lies
    for floor in class_floors(other, learned, test, small(), "cpu"):
        assert np.array_equal(floor.predicted, found[floor.name].predicted)


def test_labels_that_are_learned_from_count(digits, found):
    source, learned, test = digits
    other = copy.copy(source)
    other.labels = (source.labels + 1) % 10
    names = [PIXELS, START]
    for floor in class_floors(other, learned, test, small(), "cpu")[1:]:
        assert floor.name == names.pop(0)
        assert np.mean(floor.predicted == (found[floor.name].predicted + 1) % 10) > 0.9


def test_a_second_call_finds_the_same(digits, found):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  # a global state that must not matter
    for floor in class_floors(*digits, small(), "cpu"):
        assert np.array_equal(floor.predicted, found[floor.name].predicted)


@pytest.mark.parametrize("training", [False, True])
def test_the_encoder_stays_as_it_is(training, digits):
    source, learned, test = digits
    encoder = small().train(training)
    before, modes = copy.deepcopy(encoder.state_dict()), [m.training for m in encoder.modules()]
    assert len(class_floors(source, learned, test[:20], encoder, "cpu")) == 3
    assert [m.training for m in encoder.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in encoder.parameters())


def test_one_class_leaves_the_most_frequent_one(digits):
    source, _, test = digits
    floors = class_floors(source, some(source, source.splits["train"], 5, [4]), test, small(), "cpu")
    assert [floor.name for floor in floors] == [FREQUENT]
    assert floors[0].predicted.tolist() == [4] * len(test)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_labels_than_folds_will_do(count, digits):
    source, _, test = digits
    floors = class_floors(source, some(source, source.splits["train"], count), test, small(), "cpu")
    assert floors[1].score(source.labels[test]) > 0.3


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of PCA, for the variance explained
def test_an_encoder_that_says_nothing_is_at_chance(digits):
    source, learned, test = digits

    class Nothing(nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 4)

    mute = attach_card(Nothing(), channels=1, size=8, num_features=4)
    (*_, floor) = class_floors(source, learned, test, mute, "cpu")
    assert len(np.unique(floor.predicted)) == 1
    assert floor.score(source.labels[test]) == pytest.approx(0.1)


def test_of_many_labels_some_of_all_classes_are_taken(digits, monkeypatch):
    source, _, test = digits
    train = source.splits["train"]
    train = train[np.argsort(source.labels[train], kind="stable")]  # as class folders are listed
    monkeypatch.setattr(floors_module, "MOST", 100)
    asked = []
    own = floors_module.extract
    monkeypatch.setattr(floors_module, "extract", lambda *args: asked.append(args[2]) or own(*args))
    floors = class_floors(source, train, test, small(), "cpu")
    assert [len(part) for part in asked] == [100, len(test)] * 2
    assert np.bincount(source.labels[asked[0]], minlength=10).min() >= 9
    assert floors[1].score(source.labels[test]) > 0.6


def test_balanced_accuracy_by_hand():
    labels, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    assert balanced_accuracy(labels, predicted) == pytest.approx((2 / 3 + 1) / 2)
    assert Floor("any", predicted).score(labels) == pytest.approx((2 / 3 + 1) / 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # a class that no label has is an error of the sample, and none of a class of its own
        assert balanced_accuracy(np.array([0, 0, 2, 2]), np.array([0, 1, 2, 5])) == 0.5


def mean_mask(masks, shape, classes):
    return most_voted(votes_of(masks, grid_of([mask.shape for mask in masks]), classes), shape)


def votes_of(masks, grid, classes):
    votes = torch.zeros(classes, *grid)
    for mask in masks:
        vote(votes, mask)
    return votes


def test_the_mean_of_one_mask_is_the_mask():
    torch.manual_seed(0)
    mask = torch.randint(0, 3, (5, 6, 4))
    for count in (1, 3):
        found = mean_mask([mask] * count, (5, 6, 4), 3)
        assert found.dtype == torch.int64
        assert torch.equal(found, mask)


def test_the_mean_mask_is_a_vote_and_the_first_class_wins_a_tie():
    a, b, c = (torch.tensor(v).reshape(1, 1, 4) for v in ([0, 1, 2, 1], [1, 1, 2, 2], [1, 2, 0, 0]))
    assert mean_mask([a, b, c], (1, 1, 4), 3).flatten().tolist() == [1, 1, 2, 0]  # the last is a tie of three
    assert mean_mask([a, b], (1, 1, 4), 3).flatten().tolist() == [0, 1, 2, 1]
    assert mean_mask([b, a], (1, 1, 4), 3).flatten().tolist() == [0, 1, 2, 1]


def test_masks_are_stretched_to_the_shape():
    half = torch.zeros(4, 2, 2, dtype=torch.int64)
    half[2:] = 1
    found = mean_mask([half], (8, 3, 5), 2)
    assert found.shape == (8, 3, 5)
    assert torch.equal(found[:4], torch.zeros(4, 3, 5, dtype=torch.int64))
    assert torch.equal(found[4:], torch.ones(4, 3, 5, dtype=torch.int64))
    third = torch.tensor([1, 0, 0]).reshape(3, 1, 1)  # voxels are boxes, not points at the ends of the volume
    assert mean_mask([third], (9, 1, 1), 2).flatten().tolist() == [1] * 3 + [0] * 6
    # of another shape each, they vote on the same places
    other = torch.zeros(2, 3, 4, dtype=torch.int64)
    other[1:] = 1
    assert torch.equal(mean_mask([half, other, other], (8, 3, 5), 2), found)


def stretched_alone(masks, shape, classes):
    """Each mask stretched to the shape in all its places, and counted there."""
    total = torch.zeros(classes, *shape)
    for mask in masks:
        one_hot = F.one_hot(mask, classes).movedim(-1, 0).float()[None]
        mode = ("linear", "bilinear", "trilinear")[len(shape) - 1]
        total += F.interpolate(one_hot, size=shape, mode=mode, align_corners=False)[0]
    return total.argmax(0)


@pytest.mark.parametrize("space", [(50,), (20, 30), (6, 8, 9)])
def test_small_masks_of_one_shape_lose_nothing(space):
    torch.manual_seed(1)
    masks = [torch.randint(0, 3, space) for _ in range(5)]
    for shape in (space, tuple(2 * n + 1 for n in space), tuple(n - 3 for n in space)):
        same = mean_mask(masks, shape, 3) == stretched_alone(masks, shape, 3)
        # rounding decides where classes have equally many votes: the sums are made in another order
        assert same.float().mean() > (0.98 if shape != space else 0.9999)


def test_large_masks_are_averaged_on_a_grid():
    mask = torch.zeros(300, 40, dtype=torch.int64)
    mask[150:, :10] = 2
    assert grid_of([mask.shape, (90, 500)]) == (128, 128)
    assert grid_of([(20, 30), (25, 10)]) == (25, 30)
    votes = votes_of([mask, mask], (128, 40), 4)
    assert votes.shape == (4, 128, 40)
    assert votes.sum(0).numpy() == pytest.approx(2)
    assert votes[2, :64].max() == 0
    assert votes[2, 64:, :10].min() == 2
    assert votes[1].max() == votes[3].max() == 0
    assert torch.equal(mean_mask([mask], mask.shape, 4), mask)  # its edge lies between two places
    lines = torch.zeros(256, 256, dtype=torch.int64)
    lines[::4] = 1  # every other row of the grid is half of each
    assert votes_of([lines], (128, 128), 2)[1, ::2].unique().tolist() == [0.5]
    assert votes_of([lines], (128, 128), 2)[1, 1::2].unique().tolist() == [0]


def test_one_mask_is_held_at_a_time(monkeypatch):
    made, alive = [], []

    class Picture:
        shape = (400, 500)

        def mask(self):
            mask = np.zeros(self.shape, np.int64)
            mask[100:300, 100:300] = 9
            made.append(weakref.ref(mask))
            alive.append(sum(each() is not None for each in made))
            return mask

    monkeypatch.setattr(mask_floors_module, "canvas_of", lambda *_: Picture())
    source = SimpleNamespace(spec=SimpleNamespace(classes=tuple("0123456789")))
    found = mask_floors(source, np.arange(30), np.array([30]), VIEWER)
    assert found[MEAN] > 0.98
    assert alive == [1] * 31


def bar(begin, end, value=1):
    """(4, 4, 6): a bar along z; two numbers say which voxels of each line."""
    mask = np.zeros((4, 4, 6), np.uint8)
    mask[..., begin:end] = value
    return mask


VIEWER = with_card(nn.Identity(), EncoderCard("", VolumeForm.make(1, patch=(16, 16, 16))))


def volumes(folder, *masks):
    pytest.importorskip("nibabel")
    draw = np.random.default_rng(0)
    for i, mask in enumerate(masks):
        save(folder / "images" / f"{i}.nii.gz", draw.normal(size=mask.shape).astype(np.float32))
        save(folder / "labels" / f"{i}.nii.gz", mask)
    return open_source(folder, patch=(16, 16, 16), progress=False)


def test_identical_masks_have_a_dice_of_one(tmp_path):
    source = volumes(tmp_path, *[bar(1, 4)] * 4)
    assert mask_floors(source, np.arange(3), np.array([3]), VIEWER) == {BACKGROUND: 0.0, MEAN: 1.0}


def test_dice_of_the_mean_mask_by_hand(tmp_path):
    two = bar(0, 2) + bar(4, 6, 2)
    source = volumes(tmp_path, bar(0, 2), bar(0, 2), bar(1, 6), bar(1, 3), two)
    found = mask_floors(source, np.arange(3), np.array([3]), VIEWER)  # the mean is the first
    assert found == {BACKGROUND: 0.0, MEAN: pytest.approx(2 * 1 / (2 + 2))}
    # class 1 is found, class 2 is not; the first volume has no class 2, which does not count
    found = mask_floors(source, np.arange(2), np.array([4, 0]), VIEWER)
    assert found == {BACKGROUND: 0.0, MEAN: pytest.approx((1 + 0 + 1) / 3)}


def test_masks_of_the_test_volumes_are_only_compared_with(tmp_path, monkeypatch):
    source = volumes(tmp_path, bar(0, 2), bar(0, 2), bar(3, 6))
    assert mask_floors(source, np.arange(2), np.array([2]), VIEWER) == {BACKGROUND: 0.0, MEAN: 0.0}
    assert mask_floors(source, np.array([2]), np.arange(2), VIEWER) == {BACKGROUND: 0.0, MEAN: 0.0}
    assert mask_floors(source, np.array([2, 0, 1]), np.arange(2), VIEWER)[MEAN] == 1
    monkeypatch.setattr(mask_floors_module, "MOST", 1)
    assert mask_floors(source, np.array([2, 0, 1]), np.arange(2), VIEWER)[MEAN] == 0


def test_a_mean_mask_takes_the_shape_of_the_volume(tmp_path):
    wide = np.repeat(np.repeat(bar(3, 6), 2, 2), 2, 0)  # (8, 4, 12)
    source = volumes(tmp_path, bar(3, 6), wide)
    assert mask_floors(source, np.array([0]), np.array([1]), VIEWER) == {BACKGROUND: 0.0, MEAN: 1.0}


def test_where_there_is_nothing_to_find_no_floor_is_given(tmp_path):
    source = volumes(tmp_path, bar(0, 0), bar(0, 0), bar(1, 2))
    assert mask_floors(source, np.array([0]), np.array([1]), VIEWER) == {}
    assert mask_floors(source, np.array([2]), np.array([1]), VIEWER) == {MEAN: 0.0}


def test_an_encoder_that_gives_no_numbers_gives_no_floor(digits):
    source, learned, test = digits

    class Broken(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 4), float("nan"))

    broken = attach_card(Broken(), channels=1, size=8, num_features=4)
    floors = class_floors(source, learned, test, broken, "cpu")
    assert [floor.name for floor in floors] == [FREQUENT, PIXELS]
