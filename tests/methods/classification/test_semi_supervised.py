"""The semi-supervised classifiers: what gets gradient, what moves, what they compute."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tacit.batch import Batch, Samples, Step
from tacit.data.source import Source, Spec
from tacit.encoders.card import attach_card
from tacit.encoders.modes import still_statistics
from tacit.encoders.zoo import build_encoder
from tacit.errors import UsageError
from tacit.methods.classification.base import Views
from tacit.methods.classification.supervised import mixed_cross_entropy
from tacit.methods.parts.rows import rows_of
from tacit.methods.parts.teacher import follow, frozen_copy
from tacit.methods.registry import method_class, own_methods
from tacit.rng import Rng, seeded
from tacit.views.warp import Warp

SEMI = [slug for slug, entry in own_methods().items() if entry.learns == "class" and not entry.baseline]
TAUGHT = ["mean-teacher", "ict"]  # the average is a teacher that is asked while learning
HALF = Step(50, 100, 0, 1)
STILL = Warp(rotate=0, zoom=0, shift=0, noise=0)
RNG = Rng.of(0)("views", 50)
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
# so that an untrained network's answers count
SURE = {
    "pseudo-label": {"threshold": 0.0},
    "fixmatch": {"threshold": 0.0, "ramp_steps": 0},
    "flexmatch": {"threshold": 0.34, "ramp_steps": 0},
    "freematch": {"ramp_steps": 0},
    "softmatch": {"ramp_steps": 0},
}


class Some(Source):
    """Twelve samples of three classes, half of them labelled."""

    def __init__(self, classes=3, count=12):
        labels = np.where(np.arange(count) % 2, -1, np.arange(count) // 2 % classes)
        super().__init__(Spec("image", (3, 16, 16), tuple("abcdefgh"[:classes])), [""] * count, labels)


def make(slug, encoder=None, *, source=None, **options):
    with seeded(Rng.of(0)("test")):
        encoder = encoder or build_encoder("tacit/convnet?width=8", channels=3, size=16)
        method = method_class(slug)(encoder, **{**SURE.get(slug, {}), **options})
        method.train().prepare(source or Some())
    return method


def batch(count=12, seed=0):
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count + 6, 3, 16, 16), generator=draw, dtype=torch.uint8)
    sizes = torch.full((count + 6, 2), 16.0)
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    return Batch(
        Samples(pixels[:count], torch.arange(count), extra={"true_size": sizes[:count]}),
        Samples(pixels[count:], torch.arange(6), target=target, extra={"true_size": sizes[count:]}),
    )


def losses(method, step=HALF, data=None):
    return method.losses(method.views(data or batch(), RNG, step), step)


def unlabelled_part(terms):
    return sum(value for name, value in terms.items() if name != "supervised")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("slug", ["supervised", *SEMI])
def test_a_step_gives_gradient_to_the_student_and_to_nothing_else(slug, device):
    method = make(slug).to(device)
    total = sum(losses(method, data=batch().to(device)).values())
    assert total.ndim == 0
    assert torch.isfinite(total)
    total.backward()
    for name, parameter in method.named_parameters():
        if name.startswith("average."):
            assert parameter.grad is None, name
        elif "weight" in name:
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("slug", SEMI)
def test_without_labels_the_student_still_gets_gradient(slug):
    """A well-known library's Mean Teacher is inert: its consistency term reaches no parameter."""
    method = make(slug)
    unlabelled_part(losses(method)).backward()
    moved = [n for n, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any(name.startswith("encoder.") for name in moved)
    assert any(name.startswith("head.") for name in moved)
    assert not any(name.startswith("average.") for name in moved)


@pytest.mark.parametrize("slug", SEMI)
def test_views_are_a_function_of_the_step(slug):
    method = make(slug)
    first, again = (method.views(batch(), RNG, HALF) for _ in range(2))
    other = method.views(batch(), Rng.of(0)("views", 51), HALF)
    for a, b in zip(first.unlabelled, again.unlabelled, strict=True):
        assert torch.equal(a, b)
    assert {k: v.tolist() for k, v in first.mixing.items()} == {
        k: v.tolist() for k, v in again.mixing.items()
    }
    assert not torch.equal(first.labelled, other.labelled)
    pairs = [(a, b) for i, a in enumerate(first.unlabelled) for b in first.unlabelled[:i]]
    assert not any(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("slug", [slug for slug in SEMI if slug not in ("semixup", "ict", "mixmatch")])
def test_a_weight_of_zero_is_the_supervised_run_bit_for_bit(slug):
    networks = []
    for name, options in ((slug, {"weight": 0.0}), ("supervised", {})):
        method = make(name, dropout=0.3, **options)
        optimizer = torch.optim.SGD((p for p in method.parameters() if p.requires_grad), 0.1, 0.9)
        for i in range(3):
            step = Step(i, 3, 0, 1)
            torch.manual_seed(i)
            optimizer.zero_grad()
            sum(method.losses(method.views(batch(), Rng.of(0)("views", i), step), step).values()).backward()
            optimizer.step()
            method.after_step(step)
        networks.append(
            [*method.encoder.parameters(), *method.head.parameters(), *method.average.parameters()]
        )
    assert all(torch.equal(a, b) for a, b in zip(*networks, strict=True))


class Pixels(nn.Module):
    """An encoder without randomness or statistics: a linear map of the pixels."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(3 * 16 * 16, 8)

    def forward(self, x):
        return self.map(x.flatten(1))


def pixels():
    with seeded(Rng.of(1)("pixels")):
        return attach_card(Pixels(), channels=3, size=16, num_features=8)


@pytest.mark.parametrize(
    ("slug", "options"), [("pi-model", {}), ("pi-model", {"symmetric": True}), ("mean-teacher", {})]
)
def test_equal_views_are_consistent(slug, options):
    method = make(slug, pixels(), weak=STILL, **options)
    loss = unlabelled_part(losses(method))
    assert loss.item() == 0
    loss.backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in method.parameters())


def test_pi_model_by_hand():
    method = make("pi-model", pixels(), weight=3.0, ramp=0.0)
    views = method.views(batch(), RNG, HALF)
    p, q = (method.logits(u).softmax(1) for u in views.unlabelled)
    assert method.losses(views, HALF)["consistency"].item() == pytest.approx(3 * ((p - q) ** 2).mean().item())


def test_mean_teacher_asks_the_average():
    method = make("mean-teacher", pixels(), weight=1.0, ramp=0.0)
    with torch.no_grad():
        for parameter in method.average.parameters():
            parameter.mul_(0.5)
    views = method.views(batch(), RNG, HALF)
    teacher = method.average[1](method.average[0](views.unlabelled[0])).softmax(1)
    student = method.logits(views.unlabelled[1]).softmax(1)
    expected = ((teacher - student) ** 2).mean().item()
    assert expected > 1e-6
    assert method.losses(views, HALF)["consistency"].item() == pytest.approx(expected, rel=1e-5)


def test_ict_at_a_weight_of_one_and_an_equal_teacher_is_zero():
    method = make("ict", pixels())
    views = method.views(batch(), RNG, HALF)
    views.mixing["lambda"].fill_(1.0)
    assert method.losses(views, HALF)["interpolation"].item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("space", ["prob", "logits"])
def test_ict_by_hand(space):
    method = make("ict", ramp_steps=0, encoder=pixels(), weight=2.0, ramp=0.0, mix_space=space)
    with torch.no_grad():
        for parameter in method.average.parameters():
            parameter.mul_(2)
    views = method.views(batch(), RNG, HALF)
    (u,), lam, order = views.unlabelled, views.mixing["lambda"], views.mixing["partner"]
    z = method.average[1](method.average[0](u))
    if space == "prob":
        target = lam * z.softmax(1) + (1 - lam) * z[order].softmax(1)
    else:
        target = (lam * z + (1 - lam) * z[order]).softmax(1)
    student = method.logits(lam * u + (1 - lam) * u[order]).softmax(1)
    expected = 2 * ((student - target) ** 2).mean().item()
    assert method.losses(views, HALF)["interpolation"].item() == pytest.approx(expected, rel=1e-4)


def test_mixmatch_rows_targets_and_the_unmixed_limit():
    method = make("mixmatch", pixels())
    views = method.views(batch(), RNG, HALF)
    images, targets = method.mixed(views)
    assert images.shape == (6 + 2 * 12, 3, 16, 16)
    torch.testing.assert_close(targets.sum(1), torch.ones(30))
    assert views.mixing["lambda"].min() >= 0.5
    views.mixing["lambda"].fill_(1.0)
    images, targets = method.mixed(views)
    assert torch.equal(images, torch.cat([views.labelled, *views.unlabelled]))
    terms = method.losses(views, HALF)
    plain = F.cross_entropy(method.logits(views.labelled), views.target)
    assert terms["supervised"].item() == pytest.approx(plain.item(), rel=1e-6)
    # both guesses of one sample are the sharpened mean of its two answers
    p = torch.stack([method.logits(u).softmax(1) for u in views.unlabelled]).mean(0)
    torch.testing.assert_close(targets[6:18], p**2 / (p**2).sum(1, keepdim=True))
    assert torch.equal(targets[6:18], targets[18:])


def test_fixmatchs_threshold_rises_to_the_published_one_and_is_it_throughout_in_the_papers_setting():
    method = make("fixmatch", pixels(), threshold=0.95)
    views = method.views(batch(), RNG, HALF)
    for step, expected in ((0, 0.3), (8192, 0.625), (16384, 0.95), (10**6, 0.95)):
        method.losses(views, Step(step, 2**20, 0, 1))
        assert method.least == pytest.approx(expected)
    published = make("fixmatch", pixels(), **{**method.published, "threshold": 0.95})
    published.losses(views, Step(0, 2**20, 0, 1))
    assert published.least == 0.95
    assert make("fixmatch", pixels(), threshold=0.2).first_threshold == 0.2


@pytest.mark.parametrize("slug", ["fixmatch", "flexmatch", "freematch", "softmatch"])
def test_pseudo_labels_of_the_first_steps_count_little(slug):
    method = make(slug, pixels(), threshold=0.0) if slug == "fixmatch" else make(slug, pixels())
    views = method.views(batch(), RNG, HALF)
    method.ramp_steps, values = 500, []
    for step in (0, 250, 500, 10**6):
        again = copy.deepcopy(method)  # thresholds move with each step
        values.append(unlabelled_part(again.losses(views, Step(step, 2**20, 0, 1))).item())
    assert values == pytest.approx([0.0, values[2] / 2, values[2], values[2]])
    assert values[2] != 0
    assert type(method)(pixels()).ramp_steps == 500
    assert {**method.published}["ramp_steps"] == 0


def test_fixmatch_counts_who_is_sure_and_divides_by_all():
    method = make("fixmatch", pixels())
    views = method.views(batch(), RNG, HALF)
    q = method.logits(views.unlabelled[0]).softmax(1)
    confidence, found = q.max(1)
    each = F.cross_entropy(method.logits(views.unlabelled[1]), found, reduction="none")
    method.threshold = method.first_threshold = confidence.sort().values[6].item()
    expected = (each * (confidence >= method.threshold)).sum().item() / 12
    assert method.losses(views, HALF)["match"].item() == pytest.approx(expected, rel=1e-5)
    assert method.notes["confident"].item() == 0.5
    method.threshold = method.first_threshold = 1.1
    loss = method.losses(views, HALF)["match"]
    assert loss.item() == 0
    method.zero_grad()
    loss.backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in method.parameters())


def test_flexmatch_keeps_the_confident_classes_of_the_pool():
    source = Some(count=30).subset(np.array([4, 5, 9, 11, 20, 21]))
    method = make("flexmatch", pixels(), source=source, threshold=0.6)
    assert method.selected.tolist() == [-1] * 6
    target = torch.tensor([[9.0, 0, 0], [0, 9, 0], [0.1, 0, 0]])
    _, mask = method.match(target.clone(), target, torch.tensor([9, 20, 4]))
    assert mask.tolist() == [True, True, True]  # at first everything passes
    assert method.selected.tolist() == [-1, -1, 0, -1, 1, -1]
    # beta = 1 / max(1, 4) for classes 0 and 1, 0 for class 2
    level = 0.6 * 0.25 / 1.75
    logits = torch.tensor([[math.log(level / (1 - level) * 2) + 1e-3, 0.0, 0.0]])
    assert method.match(logits, logits, torch.tensor([5]))[1].tolist() == [True]


def test_rows_of_a_part_of_a_source():
    source = Some(count=30).subset(np.array([3, 7, 8]))
    rows = rows_of(source)
    assert rows[torch.tensor([8, 3, 7])].tolist() == [2, 0, 1]
    assert rows_of(Some(count=5)).tolist() == [0, 1, 2, 3, 4]


def test_freematch_begins_at_one_over_classes_and_follows():
    method = make("freematch", pixels(), momentum=0.9)
    assert method.level.item() == pytest.approx(1 / 3)
    q = torch.tensor([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1]])
    method.match(q.log(), q.log(), torch.arange(2))
    assert method.level.item() == pytest.approx(0.9 / 3 + 0.1 * 0.7)
    torch.testing.assert_close(method.local, 0.9 / 3 + 0.1 * torch.tensor([0.7, 0.2, 0.1]))


def test_softmatch_weights_follow_the_mean():
    method = make("softmatch", pixels(), momentum=0.0, align=False)
    q = torch.tensor([[0.9, 0.05, 0.05], [0.5, 0.3, 0.2]])
    loss, weight = method.match(q.log(), q.log(), torch.arange(2))
    mean, variance = 0.7, 0.08  # of 0.9 and 0.5, divided by n - 1
    expected = math.exp(-((0.5 - mean) ** 2) / (2 * variance / 4))
    assert weight.tolist() == pytest.approx([1.0, expected], rel=1e-5)
    assert loss.item() == pytest.approx((-math.log(0.9) - expected * math.log(0.5)) / 2, rel=1e-5)


def test_softmatch_takes_mean_and_variance_before_the_alignment_and_weights_after_it():
    method = make("softmatch", pixels(), momentum=0.0)
    q = torch.tensor([[0.8, 0.1, 0.1], [0.6, 0.2, 0.2]])
    _, weight = method.match(q.log(), q.log(), torch.arange(2))
    assert method.mean.item() == pytest.approx(0.7)
    assert method.variance.item() == pytest.approx(0.02)
    torch.testing.assert_close(method.running, torch.tensor([0.7, 0.15, 0.15]))
    # q / running is (8/7, 2/3, 2/3) and (6/7, 4/3, 4/3)
    aligned = (8 / 7) / (8 / 7 + 4 / 3), (4 / 3) / (6 / 7 + 8 / 3)
    expected = [math.exp(-((a - 0.7) ** 2) / (2 * 0.02 / 4)) for a in aligned]
    assert weight.tolist() == pytest.approx(expected, rel=1e-4)
    assert max(expected) < 0.01  # those of the aligned mean, 0.42, would be 1 and 0.37


def test_softmatch_survives_a_batch_of_one_sample():
    method = make("softmatch", pixels(), momentum=0.9)
    q = torch.tensor([[0.8, 0.1, 0.1]])
    loss, weight = method.match(q.log(), q.log(), torch.arange(1))
    assert method.variance.item() == 1.0
    assert torch.isfinite(loss)
    assert 0 < weight.item() <= 1


@pytest.mark.parametrize("space", ["logits", "prob"])
def test_semixup_by_hand(space):
    method = make("semixup", pixels(), dropout=0.0, mix_space=space)
    views = method.views(batch(), RNG, HALF)
    x, t = views.unlabelled
    lam, order = views.mixing["lambda 0"], views.mixing["partner 0"]
    assert 0.55 - 1e-6 <= lam.item() <= 1
    assert 0.7 - 1e-6 <= views.mixing["labelled_lambda"].item() <= 1
    z, zt, zm = (method.logits(v) for v in (x, t, lam * x + (1 - lam) * x[order]))
    p, pt, pm = (v.softmax(1) for v in (z, zt, zm))
    mixed = (
        (lam * z + (1 - lam) * z[order]).softmax(1) if space == "logits" else lam * p + (1 - lam) * p[order]
    )

    def d(a, b):
        return ((a - b) ** 2).mean().item()

    terms = method.losses(views, HALF)
    assert terms["in"].item() == pytest.approx(2 * d(pt, p), rel=1e-5)
    assert terms["in_out"].item() == pytest.approx(2 * (d(p, pm) + d(pt, pm)), rel=1e-5)
    # a linear network's logits mix as its inputs do
    assert terms["interpolation"].item() == pytest.approx(4 * d(pm, mixed), rel=1e-3, abs=1e-10)
    assert terms["supervised"].item() == pytest.approx(mixed_cross_entropy(method, views).item())


def test_semixup_drops_terms_and_takes_more_copies():
    views = make("semixup", pixels(), dropout=0.0).views(batch(), RNG, HALF)
    whole = make("semixup", pixels(), dropout=0.0).losses(views, HALF)
    for term in ("in", "in_out", "interpolation"):
        rest = make("semixup", pixels(), dropout=0.0, drop=(term,)).losses(views, HALF)
        lost = sum(whole.values()) - sum(rest.values())
        assert lost.item() == pytest.approx(whole[term].item(), abs=1e-6)
    many = make("semixup", pixels(), n_transforms=3, n_mixes=2)
    assert len(many.views(batch(), RNG, HALF).unlabelled) == 3
    assert torch.isfinite(sum(losses(many).values()))
    assert set(losses(make("semixup", n_transforms=1, n_mixes=0))) >= {"supervised"}


def test_the_average_warms_up_and_is_what_predicts_and_what_is_kept():
    method = make("fixmatch", ema=0.9)
    start = [p.clone() for p in method.average.parameters()]
    with torch.no_grad():
        for parameter in (*method.encoder.parameters(), *method.head.parameters()):
            parameter.add_(1.0)
        method.encoder.layers[1].running_mean.fill_(7.0)
    statistics = method.average[0].layers[1].running_mean.clone()
    method.after_step(Step(0, 1000, 0, 1))  # d = min(1 - 1 / 2, 0.9)
    for before, after in zip(start, method.average.parameters(), strict=True):
        torch.testing.assert_close(after, before + 0.5)
    torch.testing.assert_close(method.average[0].layers[1].running_mean, (statistics + 7) / 2)
    method.after_step(Step(98, 1000, 0, 1))  # d = min(0.99, 0.9)
    for before, after in zip(start, method.average.parameters(), strict=True):
        torch.testing.assert_close(after, before + 0.55)
    x = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        expected = method.average[1].eval()(method.average[0].eval()(x)).softmax(1)
    method.train()
    encoder, head = method.network
    with torch.no_grad():
        torch.testing.assert_close(head.eval()(encoder.eval()(x)).softmax(1), expected)
    assert method.encoder.training
    method.finish(Some())
    with torch.no_grad():
        torch.testing.assert_close(method.head.eval()(method.encoder.eval()(x)).softmax(1), expected)


def test_running_statistics_follow_the_labelled_samples_only_where_said():
    method = make("pi-model")
    norm = method.encoder.layers[1]
    before = norm.running_mean.clone()
    method.still_logits(torch.randn(8, 3, 16, 16))
    assert torch.equal(norm.running_mean, before)
    assert norm.track_running_stats
    method.logits(torch.randn(8, 3, 16, 16))
    assert not torch.equal(norm.running_mean, before)


@pytest.mark.parametrize(
    ("slug", "parts"),
    [
        ("supervised", {"labelled"}),
        ("pi-model", {"labelled"}),
        ("mean-teacher", {"labelled"}),
        ("pseudo-label", {"labelled"}),
        ("ict", {"labelled"}),
        ("fixmatch", {"labelled", "weak"}),
        ("flexmatch", {"labelled", "weak"}),
        ("mixmatch", {"weak"}),
        ("semixup", {"weak"}),
    ],
)
def test_neither_strong_nor_mixed_views_move_running_statistics_where_others_can(slug, parts):
    method = make(slug)
    views = method.views(batch(), RNG, HALF)
    norm, seen = method.encoder.layers[1], []
    own = type(norm).forward

    def watch(self, x):
        moved = self.training and self.track_running_stats
        if self is norm and moved:
            seen.append(x.shape[0])
        return own(self, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(norm), "forward", watch)
        method.losses(views, HALF)
    labelled, weak = len(views.labelled), len(views.unlabelled[0]) if views.unlabelled else 0
    passes = {"labelled": labelled in seen, "weak": weak in seen}
    assert labelled != weak
    assert {name for name, moved in passes.items() if moved} == parts
    assert len(seen) <= 1 + 2 * ("weak" in parts)


def test_still_statistics_normalise_by_the_batch_all_the_same():
    norm = nn.BatchNorm1d(3)
    x = 5 + torch.randn(32, 3)
    with still_statistics(norm, True):
        y = norm(x)
    assert y.mean().abs() < 1e-5
    assert norm.running_mean.abs().sum() == 0


def test_state_holds_all_that_must_survive_a_kill():
    first = make("flexmatch")
    losses(first)
    first.after_step(HALF)
    second = make("flexmatch")
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.selected, first.selected)
    assert (first.selected >= 0).any()


def test_wrong_options_are_one_line():
    for slug, options, says in (
        ("fixmatch", {"ema": 1.0}, "ema must lie in [0, 1)"),
        ("fixmatch", {"dropout": 1.0}, "dropout must lie in [0, 1)"),
        ("semixup", {"n_transforms": 0}, "n_transforms >= 1"),
    ):
        with pytest.raises(UsageError) as caught:
            make(slug, **options)
        assert says in str(caught.value)
    with pytest.raises(UsageError, match="needs an averaged network"):
        losses(make("mean-teacher", ema=0.0))
    data = batch()
    data.labelled = None
    with pytest.raises(UsageError, match="the batch has none"):
        losses(make("fixmatch"), data=data)


def test_views_name_what_they_hold():
    views = make("fixmatch").views(batch(), RNG, HALF)
    assert isinstance(views, Views)
    assert views.labelled.shape == (6, 3, 16, 16)
    assert [u.shape for u in views.unlabelled] == [(12, 3, 16, 16)] * 2
    assert torch.equal(views.index, torch.arange(12))


def test_pseudo_label_on_a_network_that_is_certain_gets_no_gradient():
    method = make("pseudo-label", pixels(), ramp=0.0)
    with torch.no_grad():
        method.head[1].weight.mul_(1e4)
    unlabelled_part(losses(method)).backward()
    assert all(p.grad.abs().max() < 1e-6 for p in method.encoder.parameters())


def semixup_still(lam, **options):
    """Semixup's unlabelled terms where nothing is random but, if asked for, the second view."""
    method = make("semixup", pixels(), dropout=0.0, **options)
    views = method.views(batch(), RNG, HALF)
    views.mixing["lambda 0"].fill_(lam)
    return method, views


def test_semixup_unmixed_leaves_the_views_difference_alone():
    method, views = semixup_still(1.0)
    x, t = (method.logits(u).softmax(1) for u in views.unlabelled)
    total = unlabelled_part(method.losses(views, HALF)).item()
    assert total == pytest.approx((2 + 2) * ((x - t) ** 2).mean().item(), rel=1e-5)


def test_semixup_of_still_and_unmixed_samples_is_nothing():
    method, views = semixup_still(1.0, weak=STILL)
    total = unlabelled_part(method.losses(views, HALF))
    total.backward()
    assert total.item() == 0
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in method.parameters())


def test_an_affine_network_has_no_interpolation_loss_in_logits_only():
    logits, views = semixup_still(0.7)
    assert logits.losses(views, HALF)["interpolation"].item() == pytest.approx(0, abs=1e-12)
    prob, views = semixup_still(0.7, mix_space="prob")
    with torch.no_grad():
        prob.head[1].weight.mul_(10)
    assert prob.losses(views, HALF)["interpolation"].item() > 1e-6


def test_mean_teacher_with_a_decay_of_nothing_is_the_student():
    method = make("mean-teacher", ema=1e-12)
    with torch.no_grad():
        method.head[1].weight.add_(1.0)
    method.after_step(Step(50, 100, 0, 1))
    for mine, theirs in zip(method.average.parameters(), method._network.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("slug", SEMI)
def test_same_seed_same_losses_bit_for_bit(slug):
    values = []
    for _ in range(2):
        method = make(slug)
        torch.manual_seed(5)
        values.append({name: value.item() for name, value in losses(method).items()})
    assert values[0] == values[1]


def learn(method, begin, end, optimizer=None):
    """Steps `begin` to `end` of four, as the loop takes them; the optimiser and the losses."""
    optimizer = optimizer or torch.optim.SGD((p for p in method.parameters() if p.requires_grad), 0.1, 0.9)
    found = []
    for i in range(begin, end):
        step = Step(i, 4, 0, 1)
        torch.manual_seed(i)
        optimizer.zero_grad()
        terms = method.losses(method.views(batch(seed=i), Rng.of(0)("views", i), step), step)
        sum(terms.values()).backward()
        optimizer.step()
        method.after_step(step)
        found.append({name: value.item() for name, value in terms.items()})
    return optimizer, found


@pytest.mark.parametrize("slug", ["supervised", *SEMI])
def test_what_was_put_down_half_way_goes_on_bit_for_bit(slug):
    ema = {} if slug == "semixup" else {"ema": 0.6}
    whole, first, second = (make(slug, dropout=0.3, **ema) for _ in range(3))
    _, expected = learn(whole, 0, 4)
    optimizer, before = learn(first, 0, 2)
    second.load_state_dict(first.state_dict())
    another = torch.optim.SGD((p for p in second.parameters() if p.requires_grad), 0.1, 0.9)
    another.load_state_dict(optimizer.state_dict())
    _, after = learn(second, 2, 4, another)
    assert before + after == expected
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_semixup_of_the_same_seed_is_the_same():
    (_, first), (_, again) = (learn(make("semixup"), 0, 3) for _ in range(2))
    assert first == again
    assert len({terms["in"] for terms in first}) == 3


@pytest.mark.parametrize(
    ("slug", "options", "base"),
    [
        ("semixup", {"in_weight": 0.0, "in_out_weight": 0.0, "interpolation_weight": 0.0}, {"mixup": True}),
        ("ict", {"weight": 0.0, "mixup": False}, {}),
    ],
)
def test_a_weight_of_zero_leaves_the_labelled_term(slug, options, base):
    networks = []
    for name, chosen in ((slug, options), ("supervised", base)):
        method = make(name, dropout=0.3, ema=0.5, **chosen)
        learn(method, 0, 3)
        networks.append([*method.encoder.parameters(), *method.head.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*networks, strict=True))


def test_pseudo_labels_of_a_network_that_is_certain_teach_it_nothing():
    method = make("pseudo-label", pixels(), threshold=0.95, ramp=0.0)
    with torch.no_grad():
        method.head[-1].weight.mul_(1e4)
    loss = unlabelled_part(losses(method))
    assert method.notes["confident"].item() > 0.9
    method.zero_grad()
    loss.backward()
    certain = max(p.grad.abs().max().item() for p in method.head.parameters())
    doubtful = make("pseudo-label", pixels(), threshold=0.0, ramp=0.0)
    unlabelled_part(losses(doubtful)).backward()
    assert certain < 1e-6 < 1e-3 < max(p.grad.abs().max().item() for p in doubtful.head.parameters())


def gradient(loss, method):
    return torch.autograd.grad(loss, method.head[-1].weight, retain_graph=True)[0]


def test_no_gradient_through_the_target_of_the_pi_model():
    method, both = (make("pi-model", pixels(), ramp=0.0, symmetric=s) for s in (False, True))
    views = method.views(batch(), RNG, HALF)
    p, q = (method.logits(u).softmax(1) for u in views.unlabelled)
    found = gradient(method.losses(views, HALF)["consistency"], method)
    expected = gradient(10 * F.mse_loss(q, p.detach()), method)
    torch.testing.assert_close(found, expected)
    p, q = (both.logits(u).softmax(1) for u in views.unlabelled)
    through = gradient(10 * F.mse_loss(q, p), both)
    torch.testing.assert_close(gradient(both.losses(views, HALF)["consistency"], both), through)
    assert (through - found).abs().max() > 1e-4


def test_no_gradient_through_the_target_of_fixmatch():
    method = make("fixmatch", pixels(), hard=False)
    views = method.views(batch(), RNG, HALF)
    weak, strong = (method.logits(u) for u in views.unlabelled)
    expected = gradient(F.cross_entropy(strong, (weak.detach() / 0.5).softmax(1)), method)
    torch.testing.assert_close(gradient(method.losses(views, HALF)["match"], method), expected)


@pytest.mark.parametrize(
    ("slug", "share", "start"),
    [
        ("pseudo-label", 0.4, 0.0),
        ("pi-model", 0.4, 0.0),
        ("mean-teacher", 0.4, 0.0),
        ("ict", 0.25, math.exp(-5)),
        ("fixmatch", 0.0, 1.0),
        ("semixup", 0.0, 1.0),
    ],
)
def test_the_weight_rises_as_the_paper_says(slug, share, start):
    options = {"semixup": {"dropout": 0.0}, "ict": {"ramp_steps": 0}, "fixmatch": {"first_threshold": 0.0}}
    method = make(slug, pixels(), **options.get(slug, {}))
    views = method.views(batch(), RNG, HALF)
    if slug == "mean-teacher":
        views.unlabelled[0].zero_()  # so that student and teacher differ
    risen = round(share * 640)
    first, late, last = (
        unlabelled_part(method.losses(views, Step(i, 640, 0, 1))).item() for i in (0, risen, 639)
    )
    assert last > 1e-9
    assert first == pytest.approx(start * last, rel=1e-5)
    assert late == last
    if share > 0:
        before = unlabelled_part(method.losses(views, Step(risen // 2, 640, 0, 1))).item()
        assert first < before < last


def test_averages_at_their_limits():
    student = pixels()
    for momentum, same in ((0.0, True), (1.0, False)):
        teacher = frozen_copy(student)
        with torch.no_grad():
            teacher.map.weight.add_(1.0)
        start = teacher.map.weight.clone()
        follow(teacher, student, momentum)
        assert torch.equal(teacher.map.weight, student.map.weight if same else start)
    method = make("mean-teacher", pixels(), ema=0.9)
    with torch.no_grad():
        method.encoder.map.weight.add_(1.0)
    for i in range(200):
        method.after_step(Step(i, 200, 0, 1))
    torch.testing.assert_close(method.average[0].map.weight, method.encoder.map.weight)


def test_mixmatch_without_mixing_is_cross_entropy():
    method = make("mixmatch", pixels(), alpha=0.0)
    views = method.views(batch(), RNG, HALF)
    plain = F.cross_entropy(method.logits(views.labelled), views.target)
    assert method.losses(views, HALF)["supervised"].item() == pytest.approx(plain.item(), rel=1e-6)


def semixup_at(lam, **options):
    method = make("semixup", pixels(), dropout=0.0, **options)
    views = method.views(batch(), RNG, HALF)
    views.mixing["lambda 0"].fill_(lam)
    return method, views, method.losses(views, HALF)


@pytest.mark.parametrize("space", ["logits", "prob"])
def test_semixup_unmixed(space):
    method, views, terms = semixup_at(1.0, mix_space=space)
    z, zt = (method.logits(u).softmax(1) for u in views.unlabelled)
    difference = ((z - zt) ** 2).mean().item()
    assert difference > 1e-5
    assert terms["interpolation"].item() == pytest.approx(0, abs=1e-9)
    assert unlabelled_part(terms).item() == pytest.approx((2 + 2) * difference, rel=1e-5)


def test_semixup_unmixed_and_untransformed_is_nothing():
    method, _, terms = semixup_at(1.0, weak=STILL)
    loss = unlabelled_part(terms)
    assert loss.item() == 0
    loss.backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in method.parameters())


@pytest.mark.parametrize("lam", [0.55, 0.8])
def test_semixup_of_an_affine_network_interpolates_logits_only(lam):
    assert semixup_at(lam)[2]["interpolation"].item() < 1e-10
    assert semixup_at(lam, mix_space="prob")[2]["interpolation"].item() > 1e-7


def test_semixup_is_bounded():
    method, views, _ = semixup_at(0.55)
    with torch.no_grad():
        method.head[-1].weight.mul_(1e4)
    loss = unlabelled_part(method.losses(views, HALF)).item()
    assert 0.5 < loss <= (2 + 2 * 2 + 4) * 2 / 3


def test_semixup_does_not_care_for_the_order_of_classes_or_samples():
    method, views, terms = semixup_at(0.7, mix_space="prob")
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    partner = order.argsort()[views.mixing["partner 0"][order]]
    moved = views._replace(
        unlabelled=tuple(u[order] for u in views.unlabelled), mixing={**views.mixing, "partner 0": partner}
    )
    again = method.losses(moved, HALF)
    with torch.no_grad():
        method.head[-1].weight.copy_(method.head[-1].weight[[2, 0, 1]])
        method.head[-1].bias.copy_(method.head[-1].bias[[2, 0, 1]])
    other = method.losses(views._replace(target=(views.target + 1) % 3), HALF)
    for name, term in terms.items():
        assert again[name].item() == pytest.approx(term.item(), rel=1e-5), name
        assert other[name].item() == pytest.approx(term.item(), rel=1e-5), name


def test_semixup_detaches_the_second_side_if_asked():
    kept = {"drop": ("in_out", "interpolation")}
    method, views, terms = semixup_at(0.7, **kept)
    detached, _, fewer = semixup_at(0.7, detach_target=True, **kept)
    z, zt = (method.logits(u).softmax(1) for u in views.unlabelled)
    torch.testing.assert_close(gradient(terms["in"], method), gradient(2 * F.mse_loss(zt, z), method))
    z, zt = (detached.logits(u).softmax(1) for u in views.unlabelled)
    expected = gradient(2 * F.mse_loss(zt, z.detach()), detached)
    torch.testing.assert_close(gradient(fewer["in"], detached), expected)
    assert (expected - gradient(terms["in"], method)).abs().max() > 1e-5


def test_semixup_draws_weights_by_its_floors():
    method, data = make("semixup", pixels()), batch()
    drawn = [method.draw_mixing(data, Rng.of(0)("step", i)) for i in range(1500)]
    for name, floor, mean in (("lambda 0", 0.55, 0.780), ("labelled_lambda", 0.7, 0.812)):
        values = torch.stack([mixing[name] for mixing in drawn])
        assert values.min().item() == pytest.approx(floor)
        assert values.mean().item() == pytest.approx(mean, abs=0.015)
    assert drawn[0]["lambda 0"] != drawn[0]["labelled_lambda"]
