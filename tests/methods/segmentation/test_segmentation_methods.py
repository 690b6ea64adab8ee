"""Methods that learn masks, on networks that take milliseconds."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tacit.batch import Batch, Samples, Step
from tacit.data.source import UNLABELLED, Sample, Source, Spec
from tacit.data.volume.form import VolumeForm
from tacit.data.volume.volume import VolumeSample
from tacit.encoders.card import EncoderCard, with_card
from tacit.encoders.unet import UNet3d
from tacit.encoders.vnet import VNet
from tacit.errors import UsageError
from tacit.losses.segmentation import segmentation_loss
from tacit.methods.registry import method_class, own_methods
from tacit.methods.segmentation.base import Views
from tacit.methods.segmentation.cps import CPS
from tacit.methods.segmentation.mean_teacher_segmentation import UAMT, MeanTeacherSegmentation
from tacit.methods.segmentation.supervised_segmentation import SupervisedSegmentation
from tacit.methods.segmentation.tracoco import TraCoCo
from tacit.methods.segmentation.urpc import URPC
from tacit.rng import Rng, seeded
from tacit.tasks.masks.segmenter import dense_logits, predictor_of
from tacit.views.volume import apply_cutmix

PATCH = (8, 8, 16)
HALF = Step(50, 100, 0, 1)
LEARNERS = [SupervisedSegmentation, CPS, MeanTeacherSegmentation, UAMT, URPC, TraCoCo]


def source(classes=2, volumes=6, labelled=4):
    names = tuple(["background", "a", "b"][:classes])
    labels = np.where(np.arange(volumes) < labelled, 0, UNLABELLED)
    return Source(Spec("volume", (1, *PATCH), names, "mask"), [str(i) for i in range(volumes)], labels)


def encoder(depth=2, channels=1):
    with seeded(Rng.of(0)("test")):
        net = UNet3d(channels, width=4, depth=depth, dropout=0.0)
    half = (0.5,) * channels
    return with_card(net, EncoderCard("", VolumeForm.make(channels, half, half, patch=PATCH)))


def made(kind, classes=2, **options):
    method = kind(encoder(3 if kind is URPC else 2), **options)
    with seeded(Rng.of(1)("test")):
        method.prepare(source(classes))
    if kind is URPC:
        method.dropout = (0.0,) * 4
    return method


def batch(classes=2, labelled=2, unlabelled=2, offset=(2, 0, -1)):
    rng = torch.Generator().manual_seed(3)

    def volumes(n):
        return torch.rand(n, 1, *PATCH, generator=rng)

    offsets = torch.tensor([offset])
    first, second = volumes(unlabelled), volumes(labelled)
    target = torch.randint(classes, (labelled, *PATCH), generator=rng)
    other, another = volumes(labelled), volumes(unlabelled)
    return Batch(
        Samples(
            first,
            torch.arange(4, 4 + unlabelled),
            extra={"second": another, "offset": offsets.expand(unlabelled, 3)},
        ),
        labelled=Samples(
            second,
            torch.arange(labelled),
            target=target,
            extra={"second": other, "offset": offsets.expand(labelled, 3)},
        ),
    )


def views_of(method, step=HALF, **kwargs):
    return method.views(batch(**kwargs), Rng.of(0)("views", step.index), step)


def gradient(loss, parameters):
    found = torch.autograd.grad(loss, list(parameters), allow_unused=True, retain_graph=True)
    return torch.cat([torch.zeros(0) if g is None else g.flatten() for g in found])


def test_the_published_network_with_its_head_has_the_published_size():
    method = SupervisedSegmentation(
        with_card(VNet(), EncoderCard("", VolumeForm.make(1, patch=(16, 16, 16))))
    )
    method.prepare(source())
    assert sum(p.numel() for p in method.parameters()) == 9_448_866


def test_all_methods_for_masks_are_listed():
    listed = {slug for slug, entry in own_methods().items() if "volume" in entry.modalities}
    assert {method_class(slug) for slug in listed} >= set(LEARNERS)
    assert all(own_methods()[s].learns == "mask" for s in listed if own_methods()[s].family == "segmentation")


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_step_is_finite_reaches_what_is_trained_and_falls(kind, classes):
    method = made(kind, classes)
    views = views_of(method, classes=classes)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    first = None
    for index in range(8):
        losses = method.losses(views, Step(40 + index, 100, 0, 1))
        total = torch.stack(list(losses.values())).sum()
        assert math.isfinite(total.item())
        optimizer.zero_grad()
        total.backward()
        if index == 0:
            missing = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
            assert missing == []
            first = losses["supervised"].item()
        optimizer.step()
        method.after_step(Step(40 + index, 100, 0, 1))
    assert method.losses(views, HALF)["supervised"].item() < first
    probability = predictor_of(method.network)(views.labelled)
    assert probability.shape == (2, classes, *PATCH)
    torch.testing.assert_close(probability.sum(1), torch.ones(2, *PATCH))


@pytest.mark.parametrize("kind", [CPS, MeanTeacherSegmentation, UAMT, URPC, TraCoCo])
def test_without_weight_the_gradient_is_that_of_supervision(kind):
    # InstanceNorm and no dropout: labelled patches do not see what else is in the batch
    method = made(kind, weight=0.0)
    views = views_of(method)
    total = torch.stack(list(method.losses(views, HALF).values())).sum()
    mine = list(method.encoder.parameters()) + list(method.head.parameters())
    found = gradient(total, mine)
    if kind is TraCoCo:  # its own noise
        from tacit.views.volume import uniform_noise

        x = uniform_noise(views.both, views.rng("noise", 0, "main"), amount=0.2, clamp=False)[:2]
    else:
        x = views.labelled
    if kind is URPC:
        expected = torch.stack([segmentation_loss(z, views.target) for z in method.scales(x)]).mean()
    else:
        expected = segmentation_loss(method.logits(x), views.target)
    torch.testing.assert_close(found, gradient(expected, mine))
    assert found.abs().max() > 0


def test_it_refuses_an_encoder_without_maps_and_data_without_masks():
    with pytest.raises(UsageError, match="full-resolution maps"):
        SupervisedSegmentation(nn.Linear(2, 2))
    with pytest.raises(UsageError, match="learns masks of two classes or more"):
        SupervisedSegmentation(encoder()).prepare(Source(Spec("volume", (1, *PATCH)), ["0"]))
    with pytest.raises(UsageError, match="compares 4 scales of the decoder, and the encoder gives 3"):
        URPC(encoder(2))


class Counting:
    """A volume whose voxel is its own number, as `Volume` reads."""

    name = "v"

    def __init__(self, shape):
        self.shape = shape
        self.voxels = torch.arange(math.prod(shape), dtype=torch.float32).view(1, *shape)
        self.reads = 0

    def read(self, start, size):
        self.reads += 1
        out = torch.zeros(1, *size)
        into, of = [], []
        for s, n, side in zip(start, size, self.shape, strict=True):
            low, high = max(0, s), min(side, s + n)
            into.append(slice(low - s, high - s))
            of.append(slice(low, high))
        out[(slice(None), *into)] = self.voxels[(slice(None), *of)]
        return out

    def read_mask(self, start, size):
        return self.read(start, size)[0].long()


def sample_of(volume, label=0):
    return VolumeSample(volume, 5, label)


@pytest.mark.parametrize("turn", [False, True])
def test_a_patch_and_its_mask_are_the_same_voxels(turn):
    method = made(SupervisedSegmentation, turn=turn)
    seen = set()
    for seed in range(12):
        cut = method.cut(sample_of(Counting((12, 9, 18))), np.random.default_rng(seed))
        assert cut.data.shape == (1, *PATCH)
        assert cut.index == 5
        torch.testing.assert_close(cut.target.float(), cut.data[0])
        steps = cut.data[0].diff(dim=2)
        assert (steps == 1).all()  # z is never turned
        seen.add(cut.data[0, 0, 0, 0].item())
    assert len(seen) > 6
    assert method.cut(sample_of(Counting((12, 9, 18)), UNLABELLED), np.random.default_rng(0)).target is None


def test_a_small_volume_is_centred_in_its_patch():
    method = made(SupervisedSegmentation, turn=False)
    cut = method.cut(sample_of(Counting((4, 8, 14))), np.random.default_rng(0))
    torch.testing.assert_close(cut.data[0, 2:6, :, 1:15], Counting((4, 8, 14)).voxels[0])
    outside = cut.data[0].clone()
    outside[2:6, :, 1:15] = 0
    assert not outside.any()


def test_cps_is_symmetric_and_teaches_with_constants():
    method = made(CPS)
    views = views_of(method)
    losses = method.losses(views, HALF)
    swapped = copy.deepcopy(method)
    swapped.encoder, swapped.head = method.second[0], method.second[1]
    swapped.second = nn.ModuleList([method.encoder, method.head])
    for name, value in swapped.losses(views, HALF).items():
        torch.testing.assert_close(value, losses[name])
    z1, z2 = (dense_logits(net, views.both)[2:] for net in method.networks)
    weight = 0.1 * math.exp(-5 * 0.25)
    second = list(method.second.parameters())
    alone = weight * F.cross_entropy(z2, z1.argmax(1))
    torch.testing.assert_close(gradient(losses["pseudo"], second), gradient(alone, second))
    both = alone + weight * F.cross_entropy(z1, z2.argmax(1))
    torch.testing.assert_close(losses["pseudo"], both)
    everything = CPS(encoder(), weight=0.1, pseudo="all")
    everything.prepare(source())
    assert everything.losses(views, HALF)["pseudo"] != losses["pseudo"]


def test_two_networks_begin_differently_but_pretrained_ones_alike():
    method = made(CPS)
    pairs = zip(method.encoder.parameters(), method.second[0].parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    learned = encoder()
    learned.card.learned = True
    method = CPS(learned)
    method.prepare(source())
    pairs = zip(method.encoder.parameters(), method.second[0].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(method.head.weight, method.second[1].weight)


def test_the_mean_teacher_starts_as_the_student_follows_it_and_gets_no_gradient(monkeypatch):
    method = made(MeanTeacherSegmentation)
    views = views_of(method)
    monkeypatch.setattr(
        "tacit.methods.segmentation.mean_teacher_segmentation.gaussian_noise", lambda x, rng: x
    )
    losses = method.losses(views, HALF)
    assert losses["consistency"].item() == pytest.approx(0, abs=1e-12)
    assert not any(p.requires_grad for p in method.teacher.parameters())
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(0.1)
    assert method.losses(views, HALF)["consistency"].item() > 0
    method.after_step(Step(0, 100, 0, 1))  # a = min(1 - 1, ema): all of it
    for mine, theirs in zip(method.encoder.parameters(), method.teacher[0].parameters(), strict=True):
        assert torch.equal(mine, theirs)
    before = [p.clone() for p in method.teacher[0].parameters()]
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(1.0)
    method.after_step(Step(9, 1000, 0, 1))  # a = 0.9
    for old, new in zip(before, method.teacher[0].parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1)


def test_the_consistency_is_the_mean_over_voxels_and_classes():
    method = made(MeanTeacherSegmentation)
    views = views_of(method)
    with torch.no_grad():
        method.teacher[1].bias.add_(torch.tensor([1.0, -1.0]))
    student = method.logits(views.both)[2:].softmax(1)
    teacher = method.teach(views, "noise").softmax(1)
    expected = 0.1 * math.exp(-1.25) * ((student - teacher) ** 2).sum() / student.numel()
    torch.testing.assert_close(method.losses(views, HALF)["consistency"], expected)


def test_what_is_kept_is_the_student_or_the_teacher():
    for keep, index in (("student", 0), ("teacher", 1)):
        method = made(MeanTeacherSegmentation, keep=keep)
        with torch.no_grad():
            method.teacher[1].bias.fill_(7.0)
        x = torch.rand(1, 1, *PATCH)
        before = dense_logits(method.network, x)
        method.finish(source())
        assert (method.head.bias == 7.0).all().item() == bool(index)
        torch.testing.assert_close(method.logits(x), before)


def test_ua_mt_follows_where_the_teacher_is_sure():
    method = made(UAMT)
    views = views_of(method)
    with torch.no_grad():
        method.teacher[1].weight.zero_()
        method.teacher[1].bias.zero_()
    losses = method.losses(views, HALF)
    assert losses["consistency"] == 0  # a teacher that is sure of nothing
    assert method.notes["sure"] == 0
    with torch.no_grad():
        method.teacher[1].bias.copy_(torch.tensor([6.0, -6.0]))
    losses = method.losses(views, HALF)
    assert method.notes["sure"] == 1
    student = method.logits(views.both)[2:].softmax(1)
    target = method.teach(views, "noise").softmax(1)
    expected = 0.1 * math.exp(-1.25) * ((student - target) ** 2).sum() / (2 * student[:, 0].numel())
    torch.testing.assert_close(losses["consistency"], expected)


def test_the_passes_of_ua_mt_see_different_noise():
    method = made(UAMT, passes=2)
    views = views_of(method)
    first, second = method.teach(views, "pass 0"), method.teach(views, "pass 1")
    assert not torch.equal(first, second)
    torch.testing.assert_close(method.uncertain(views), (first.softmax(1) + second.softmax(1)) / 2)


def test_urpc_supervises_all_scales_and_equal_scales_agree(monkeypatch):
    method = made(URPC)
    views = views_of(method)
    assert [z.shape for z in method.scales(views.labelled)] == [(2, 2, *PATCH)] * 4
    torch.testing.assert_close(method.scales(views.labelled)[-1], method.logits(views.labelled))
    same = torch.randn(4, 2, *PATCH)
    monkeypatch.setattr(method, "scales", lambda x: [same] * 4)
    losses = method.losses(views, HALF)
    assert losses["consistency"].item() == pytest.approx(0, abs=1e-7)
    torch.testing.assert_close(losses["supervised"], segmentation_loss(same[:2], views.target))


def test_urpc_drops_before_its_heads_only_while_learning():
    method = URPC(encoder(3))
    method.prepare(source())
    x = torch.rand(1, 1, *PATCH)
    method.train()
    assert not torch.equal(method.scales(x)[0], method.scales(x)[0])
    method.eval()
    assert torch.equal(method.scales(x)[0], method.scales(x)[0])


def test_tracoco_cuts_two_patches_that_share_voxels():
    method = made(TraCoCo)
    moved = 0
    for seed in range(20):
        cut = method.cut(sample_of(Counting((14, 13, 20))), np.random.default_rng(seed))
        offset = cut.extra["offset"].tolist()
        main, second = cut.data[0], cut.extra["second"][0]
        ours = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, PATCH, strict=True))
        theirs = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, PATCH, strict=True))
        assert torch.equal(main[ours], second[theirs])
        assert all(abs(o) <= n // 2 for o, n in zip(offset, PATCH, strict=True))
        torch.testing.assert_close(cut.target.float(), main)
        moved += any(offset)
    assert moved > 15
    alone = made(TraCoCo, translation=0.0, entropy=0.0)
    volume = Counting((14, 13, 20))
    assert not alone.cut(sample_of(volume, UNLABELLED), np.random.default_rng(0)).extra
    assert volume.reads == 1


def test_both_patches_of_a_volume_have_one_brightness():
    method = made(TraCoCo, noise=0.0, cutmix="none")
    given = batch()
    for part in (given.unlabelled, given.labelled):
        part.extra["second"] = part.data
    views = method.views(given, Rng.of(0)("views", 1), HALF)
    torch.testing.assert_close(views.drawn["second"], views.both)
    ratio = (views.unlabelled / given.unlabelled.data)[given.unlabelled.data < 0.7]
    assert not torch.allclose(ratio, torch.ones_like(ratio), atol=1e-3)


def test_tracoco_agrees_with_itself_where_nothing_was_moved():
    method = made(TraCoCo, noise=0.0, cutmix="none", brightness=0.0, entropy=0.0)
    given = batch(offset=(0, 0, 0))
    for part in (given.unlabelled, given.labelled):
        part.extra["second"] = part.data
    losses = method.losses(method.views(given, Rng.of(0)("views", 1), HALF), HALF)
    assert losses["translation"].item() == pytest.approx(0, abs=1e-7)
    assert gradient(losses["translation"], method.encoder.parameters()).abs().max() < 1e-6


def test_a_network_without_surroundings_is_consistent_under_any_offset():
    class Pointwise(nn.Module):
        """One voxel wide."""

        divisor, pyramid_features, num_features = 1, (4,), 4

        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Conv3d(1, 4, 1), nn.Tanh())

        def forward_pyramid(self, x):
            return [self.net(x)]

    for wide in (False, True):
        net = Pointwise()
        if wide:
            net.net[0] = nn.Conv3d(1, 4, 3, padding=1)
        with_card(net, EncoderCard("", VolumeForm.make(1, patch=PATCH)))
        method = TraCoCo(net, noise=0.0, cutmix="none", brightness=0.0, entropy=0.0)
        method.prepare(source())
        cut = [method.cut(sample_of(Counting((14, 13, 20))), np.random.default_rng(s)) for s in range(4)]
        x, x2 = (torch.stack(v) / 2000 for v in ([c.data for c in cut], [c.extra["second"] for c in cut]))
        offset = torch.stack([c.extra["offset"] for c in cut])
        assert offset.any()
        found = method._translated(
            dense_logits(method.networks[0], x), dense_logits(method.networks[0], x2), offset
        )["translation"].item()
        assert (found > 1e-7) == wide


def test_the_networks_of_tracoco_share_no_gradient():
    method = made(TraCoCo)
    views = views_of(method)
    first, second = method.networks
    total = sum(method.terms(0, first, second, views).values())
    total.backward()
    assert all(p.grad is None for p in method.second.parameters())
    assert all(p.grad is not None for p in method.encoder.parameters())


def test_only_the_second_network_learns_from_mixed_volumes():
    method = made(TraCoCo, noise=0.0)
    views = views_of(method)
    x, u = views.both, torch.randn(4, 2, *PATCH)
    same_x, same_u = method._mixed(0, x, u, views)
    assert torch.equal(same_x, x)
    assert torch.equal(same_u, u)
    mixed, target = method._mixed(1, x, u, views)
    box, partner = views.drawn["box"], views.drawn["partner"]
    assert torch.equal(mixed, apply_cutmix(x, box, partner))
    assert torch.equal(target, apply_cutmix(u, box, partner))


def test_the_official_terms_have_the_released_scale():
    official, correct = (made(TraCoCo, compat=c, cutmix="none") for c in ("official", "correct"))
    main, second = torch.randn(4, 2, *PATCH), torch.randn(4, 2, *PATCH)
    offset = torch.tensor([[1, 0, 0]] * 4)
    terms = official._translated(main, second, offset)
    a, b = main[:, :, :-1].clamp(1e-6, 1), second[:, :, 1:].clamp(1e-6, 1)
    log_a, log_b = a.log_softmax(2), b.log_softmax(2)  # along x
    kl = (log_b.exp() * (log_b - log_a)).flatten(1).mean(1).sum()
    torch.testing.assert_close(terms["translation"], 0.3 * kl)
    p = torch.cat([a, b]).softmax(1)
    torch.testing.assert_close(terms["entropy"], 0.1 * (p * p.log()).sum(1).mean())
    terms = correct._translated(main, second, offset)
    a, b = main[:, :, :-1], second[:, :, 1:]
    kl = (b.softmax(1) * (b.log_softmax(1) - a.log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(terms["translation"], 0.6 * kl)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.0), (1, 0.00695), (80, 0.06005), (160, 0.28650), (320, 1.0), (5000, 1.0)]
)
def test_the_ramp_of_tracoco(step, expected):
    method = made(TraCoCo)
    method.labelled_volumes = 16  # 8 steps of 2 a pass, 40 passes
    assert method.rise(2, Step(step, 9000, 0, 1)) == pytest.approx(expected, abs=5e-6)


class ModeSpy:
    """Remembers in which mode an encoder was asked."""

    def __init__(self, encoder):
        self.encoder, self.ask, self.modes = encoder, encoder.forward_pyramid, []

    def __call__(self, x):
        self.modes.append(self.encoder.training)
        return self.ask(x)


def test_the_teacher_of_tracoco_learns_in_training_mode_unless_told(monkeypatch):
    for teacher_eval in (False, True):
        method = made(TraCoCo, teacher_eval=teacher_eval)
        encoder = method.second[0]
        spied = ModeSpy(encoder)
        monkeypatch.setattr(encoder, "forward_pyramid", spied)
        method.train()
        method._teach(method.networks[1], torch.rand(1, 1, *PATCH))
        modes = spied.modes
        assert modes == [not teacher_eval]
        assert encoder.training


def test_views_are_a_function_of_seed_and_step():
    method = made(TraCoCo)
    once, again = (method.views(batch(), Rng.of(0)("views", 3), HALF) for _ in range(2))
    other = method.views(batch(), Rng.of(0)("views", 4), HALF)
    assert torch.equal(once.both, again.both)
    assert torch.equal(once.drawn["box"], again.drawn["box"])
    assert not torch.equal(once.both, other.both)
    first, second = (method.losses(v, HALF) for v in (once, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_batch_without_masks_is_refused():
    method = made(CPS)
    with pytest.raises(UsageError, match="learns from masks"):
        method.views(Batch(Samples(torch.rand(2, 1, *PATCH), torch.arange(2))), Rng.of(0), HALF)


def test_the_supervised_views_are_the_patches():
    method = made(SupervisedSegmentation)
    given = batch()
    views = method.views(given, Rng.of(0), HALF)
    assert isinstance(views, Views)
    assert torch.equal(views.both, torch.cat([given.labelled.data, given.unlabelled.data]))
    assert isinstance(method.cut(sample_of(Counting((9, 9, 17))), np.random.default_rng(0)), Sample)
