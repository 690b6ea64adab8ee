"""A source that somebody writes: what it must give, and the line that says what is missing."""

import numpy as np
import pytest
import torch

import tacit
from tacit.data.source import Sample, Source, Spec
from tacit.errors import UsageError


class Squares(Source):
    """Images of a bright square on the left or on the right."""

    def __init__(self, count=40, **changed):
        labels = np.arange(count) % 2
        super().__init__(
            changed.get("spec", Spec("image", (1, 12, 12), ("left", "right"))),
            changed.get("names", [f"square {i}" for i in range(count)]),
            changed.get("labels", labels),
            changed.get("splits", {}),
            changed.get("fingerprint", f"squares {count}"),
        )
        self.count = count
        self.dtype, self.true_size = changed.get("dtype", torch.uint8), changed.get("true_size", True)

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        data = torch.zeros(1, 12, 12)
        data[0, 3:9, 1 + 6 * (i % 2) : 5 + 6 * (i % 2)] = 200 + i
        extra = {"true_size": torch.tensor([12.0, 12.0])} if self.true_size else {}
        return Sample(data.to(self.dtype), i, int(self.labels[i]), self.names[i], extra=extra)


def test_every_verb_takes_it(tmp_path):
    source = Squares()
    run = tacit.fit(
        "supervised", source, out=tmp_path / "run", epochs=1, batch_size=8, device="cpu", quiet=True
    )
    assert tacit.probe(run, source, device="cpu", quiet=True)["raw pixels"].linear.accuracy == 1.0
    tacit.embed(run, source, tmp_path / "e.csv", device="cpu", quiet=True)
    assert tacit.predict(run, source, tmp_path / "p.csv", device="cpu", quiet=True).grades.n == 40


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"names": ["a"] * 39}, "has 39 names for 40 samples"),
        (
            {"labels": np.zeros(39, np.int64)},
            r"has labels of \(39,\): a numpy array \(40,\) of whole numbers",
        ),
        ({"labels": np.arange(40) % 3}, "has a label 2 and 2 classes"),
        ({"labels": np.full(40, -2)}, "has a label -2"),
        ({"splits": {"train": np.array([40])}}, r"has positions outside of 0 .. 39 in its split train"),
        ({"fingerprint": ""}, "has no fingerprint"),
        (
            {"spec": Spec("image", (1, 8, 8), ("l", "r"))},
            r"gives data of shape \(1, 12, 12\), and its spec says",
        ),
        ({"dtype": torch.float32}, "gives samples of torch.float32: data of images are torch.uint8"),
        ({"true_size": False}, r"gives samples without extra\['true_size'\]"),
    ],
)
def test_what_is_missing_is_one_line(changed, message):
    with pytest.raises(UsageError, match=f"the source Squares {message}"):
        tacit.open_source(Squares(**changed))


def test_a_source_that_never_called_ours():
    class Bare(Source):
        def __init__(self):
            self.spec = Spec("image", (1, 8, 8))

    with pytest.raises(UsageError, match=r"the source Bare has no names: call super\(\).__init__"):
        tacit.open_source(Bare())


def test_an_empty_one():
    with pytest.raises(UsageError, match="the source Squares is empty"):
        tacit.open_source(Squares(0))
