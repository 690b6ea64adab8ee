"""The guard: what it must see, what it must not, and what it leaves behind."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tacit
from tacit.cli.main import main
from tacit.encoders.heads import mlp
from tacit.methods.contrastive.simclr import SimCLR
from tacit.methods.parts.two_views import TwoViews
from tacit.methods.recipe import Recipe
from tacit.training.checkpoint import Checkpoint
from tacit.training.guard import Facts, Guard
from tacit.training.pulse import Pulse, Reading
from tacit.training.run import Run
from tacit.views.image import Augment

FACTS = Facts(lr=0.3, clip=None, batch_size=64)
GOOD = {"effective_rank": 40.0, "feature_std": 0.6}
SAME = {"effective_rank": 30.0, "feature_std": 0.01}


class Attract(TwoViews):
    """Two views attract and nothing keeps them apart: no negatives, no predictor, no stop-gradient."""

    recipe = Recipe(
        optimizer="adam",
        lr=5e-3,
        lr_scaling="none",
        schedule="constant",
        batch_size=16,
        epochs=40,
        warmup=0.0,
        source="a test",
    )

    def __init__(self, encoder: nn.Module, *, augment: Augment = Augment()):
        super().__init__(encoder, augment)
        self.project = mlp([self.num_features, self.num_features, 32])

    def losses(self, views, step):
        a, b = (F.normalize(self.project(self.encoder(view)), dim=1) for view in views)
        return {"distance": (a - b).square().sum(1).mean()}


COLLAPSING = [
    "fit",
    f"{__name__}:Attract",
    "--encoder",
    "tacit/convnet?width=8",
    "--device",
    "cpu",
    "--quiet",
]


@pytest.fixture(scope="module")
def stopped(jpgs, tmp_path_factory):
    """A run that collapsed and was stopped: its folder, exit code and standard error."""
    import contextlib
    import io

    out, err = tmp_path_factory.mktemp("collapse") / "x", io.StringIO()
    with contextlib.redirect_stderr(err):
        code = main([*COLLAPSING, "--data", str(jpgs), "--save-every", "0", "--out", str(out)])
    return out, code, err.getvalue()


def test_a_collapsing_run_is_stopped_and_says_why(stopped):
    out, code, err = stopped
    assert code == 1
    (line,) = err.strip().splitlines()
    assert "collapse: since step" in line
    assert "the outputs of 'project' are nearly the same for all images (std 0.0" in line
    assert "a constant output satisfies this loss" in line
    assert "stop-gradient" in line
    assert f"the last good checkpoint is {out}/checkpoints/last.pt (step " in line
    assert f"tacit fit test_guard:Attract --resume --on-collapse warn --out {out}" in line
    assert not (out / "encoder.json").exists()


def test_the_checkpoint_that_is_kept_is_from_before_the_collapse(stopped):
    out, _, err = stopped
    since = int(err.split("since step ")[1].split()[0])
    assert Checkpoint.load(out / "checkpoints" / "last.pt").step < since
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["last.pt"]


def test_with_warn_it_goes_on_to_the_end_and_says_it_once(stopped, capfd):
    out, _, _ = stopped
    words = ["fit", "test_guard:Attract", "--resume", "--on-collapse", "warn", "--quiet", "--out", str(out)]
    assert main(words) == 0
    err = capfd.readouterr().err
    assert err.count("warning: collapse: since step") == 1
    assert Run(out).finished
    assert int(Run(out).metrics()[-1]["step"]) == 160
    assert Run(out).good.is_file()  # what was there before the collapse is still there


HEALTHY = {
    "simclr": {},
    "dcl": {},
    "dclw": {},
    "moco": {"queue": 40},
    "nnclr": {"queue": 40, "hidden": 32, "prediction_hidden": 32},
}


@pytest.mark.parametrize("method", HEALTHY)
def test_healthy_runs_are_left_alone(method, jpgs, tmp_path):
    run = tacit.fit(
        method,
        jpgs,
        encoder="tacit/convnet?width=8",
        options=HEALTHY[method],
        batch_size=16,
        epochs=15,
        device="cpu",
        quiet=True,
        out=tmp_path / "x",
    )
    assert run.finished
    assert not run.good.exists()
    assert all(math.isfinite(float(row["grad_norm"])) for row in run.metrics())


def test_exploding_parameters_stop_the_run(jpgs, tmp_path):
    with pytest.raises(
        tacit.TacitError, match=r"the parameters explode.*pass a lower --lr \(its peak is 1e\+03"
    ):
        tacit.fit(
            "dcl",
            jpgs,
            encoder="tacit/convnet?width=8",
            optimizer="adam",
            lr=1e3,
            lr_scaling="none",
            warmup=0.0,
            batch_size=16,
            epochs=10,
            device="cpu",
            quiet=True,
            out=tmp_path / "x",
        )


class Poisoned(SimCLR):
    """SimCLR whose third step has a gradient, but no loss, that is not a number."""

    def losses(self, views, step):
        losses = super().losses(views, step)
        if step.index == 2:
            next(self.project.parameters()).register_hook(lambda gradient: gradient * float("nan"))
        return losses


def test_a_state_that_is_not_finite_is_never_saved(jpgs, tmp_path):
    quick = {"encoder": "tacit/convnet?width=8", "batch_size": 16, "epochs": 3, "device": "cpu"}
    with pytest.raises(tacit.TacitError, match="not finite") as error:
        tacit.fit(
            f"{__name__}:Poisoned",
            jpgs,
            **quick,
            quiet=True,
            save_every=0,
            on_collapse="warn",  # what is not a number stops all the same
            out=tmp_path / "x",
        )
    assert "since step 3" in str(error.value)
    state = Checkpoint.load(tmp_path / "x" / "checkpoints" / "last.pt")
    assert state.step == 2
    assert all(torch.isfinite(value).all() for value in state.method.values())


def look(guard, step, health, outputs=(), loss=1.0):
    return guard.collapse(step, health, dict(outputs), loss)


def test_collapse_must_last():
    guard = Guard(FACTS)
    guard.begin(GOOD)
    assert look(guard, 100, SAME) is None
    assert not guard.healthy
    assert look(guard, 200, GOOD) is None  # it recovered: counting begins anew
    assert guard.healthy
    assert look(guard, 300, SAME) is None
    assert look(guard, 310, SAME) is None
    assert look(guard, 320, SAME) is None  # three looks, but over 20 steps only
    trouble = look(guard, 350, SAME)
    assert trouble is not None
    assert "since step 300" in trouble.seen
    assert "std 0.01, 0.6 at best" in trouble.seen
    assert not trouble.fatal


def test_a_head_answers_for_the_encoder():
    guard = Guard(FACTS)
    guard.begin(GOOD | {"project": 0.8})
    assert all(look(guard, step, SAME, {"project": 0.2}) is None for step in range(0, 1000, 100))
    constant = [look(guard, step, GOOD, {"project": 0.02}) for step in (1000, 1100, 1200)][-1]
    assert "the outputs of 'project' are nearly the same" in constant.seen
    assert "the encoder's features" not in constant.seen


def test_a_resumed_guard_goes_on_counting():
    guard = Guard(FACTS)
    guard.begin(GOOD)
    assert look(guard, 100, SAME) is None
    assert look(guard, 130, SAME) is None
    again = Guard(FACTS, guard.state)
    assert not again.fresh
    assert look(again, 160, SAME) is not None


def test_an_encoder_born_with_nearly_equal_features_may_learn():
    born = {"effective_rank": 1.2, "feature_std": 0.02}
    guard = Guard(FACTS)
    guard.begin(born)
    assert all(look(guard, step, born) is None for step in range(0, 1000, 100))
    assert guard.healthy
    worse = {"effective_rank": 1.2, "feature_std": 0.001}
    assert [look(guard, step, worse) is None for step in (1000, 1100, 1200)] == [True, True, False]


def test_constant_from_the_start_is_a_collapse_too():
    dead = {"effective_rank": 0.0, "feature_std": 0.0}
    guard = Guard(FACTS)
    guard.begin(dead)
    assert [look(guard, step, dead) is None for step in (100, 200, 300)] == [True, True, False]


def test_the_mend_depends_on_the_loss():
    def mend(facts, first, now):
        guard = Guard(facts)
        guard.begin(GOOD)
        guard.numbers(1, Reading(), first, 1.0)
        return [look(guard, step, SAME, loss=now) for step in (100, 200, 300)][-1].mend

    assert "stop-gradient" in mend(FACTS, 1.0, 0.001)
    assert "lower --lr (its peak is 0.3)" in mend(FACTS, 1.0, 1.2)
    with_temperature = Facts(lr=0.3, clip=None, batch_size=64, temperature=0.1)
    assert "--method.temperature (now 0.1)" in mend(with_temperature, 1.0, 0.9)
    assert "--batch-size (now 64)" in mend(with_temperature, 1.0, 0.9)


def test_features_on_one_line():
    guard = Guard(FACTS)
    guard.begin(GOOD)
    line = {"effective_rank": 1.1, "feature_std": 0.9}
    trouble = [look(guard, step, line) for step in (100, 200, 300)][-1]
    assert "lie on one line (effective rank 1.1, 40 at best)" in trouble.seen


def test_growing_parameters_by_hand():
    guard = Guard(FACTS)
    assert guard.numbers(1, Reading(), 1.0, 10.0) is None
    assert guard.numbers(11, Reading(), 1.0, 5000.0) is None  # a jump of ten steps can still settle
    assert "from 10 to 5e+03 since step 1" in guard.numbers(21, Reading(), 1.0, 5000.0).seen
    slow = Guard(FACTS)  # the same growth over a long run is what some optimisers do
    assert all(slow.numbers(step, Reading(), 1.0, 1.01**step) is None for step in range(0, 2000, 10))


def pulse_of(norms):
    pulse, weight = Pulse(), nn.Parameter(torch.zeros(2))
    for norm in norms:
        weight.grad = torch.tensor([norm * 0.6, norm * 0.8])
        pulse.gradient([weight])
    return pulse


def test_huge_gradients_in_a_row_explode():
    usual = [1.0] * 10
    assert pulse_of([*usual, *[2e4] * 19]).read().streak == 19
    reading = pulse_of([*usual, 5.0, *[2e4] * 20]).read()
    assert (reading.streak, reading.usual) == (20, 1.0)
    assert "since step 12" in Guard(FACTS).numbers(31, reading, 1.0, 1.0).seen
    assert pulse_of([*usual, *[2e4] * 15, 1.0, *[2e4] * 15]).read().streak == 15
    assert pulse_of([*usual, *[9e3] * 30]).read().streak == 0


def test_the_pulse_tells_since_when():
    pulse = pulse_of([1.0, 2.0, math.inf, math.nan])
    for total in (1.0, 1.0, math.nan, math.nan):
        pulse.loss(torch.tensor(total))
    reading = pulse.read()
    assert (reading.bad_losses, reading.bad_gradients) == (2, 2)
    trouble = Guard(FACTS).numbers(4, reading, math.nan, 1.0)
    assert trouble.fatal
    assert trouble.seen == "the loss is nan since step 3"
    only = Guard(FACTS).numbers(4, reading._replace(bad_losses=0), 1.0, 1.0)
    assert only.seen == "the gradient is not finite since step 3"
    assert pulse.read().bad_losses == 0


def test_a_resumed_pulse_knows_what_is_usual():
    again = Pulse.resumed(pulse_of([1.0] * 12).state())
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([2e4, 0.0])
    again.gradient([weight])
    assert again.read().streak == 1


@pytest.fixture
def one_nan(photos, tmp_path):
    """48 labelled images in an archive, the 18th with one pixel that is not a number."""
    images = np.stack([photos["china"][i : i + 24, 3 * i : 3 * i + 24] for i in range(48)]).astype(np.float32)
    images[17, 3, 3, 0] = np.nan
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(48) // 24)
    return tmp_path / "x.npz"


def test_one_image_that_is_not_a_number_stops_or_is_skipped(one_nan, tmp_path, capsys):
    words = ["fit", "dcl", "--data", str(one_nan), "--encoder", "tacit/convnet?width=8", "--batch-size", "16"]
    words += ["--epochs", "1", "--device", "cpu", "--quiet", "--out", str(tmp_path / "run")]
    assert main(words) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "000017: it holds NaN or infinite values" in line
    assert "--on-bad-file skip" in line
    assert main([*words, "--on-bad-file", "skip"]) == 0
    assert "000017,it holds NaN" in (tmp_path / "run" / "skipped.csv").read_text()
    data = Run(tmp_path / "run").settings()["record"]["data"]
    assert (data["samples"], data["labelled"], data["skipped"]) == (47, 47, 1)
    source = tacit.open_source(one_nan, on_bad_file="skip")
    assert source.labels.tolist() == [0] * 23 + [1] * 24  # the others keep their labels
