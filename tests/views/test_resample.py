"""Boxes against torchvision's distribution, pixels against torchvision, Pillow and a slow float64 sum."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from tacit.errors import UsageError
from tacit.rng import Rng
from tacit.views.resample import centre_boxes, crop_boxes, resample

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def sizes(height, width, count):
    return torch.tensor([[height, width]]).float().repeat(count, 1)


def torchvision_boxes(height, width, count, scale=SCALE, ratio=RATIO):
    draw = v2.RandomResizedCrop(8, scale=scale, ratio=ratio)
    image = torch.empty(1, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        params = [draw.make_params([image]) for _ in range(count)]
    return np.array([[p["top"], p["left"], p["height"], p["width"]] for p in params], float)


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [
        (48, 48, SCALE),
        (40, 120, SCALE),
        (120, 40, (0.5, 0.9)),
        (40, 120, (0.3, 0.5)),
        (1, 60, SCALE),
        (3, 2, SCALE),
    ],
)
def test_boxes_are_distributed_as_torchvisions(height, width, scale):
    count = 3000
    theirs = torchvision_boxes(height, width, count, scale)
    ours = (
        crop_boxes(sizes(height, width, count), torch.arange(count), Rng.of(1), scale, RATIO).double().numpy()
    )
    for a, b in zip(views_of(ours), views_of(theirs), strict=True):
        assert ks_2samp(a, b).pvalue > 1e-3


def views_of(boxes):
    top, left, height, width = boxes.T
    return top, left, height, width, height * width, width / height, top + left, top + height


@pytest.mark.parametrize("size", [(1, 60), (60, 1), (1, 1), (2, 200), (500, 3)])
def test_thin_images_get_torchvisions_central_box(size):
    ours = crop_boxes(sizes(*size, 50), torch.arange(50), Rng.of(2), (0.9, 1.0), RATIO)
    assert {tuple(box) for box in ours.tolist()} == {tuple(torchvision_boxes(*size, 1, (0.9, 1.0))[0])}


def test_whole_image_is_the_only_box_of_full_area():
    boxes = crop_boxes(sizes(31, 31, 9), torch.arange(9), Rng.of(0), (1.0, 1.0), (1.0, 1.0))
    assert boxes.tolist() == [[0, 0, 31, 31]] * 9


def test_every_place_is_reached_to_the_last_pixel():
    boxes = crop_boxes(sizes(6, 6, 2000), torch.arange(2000), Rng.of(0), (0.25, 0.25), (1.0, 1.0))
    assert {(top, left) for top, left, *_ in boxes.tolist()} == {(y, x) for y in range(4) for x in range(4)}


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(sorted),
    st.integers(0, 2**31),
)
def test_boxes_are_whole_pixels_inside_the_image(height, width, scale, ratio, seed):
    boxes = crop_boxes(sizes(height, width, 64), torch.arange(64), Rng.of(seed), tuple(scale), tuple(ratio))
    assert torch.equal(boxes, boxes.round())
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= torch.tensor([height, width])).all()


def test_a_box_depends_on_its_own_sample_only():
    index = torch.tensor([5, 900, 3, 2**40])
    size = torch.tensor([[30.0, 40], [1, 9], [80, 80], [7, 300]])
    together = crop_boxes(size, index, Rng.of(0), SCALE, RATIO)
    for i in range(4):
        assert torch.equal(
            crop_boxes(size[i : i + 1], index[i : i + 1], Rng.of(0), SCALE, RATIO)[0], together[i]
        )
    assert not torch.equal(crop_boxes(size, index, Rng.of(1), SCALE, RATIO), together)


def test_centre_boxes_are_the_true_images_central_square():
    boxes = centre_boxes(torch.tensor([[10.0, 10], [10, 31], [8, 2]]))
    assert boxes.tolist() == [[0, 0, 10, 10], [0, 10.5, 10, 10], [3, 0, 2, 2]]


@pytest.fixture(scope="module")
def store(photos):
    """Five crops of 256 x 256 pixels out of one photograph, uint8."""
    photo = torch.from_numpy(photos["china"].copy()).permute(2, 0, 1)
    return torch.stack([photo[:, 30 * i : 30 * i + 256, 70 * i : 70 * i + 256] for i in range(5)])


# one tile, many tiles, indivisible, both directions, the extremes
SIDES = [(32, 32), (256, 224), (64, 96), (100, 13), (33, 37), (256, 32), (60, 97), (20, 1), (1, 5), (224, 64)]


@pytest.mark.parametrize(("side", "size"), SIDES)
def test_resampling_equals_torchvisions_where_the_store_has_the_true_size(store, side, size):
    images = store[:, :, :side, :side]
    boxes = crop_boxes(sizes(side, side, 5), torch.arange(5), Rng.of(4), SCALE, RATIO)
    boxes[0] = torch.tensor([0.0, 0, side, side])
    flip = torch.tensor([False, True, False, True, True])
    whole = resample(images, boxes, sizes(side, side, 5), flip, size)
    assert whole.dtype == torch.float32
    for image, box, mirrored, result in zip(images, boxes.int().tolist(), flip, whole, strict=True):
        exact = F.resized_crop(image.float() / 255, *box, [size, size], antialias=True)
        rounded = F.resized_crop(image, *box, [size, size], antialias=True).float() / 255
        result = result.flip(-1) if mirrored else result
        torch.testing.assert_close(result, exact, atol=5e-5, rtol=0)
        torch.testing.assert_close(result, rounded, atol=1 / 255 + 5e-5, rtol=0)


def test_resampling_equals_pillows(store):
    boxes = torch.tensor(
        [[3.0, 40, 200, 100], [0, 0, 256, 256], [10, 10, 30, 200], [9, 8, 7, 6], [0, 200, 50, 56]]
    )
    ours = resample(store, boxes, sizes(256, 256, 5), None, 64)
    for image, (top, left, height, width), result in zip(store, boxes.int().tolist(), ours, strict=True):
        crop = Image.fromarray(image.permute(1, 2, 0).numpy()).crop((left, top, left + width, top + height))
        theirs = np.array(crop.resize((64, 64), Image.Resampling.BILINEAR)).transpose(2, 0, 1) / 255
        assert np.abs(result.numpy() - theirs).max() <= 1 / 255 + 5e-5


def slow_axis(inputs, start, length, size):
    """(size, inputs) float64 weights, one number at a time."""
    weights = np.zeros((size, inputs))
    step = length / size
    for i in range(size):
        centre = start + (i + 0.5) * step
        for x in range(inputs):
            part = max(0.0, min(x + 1, start + length) - max(x, start))
            weights[i, x] = part * max(0.0, 1 - abs(x + 0.5 - centre) / max(1.0, step))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(("side", "size"), [(24, 16), (20, 48), (40, 35)])
def test_boxes_of_true_pixels_are_mapped_to_the_store(side, size):
    images = torch.rand(3, 2, side, side, generator=Rng.of(0).torch(), dtype=torch.float64)
    true_size = torch.tensor([[100.0, 37], [9, 300], [side, side]])
    boxes = torch.tensor([[13.0, 5, 50, 20], [1, 33, 8, 10], [2.5, 1.25, 3.5, 4]])
    ours = resample(images, boxes, true_size, torch.tensor([True, False, False]), size)
    for image, box, true, mirrored, result in zip(
        images.numpy(), boxes.numpy(), true_size.numpy(), (True, False, False), ours.numpy(), strict=True
    ):
        scale = side / true.astype(float)
        rows = slow_axis(side, box[0] * scale[0], box[2] * scale[0], size)
        columns = slow_axis(side, box[1] * scale[1], box[3] * scale[1], size)
        exact = rows @ image @ columns.T
        np.testing.assert_allclose(result, exact[:, :, ::-1] if mirrored else exact, atol=1e-5)


@pytest.mark.parametrize("true", [(1, 1), (1, 10_000), (30_000, 1), (3, 7000)])
def test_a_constant_image_stays_constant_however_thin(true):
    images = torch.full((40, 1, 32, 32), 200, dtype=torch.uint8)
    size = sizes(*true, 40)
    boxes = crop_boxes(size, torch.arange(40), Rng.of(0), SCALE, RATIO)
    result = resample(images, boxes, size, None, 48)
    torch.testing.assert_close(result, torch.full_like(result, 200 / 255), atol=1e-6, rtol=0)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_any_number_of_channels_and_any_strides(store, channels):
    images = store[:, :1].repeat(1, channels, 1, 1) // torch.arange(1, channels + 1)[:, None, None]
    images = images.to(torch.uint8)
    boxes = crop_boxes(sizes(64, 64, 5), torch.arange(5), Rng.of(4), SCALE, RATIO)
    strided = images[:, :, :128:2, 1:129:2]
    last = strided.contiguous(memory_format=torch.channels_last)
    exact = resample(strided.contiguous(), boxes, sizes(64, 64, 5), None, 48)
    assert exact.shape == (5, channels, 48, 48)
    assert torch.equal(resample(strided, boxes, sizes(64, 64, 5), None, 48), exact)
    assert torch.equal(resample(last, boxes, sizes(64, 64, 5), None, 48), exact)
    alone = resample(strided[:, -1:], boxes, sizes(64, 64, 5), None, 48)
    torch.testing.assert_close(exact[:, -1:], alone, atol=1e-6, rtol=0)


def test_memory_mapped_images_and_floating_ones_give_the_same(store, tmp_path):
    np.save(tmp_path / "pixels.npy", store.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "pixels.npy", mmap_mode="r+"))
    boxes = centre_boxes(sizes(256, 256, 5))
    exact = resample(store, boxes, sizes(256, 256, 5), None, 80)
    assert torch.equal(resample(mapped, boxes, sizes(256, 256, 5), None, 80), exact)
    floating = resample(store.double() / 255, boxes, sizes(256, 256, 5), None, 80)
    torch.testing.assert_close(floating, exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("images", "true_size", "size", "words"),
    [
        (torch.zeros(2, 3, 8, 9, dtype=torch.uint8), sizes(8, 8, 2), 4, r"\(2, 3, 8, 9\)"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), sizes(8, 8, 3), 4, r"\(B, C, S, S\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), sizes(8, 8, 2), 4, "int64"),
        (torch.zeros(2, 3, 8, 8), sizes(8, 8, 3), 4, "true_size"),
        (torch.zeros(2, 3, 8, 8), sizes(8, 8, 2), 0, "size must be at least 1"),
    ],
)
def test_what_does_not_fit_is_named(images, true_size, size, words):
    with pytest.raises(UsageError, match=words):
        resample(images, torch.zeros(len(images), 4), true_size, None, size)
