"""What a run chooses where the user says nothing: the laptop's recipe, views by kind of picture, a start."""

import numpy as np
import pytest
import torch
from torch import nn

import tacit
from tacit.data.image.form import ImageForm
from tacit.data.open import open_source
from tacit.encoders.card import EncoderCard, with_card
from tacit.errors import UsageError
from tacit.methods.registry import method_class
from tacit.rng import Rng, seeded
from tacit.tasks.registry import task_of
from tacit.training import proposals
from tacit.training.laptop import check_preset, laptop, pretraining_epochs
from tacit.training.loader import Stream
from tacit.training.options import Options, Viewing
from tacit.training.proposals import propose
from tacit.training.teaching import Teaching, check_batch
from tacit.training.views import check_views, own_options
from tacit.views.image import Augment
from tacit.views.presets import PRESETS

DCL, FIXMATCH, TRACOCO = (method_class(slug) for slug in ("dcl", "fixmatch", "tracoco"))
ASKED = {"method": "dcl", "data": "photos", "device": "cpu"}


@pytest.mark.parametrize("samples", [70, 600, 1499, 1500, 5000, 20_000, 100_000])
def test_pretraining_on_a_laptop_has_some_thousand_steps_whatever_the_number_of_images(samples):
    batch = laptop(DCL, samples, 32)["batch_size"]
    steps = pretraining_epochs(samples, batch) * (samples // batch)
    assert 1300 <= steps <= 4500
    assert laptop(DCL, samples, 32)["epochs"] == pretraining_epochs(samples, batch)


@pytest.mark.parametrize(("samples", "batch"), [(12, 12), (600, 64), (1500, 128)])
def test_a_batch_on_a_laptop_is_no_larger_than_the_data(samples, batch):
    assert laptop(DCL, samples, 32)["batch_size"] == batch


@pytest.mark.parametrize(("side", "layers"), [(28, 3), (32, 3), (33, 4), (224, 4)])
@pytest.mark.parametrize("method", [DCL, FIXMATCH])
def test_larger_pictures_get_a_layer_more(method, side, layers):
    spec = laptop(method, 2000, side)["encoder"]
    net = tacit.build_encoder(spec, channels=3, size=side)
    assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == layers


def test_few_labels_on_a_laptop_get_2400_steps():
    chosen = laptop(FIXMATCH, 5000, 32)
    assert chosen["epochs"] * (5000 // 64) == pytest.approx(2400, rel=0.02)
    assert (chosen["batch_size"], chosen["mu"]) == (64, 2.0)


def test_what_the_user_names_comes_before_the_preset(labelled_folder, tmp_path):
    run = tacit.fit(
        "dcl",
        labelled_folder,
        out=tmp_path,
        preset="laptop",
        epochs=1,
        batch_size=20,
        device="cpu",
        quiet=True,
    )
    settings = run.settings()
    assert (settings["epochs"], settings["batch_size"]) == (1, 20)
    assert settings["record"]["recipe"]["optimizer"] == "adam"
    assert settings["record"]["recipe"]["lr"] == 1e-3
    assert settings["encoder"] == "tacit/convnet?width=64&depth=3"


@pytest.mark.parametrize(
    ("change", "learns", "message"),
    [
        ({"preset": "desktop"}, DCL, "unknown preset 'desktop'; known: laptop"),
        (
            {"preset": "laptop", "method": "tracoco"},
            TRACOCO,
            "preset laptop is not for tracoco",
        ),
        ({"preset": "laptop", "recipe": "paper"}, DCL, "are two recipes"),
    ],
)
def test_a_preset_that_does_not_fit(change, learns, message):
    with pytest.raises(UsageError, match=message):
        check_preset(Options.of({**ASKED, **change}), learns)


@pytest.mark.parametrize(
    ("change", "learns", "message"),
    [
        ({"views": "phots"}, DCL, "photos"),
        ({"views": "photos", "method": "tracoco"}, TRACOCO, "tracoco makes views of its own"),
        ({"views": "photos", "recipe": "paper"}, DCL, "leave --views out"),
    ],
)
def test_views_that_do_not_fit(change, learns, message):
    asked = Options.of({**ASKED, **change})
    with pytest.raises(UsageError, match=message):
        check_views(asked.method, asked.viewing, learns)


def test_views_follow_the_pictures_and_come_after_what_the_user_names(labelled_folder):
    source = open_source(labelled_folder, progress=False)
    options, choice = own_options(DCL, "dcl", Viewing(), {}, source, 24)
    assert choice.name == "photos"
    assert options["augment"] == PRESETS["photos"].of("augment", Augment(), 24)
    named, _ = own_options(DCL, "dcl", Viewing(), {"augment": {"scale": [0.5, 1.0]}}, source, 24)
    assert named["augment"].scale == (0.5, 1.0)
    asked, choice = own_options(DCL, "dcl", Viewing(views="digits"), {}, source, 24)
    assert choice.name == "digits"
    assert asked["augment"].flip == 0


def test_the_recipe_of_the_paper_has_the_views_of_the_paper(labelled_folder):
    source = open_source(labelled_folder, progress=False)
    options, choice = own_options(FIXMATCH, "fixmatch", Viewing(recipe="paper"), {}, source, 24)
    assert choice is None
    assert {name: options[name] for name in FIXMATCH.published} == dict(FIXMATCH.published)
    own, choice = own_options(FIXMATCH, "fixmatch", Viewing(), {}, source, 24)
    assert choice.name == "photos"
    assert own != options


class _Pool:
    """A source of so many images, of which few are looked at."""

    def __init__(self, source, count):
        self.source, self.count, self.spec = source, count, source.spec

    def __len__(self):
        return self.count

    def batch(self, index):
        return self.source.batch([i % len(self.source) for i in index])


@pytest.fixture
def few(labelled_folder):
    """A method of random weights, and 40 labels beside `images` images."""

    def make(images=4000, labels=40):
        source = open_source(labelled_folder, progress=False)
        with seeded(Rng.of(0)("test")):
            method = FIXMATCH(tacit.build_encoder("tacit/convnet?width=4", channels=3, size=24))
        learned, none = np.arange(labels), np.arange(0)
        pool = _Pool(source, images)
        return method, Teaching(task_of("class"), source, pool, Stream(learned, 8), learned, none, {})

    return make


def test_random_weights_with_few_labels_name_a_better_start_and_what_it_costs(few, monkeypatch):
    monkeypatch.setattr(proposals, "cached_encoders", lambda: [])
    (line,) = propose(Options.of(ASKED), *few())
    assert "40 labels and random weights: --pretrain dcl --pretrain-epochs" in line
    assert "all 4,000 images first (about" in line
    assert propose(Options.of(ASKED), *few(images=150)) == []
    assert propose(Options.of(ASKED), *few(labels=1001)) == []
    assert propose(Options.of({**ASKED, "pretrain": "dcl"}), *few()) == []


def test_weights_in_the_cache_are_named_first_and_learned_ones_need_nothing(few, monkeypatch):
    monkeypatch.setattr(proposals, "cached_encoders", lambda: ["timm/resnet18.a1_in1k", "timm/vit"])
    (line,) = propose(Options.of(ASKED), *few())
    assert "timm/resnet18.a1_in1k is in the cache (1 more are)" in line
    method, teaching = few()
    with_card(method.encoder, EncoderCard("run:x", ImageForm.make(3, size=24), learned=True))
    assert propose(Options.of(ASKED), method, teaching) == []


def test_the_time_is_measured_without_changing_the_method(few, monkeypatch):
    monkeypatch.setattr(proposals, "cached_encoders", lambda: [])
    method, teaching = few()
    method.train()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    propose(Options.of(ASKED), method, teaching)
    assert method.encoder.training
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_few_labelled_images_at_once(few, count):
    method, _ = few()
    stream = Stream(np.arange(9), count)
    if count == 1:
        with pytest.raises(UsageError, match="1 labelled image, and BatchNorm needs two"):
            check_batch(method, stream)
    else:
        said = check_batch(method, stream)
        assert (said is not None) == (count == 2)
    method.encoder = nn.Identity()
    assert check_batch(method, stream) is None


def test_a_preset_with_resume_begins_as_without_it_where_there_is_no_run(labelled_folder, tmp_path):
    settings = {"preset": "laptop", "epochs": 1, "batch_size": 20, "device": "cpu", "quiet": True}
    runs = [
        tacit.fit("dcl", labelled_folder, out=tmp_path / str(resume), resume=resume, **settings)
        for resume in (False, True)
    ]
    first, second = (run.settings()["encoder"] for run in runs)
    assert first == second == laptop(DCL, 80, 24)["encoder"]
