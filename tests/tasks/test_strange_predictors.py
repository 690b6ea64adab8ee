"""Predictors that strangers wrote, and kinds of labels that packages bring: one line, whatever is in them."""

import json
import sys
from importlib.metadata import EntryPoint

import pytest
import torch
from safetensors.torch import save
from torch import nn

import tacit
from tacit.data.image.form import ImageForm
from tacit.encoders.card import EncoderCard, with_card
from tacit.encoders.saved import save_encoder
from tacit.encoders.zoo import build_encoder
from tacit.errors import TacitError, UsageError
from tacit.tasks import registry
from tacit.tasks.classes.task import Classes
from tacit.tasks.registry import all_tasks, load_predictor, own_tasks, task_of
from tacit.tasks.values.regressor import ValueHead

NAN, INFINITE, HUGE = float("nan"), float("inf"), 10**400
DEEP = "[" * 200_000
DEFAULTS = {  # a sound predictor of each kind: its encoder and its card
    "class": ("tacit/convnet?width=8", {"classes": ["a", "b"], "temperature": 1.5, "held_out": 4}),
    "mask": ("tacit/unet2d?width=4", {"classes": ["background", "a"], "held_out": 1}),
    "value": ("tacit/convnet?width=8", {"width": 2.0, "coverage": 0.9, "count": 20, "held_out": 20}),
}


@pytest.fixture(scope="module")
def encoders():
    return {kind: build_encoder(spec, channels=3, size=16) for kind, (spec, _) in DEFAULTS.items()}


def head_of(kind, encoder):
    if kind == "mask":
        return nn.Conv2d(encoder.pyramid_features[-1], 2, 1)
    linear = nn.Linear(encoder.card.num_features, 2 if kind == "class" else 1)
    return linear if kind == "class" else ValueHead(linear, 5.0, 2.0)


@pytest.fixture
def written(encoders, tmp_path):
    """A function that writes a predictor of a kind, with changes of its card and its weights."""

    def write(kind, card=(), state=(), *, text=None, name="predictor"):
        encoder = encoders[kind]
        save_encoder(encoder, tmp_path)
        content = {"target": kind, **DEFAULTS[kind][1], **dict(card)}
        weights = head_of(kind, encoder).state_dict() | dict(state)
        kept = {key: value for key, value in weights.items() if value is not None}
        (tmp_path / f"{name}.json").write_text(json.dumps(content) if text is None else text)
        (tmp_path / f"{name}.safetensors").write_bytes(save(kept))
        return tmp_path

    return write


def says(folder, words):
    with pytest.raises(TacitError) as caught:
        load_predictor(folder)
    line = str(caught.value)
    assert line.startswith(f"the predictor in {folder} is damaged: ")
    assert words in line
    assert "\n" not in line
    assert len(line) < 400 + len(str(folder))


@pytest.mark.parametrize("kind", DEFAULTS)
@pytest.mark.parametrize("older", [False, True])
def test_a_sound_one_is_loaded(kind, older, written):
    older = older and {"class": "classifier", "mask": "segmenter"}.get(kind)
    found = load_predictor(written(kind, name=older or "predictor"))
    assert found.card.held_out == DEFAULTS[kind][1]["held_out"]
    assert all(p.device.type == "cpu" and p.requires_grad for p in found.head.parameters())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "holds [1], and must hold names and values"),
        ("null", "holds None"),
        ('"class"', "must hold names and values"),
        (DEEP, "recursion"),
        ("{", "line 1"),
        ("1" * 5000, "limit"),
    ],
)
@pytest.mark.parametrize("name", ["predictor", "classifier"])
def test_a_card_that_is_none(text, words, name, written):
    says(written("class", text=text, name=name), words)


@pytest.mark.parametrize("target", [None, 5, ["class"], {"class": 1}])
def test_a_target_that_is_no_word(target, written):
    says(written("class", {"target": target}), "its target is ")


CLASSES = [
    (None, "its classes are None"),
    (5, "its classes are 5"),
    ("ab", "its classes are 'ab'"),
    ([], "its classes are ()"),
    (["a", "a"], "there twice"),
    (["a", ""], "none of them empty"),
    (["a", 1], "must be names"),
    (["a", ["b"]], "must be names"),
    (["a"], "and its card and its encoder want [1, "),
    (["a", "b", "c"], "and its card and its encoder want [3, "),
    (["a"] * 10**5, "its classes are ('a', "),
]
CARDS = [
    *(("class", {"classes": classes}, words) for classes, words in CLASSES),
    *(("mask", {"classes": classes}, words) for classes, words in CLASSES),
    *(
        ("class", {"temperature": value}, "its temperature is ")
        for value in (0, -1.0, NAN, INFINITE, HUGE, "x", None, True, [1.0])
    ),
    *(
        (kind, {"held_out": value}, "its held_out is ")
        for kind in DEFAULTS
        for value in (-1, 1.5, NAN, "4", None, True, HUGE)
    ),
    *(("value", {"width": value}, "its width is ") for value in (-1.0, NAN, INFINITE, HUGE, "x", [], True)),
    *(("value", {"coverage": value}, "its coverage is ") for value in (0, 1, -0.5, NAN, None, "x")),
    *(("value", {"count": value}, "its count is ") for value in (-1, 0.5, None)),
]


@pytest.mark.parametrize(("kind", "card", "words"), CARDS)
def test_a_card_of_nonsense(kind, card, words, written):
    says(written(kind, card), words)


@pytest.mark.parametrize(
    ("kind", "state", "words"),
    [
        ("class", {"weight": torch.ones(2, 3)}, "its weight is [2, 3], and"),
        ("class", {"weight": torch.ones(64)}, "its weight is [64], and"),
        ("class", {"weight": torch.ones(0, 10**12)}, "its weight is [0, 1000000000000], and"),
        ("class", {"bias": torch.ones(3)}, "its bias is [3], and"),
        ("class", {"bias": None}, "its weights are ['weight'], and"),
        ("class", {"more": torch.ones(1)}, "its weights are ['bias', 'more', 'weight'], and"),
        ("class", {"bias": torch.tensor([1.0, NAN])}, "its bias has values that are not finite"),
        ("class", {"bias": torch.tensor([1.0, 1e300]).double()}, "its bias has values that are not finite"),
        ("mask", {"weight": torch.ones(2, 5, 1, 1)}, "its weight is [2, 5, 1, 1], and"),
        ("mask", {"weight": torch.ones(2, 4, 1, 1, 1)}, "its weight is [2, 4, 1, 1, 1], and"),
        ("mask", {"weight": torch.ones(2)}, "its weight is [2], and"),
        ("mask", {"weight": None}, "its weights are ['bias'], and"),
        ("mask", {"bias": torch.tensor([INFINITE, 0])}, "its bias has values that are not finite"),
        ("value", {"linear.weight": torch.ones(64)}, "its linear.weight is [64], and"),
        ("value", {"linear.weight": torch.ones(1, 3)}, "its linear.weight is [1, 3], and"),
        ("value", {"linear.weight": torch.ones(2, 64)}, "its linear.weight is [2, 64], and"),
        ("value", {"linear.weight": None}, "its weights are ['linear.bias', 'mean', 'scale'], and"),
        ("value", {"mean": torch.tensor(NAN)}, "its mean has values that are not finite"),
        ("value", {"scale": torch.tensor(0.0)}, "its scale is 0.0, and must be a number above 0"),
        ("value", {"scale": torch.tensor(-1.0)}, "its scale is -1.0"),
        ("value", {"scale": torch.tensor(INFINITE)}, "its scale has values that are not finite"),
        ("value", {"scale": torch.ones(1)}, "its scale is [1], and"),
    ],
)
def test_weights_of_nonsense(kind, state, words, written):
    says(written(kind, state=state), words)


def test_masks_of_an_encoder_without_maps(written):
    folder = written("class", {"target": "mask"})
    says(folder, "gives no full-resolution maps")


def test_a_mask_head_of_any_dimension_for_a_kind_of_data_that_is_not_ours(written, encoders, monkeypatch):
    class Curve(ImageForm):
        modality = "curve"

    folder = written("mask", state={"weight": torch.ones(2, 4, 1)})
    encoder = with_card(build_encoder(DEFAULTS["mask"][0]), EncoderCard("", Curve.make(3, size=16)))
    monkeypatch.setattr(registry, "load_encoder", lambda folder: encoder)
    assert isinstance(load_predictor(folder).head, nn.Conv1d)
    says(written("mask", state={"weight": torch.ones(2)}), "its weight is [2], and")
    says(written("mask", state={"weight": None}), "there is no 'weight'")


@pytest.mark.parametrize("target", ["", "strange", "strange:TASK", "a\nb", "x" * 10**5, "../class"])
def test_an_unknown_target_imports_nothing(target, written, tmp_path, monkeypatch):
    (tmp_path / "strange.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    with pytest.raises(UsageError, match="there is no task for labels of the kind ") as caught:
        load_predictor(written("class", {"target": target}))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    assert not {name for name in set(sys.modules) - before if not name.startswith(("tacit", "torch"))}


class Grades(Classes):
    target, plural = "grade", "grades"


class Unscored(Classes):
    target, score = "unscored", "luck"


GRADES, UNSCORED, NO_TASK = Grades(), Unscored(), 5


@pytest.fixture
def packages(monkeypatch):
    """A function that lets packages have entry points, as `name = module:object`."""

    def have(**points):
        found = [EntryPoint(name, where, registry.ENTRY_POINTS) for name, where in points.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: found)
        all_tasks.cache_clear()

    yield have
    all_tasks.cache_clear()


def test_a_package_brings_a_kind_and_cannot_replace_ours(packages):
    packages(grade=f"{__name__}:GRADES", value="absent:TASK", **{"class": f"{__name__}:GRADES"})
    assert task_of("grade") is all_tasks()["grade"] is GRADES
    assert list(all_tasks()) == [*own_tasks(), "grade"]
    assert task_of("class") is own_tasks()["class"] is all_tasks()["class"]
    assert task_of("value") is own_tasks()["value"]


@pytest.mark.parametrize(
    ("name", "where", "words"),
    [
        ("grade", "absent_module:TASK", "No module named 'absent_module'"),
        ("grade", f"{__name__}:ABSENT", "has no attribute 'ABSENT'"),
        ("grade", f"{__name__}:NO_TASK", "it is no instance of tacit.tasks.base.Task"),
        ("grade", f"{__name__}:Grades", "it is no instance of tacit.tasks.base.Task"),
        ("other", f"{__name__}:GRADES", "its target is 'grade', which must be the entry point's name"),
        ("unscored", f"{__name__}:UNSCORED", "its score 'luck' is not among its measures"),
        ("grade", "broken:TASK", "oh"),
        ("grade", "no entry point", "'NoneType'"),
    ],
)
def test_a_broken_package_is_one_line_when_asked_for(name, where, words, packages, written, monkeypatch):
    folder = written("class", {"target": name})
    (folder / "broken.py").write_text("raise RuntimeError('oh\\nno')")
    monkeypatch.syspath_prepend(folder)
    packages(**{name: where})
    assert all_tasks() == own_tasks()
    for ask in (lambda: task_of(name), lambda: load_predictor(folder)):
        with pytest.raises(TacitError) as caught:
            ask()
        line = str(caught.value)
        assert line.startswith(f"the kind of labels '{name}' (entry point {where} of a package) cannot be")
        assert words in line
        assert "\n" not in line


def test_a_broken_package_is_named(tmp_path, monkeypatch):
    place = tmp_path / "mine-1.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (place / "entry_points.txt").write_text("[tacit.tasks]\ngrade = absent_module:TASK\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TacitError, match=r"\(entry point absent_module:TASK of the package mine\) cannot be"):
        task_of("grade")


def test_a_broken_package_breaks_no_run_that_does_not_need_it(packages, jpgs, tmp_path):
    packages(grade="absent_module:TASK")
    tiny = {"encoder": "tacit/convnet?width=8", "batch_size": 16, "device": "cpu", "quiet": True}
    run = tacit.fit("dcl", jpgs, out=tmp_path / "run", epochs=1, **tiny)
    assert run.finished
