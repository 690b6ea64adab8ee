"""Random views of images: time per image against torchvision v2 and kornia, and growth with the batch.

    python benchmarks/views.py [--quick]

SimCLR's augmentation, the same operations, probabilities and ranges for all: crop and resize, mirror,
brightness, contrast, saturation and hue, grey, in some rows blur; uint8 tensors in, normalised float32
out. torchvision v2 works sample by sample, as in a data loader (its time does not depend on the batch);
tacit and kornia take the whole batch, kornia in its faster way to crop. One thread and two for everyone.
Two threads help small images little in torchvision and kornia; a loader would use two processes, so that
the row with one thread is the comparison per core.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from race import machine, race, save
from tacit.rng import Rng
from tacit.views.blur import usual_kernel_size
from tacit.views.image import Augment, augment_images

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WANTED = {32: {"torchvision": 40, "kornia": 8}, 224: {"torchvision": 4, "kornia": 5}}
"""Smallest ratio of a peer's time to ours, by side of the view."""
CASES = [(32, 32, 512, 0.0), (32, 32, 512, 0.5), (256, 224, 64, 0.0), (256, 224, 64, 0.5)]
"""Side of the image, side of the view, batch, probability of blurring."""
OTHER_BATCHES = [(32, 32, 64, 0.0), (32, 32, 128, 0.0), (32, 32, 2048, 0.0), (256, 224, 16, 0.0)]
GROWTH = (16, 64, 256, 1024, 4096, 16384)


def tacit(images: Tensor, size: int, blur: float) -> Callable[[], object]:
    augment, index = Augment(blur=blur), torch.arange(len(images))
    true_size = torch.full((len(images), 2), float(images.shape[-1]))
    rng = Rng.of(0)
    calls = iter(range(10**9))
    return lambda: augment_images(
        images, true_size, index, rng("view", next(calls)), size=size, augment=augment, mean=MEAN, std=STD
    )


def torchvision(images: Tensor, size: int, blur: float) -> Callable[[], object]:
    kernel = usual_kernel_size(size)
    blurring = [v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], blur)] if blur else []
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(size, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
            v2.RandomGrayscale(0.2),
            *blurring,
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    return lambda: torch.stack([transform(image) for image in images])


def kornia(images: Tensor, size: int, blur: float, cropping: str) -> Callable[[], object]:
    from kornia import augmentation as k

    kernel = usual_kernel_size(size)
    blurring = [k.RandomGaussianBlur((kernel, kernel), (0.1, 2.0), p=blur)] if blur else []
    transform = k.ImageSequential(
        k.RandomResizedCrop((size, size), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), cropping_mode=cropping),
        k.RandomHorizontalFlip(p=0.5),
        k.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        k.RandomGrayscale(p=0.2),
        *blurring,
        k.Normalize(mean=torch.tensor(MEAN), std=torch.tensor(STD)),
    )
    return torch.no_grad()(lambda: transform(images.float() / 255))


def pictures(count: int, side: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=Rng.of(0).torch())


def compare(side: int, size: int, batch: int, blur: float, threads: int, rounds: int) -> dict[str, Any]:
    """One row: microseconds per image of each, and the peers' over ours."""
    torch.set_num_threads(threads)
    images = pictures(batch, side)
    seconds = race(
        {
            "tacit": tacit(images, size, blur),
            # what it takes per image does not depend on the batch
            "torchvision": torchvision(images[:256], size, blur),
            "kornia": kornia(images, size, blur, "slice"),
            "kornia resample": kornia(images, size, blur, "resample"),
        },
        rounds=rounds,
    )
    each = {name: 1e6 * value / batch for name, value in seconds.items()}
    each["torchvision"] *= batch / min(batch, 256)
    each["kornia"] = min(each["kornia"], each.pop("kornia resample"))
    row = {"side": side, "size": size, "batch": batch, "blur": blur, "threads": threads}
    row |= {f"{name}_us": value for name, value in each.items()}
    for peer, wanted in WANTED[size].items():
        row[f"{peer}_over_tacit"] = each[peer] / each["tacit"]
        row[f"{peer}_wanted"] = wanted
    return row


def growth(batch: int, rounds: int) -> list[dict[str, Any]]:
    torch.set_num_threads(2)
    images = pictures(batch, 32)
    contestants = {"tacit": tacit(images, 32, 0.0), "kornia": kornia(images, 32, 0.0, "resample")}
    if batch <= 1024:
        contestants["torchvision"] = torchvision(images, 32, 0.0)
    seconds = race(contestants, rounds=rounds, at_least=0.05)
    return [
        {"growth": "views", "who": who, "n": batch, "seconds": value, "threads": 2}
        for who, value in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, batches and sizes")
    quick = parser.parse_args().quick
    warnings.filterwarnings("ignore", module="kornia")
    torch.set_num_threads(2)
    description = machine()
    cases = CASES[::2] if quick else CASES
    rows = [compare(*case, threads, 3 if quick else 5) for case in cases for threads in (1, 2)]
    if not quick:
        rows += [compare(*case, threads=2, rounds=3) for case in OTHER_BATCHES]
    for batch in GROWTH[:3] if quick else GROWTH:
        rows += growth(batch, 3)
    save("views", description, rows)
    for row in rows:
        for peer in ("torchvision", "kornia"):
            if (ratio := row.get(f"{peer}_over_tacit", float("inf"))) < row.get(f"{peer}_wanted", 0):
                print(
                    f"not reached: {ratio:.1f}x {peer} instead of {row[f'{peer}_wanted']}x at "
                    f"{row['size']} px, batch {row['batch']}, blur {row['blur']}, {row['threads']} thread(s)"
                )


if __name__ == "__main__":
    main()
