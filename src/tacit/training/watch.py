"""What happens beside learning after a step: measuring, guarding, writing, showing, saving, stopping."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch.nn.utils import get_total_norm

from tacit.errors import Interrupted, TacitError
from tacit.evaluation.batch_statistics import Modes
from tacit.stopping import interrupted
from tacit.tasks.online import OnlineProbe
from tacit.training.checkpoint import Checkpoint
from tacit.training.forecast import Forecast, duration
from tacit.training.guard import Facts, Guard, Trouble
from tacit.training.keeper import SAVE_EVERY, Keeper, resumable
from tacit.training.learner import Learner
from tacit.training.metrics import Metrics
from tacit.training.optimise import learning_rate
from tacit.training.options import OnCollapse
from tacit.training.outputs import Outputs
from tacit.training.progress import ProgressBar
from tacit.training.resources import gib, memory_is_tight, options_that_save_memory, peak_memory, state_bytes
from tacit.training.run import Run, is_main_process

_ROWS = 1000  # of metrics.csv per run, at most, beside those at the ends of epochs
_PROBES = 50  # probes per run, at most
_LOOK_SHARE = 0.01  # of the run's work, at most, goes into looks at its health between probes


class Watch(Callback):
    """Looks at the learner after each optimiser step.

    Its hooks name their module's type: a `Learner` is the only one there is (hence the ignored overrides).
    """

    def __init__(
        self,
        run: Run,
        learner: Learner,
        probe: OnlineProbe,
        bar: ProgressBar,
        *,
        resumed: Checkpoint | None = None,
        on_collapse: OnCollapse = "stop",
        save_every: float = SAVE_EVERY,
    ) -> None:
        plan = learner.plan
        self.run, self.probe, self.bar = run, probe, bar
        self.on_collapse = on_collapse
        self.keeper = Keeper(run, save_every)
        self.guard = Guard(_facts(learner), resumed.guard if resumed else None)
        self.outputs = Outputs(learner.method)
        if is_main_process():
            self.metrics = Metrics(run.metrics_file, start=learner.start, score=probe.score)
        self.steps_per_epoch = plan.steps_per_epoch
        self.row_every = max(1, plan.total // _ROWS)
        self.probe_every = max(1, plan.epochs // _PROBES)
        self.look_every = _look_every(len(probe.health), plan.batch_size)
        self.best = resumed.probe if resumed else float("-inf")
        self.signal: int | None = None
        self.failure: TacitError | None = None
        self._warned: set[str] = set()
        self._seen = learner.start
        self._row_at = (learner.start, time.monotonic())
        self._look_seconds = 0.0
        self._looked_at = -1
        self._foretold = False
        self._apart = False

    def on_train_batch_end(self, trainer: Trainer, learner: Learner, *args: Any) -> None:  # type: ignore[override]
        """Once per optimiser step."""
        done = learner.index
        if done == self._seen:
            return
        self._seen = done
        self.forecast.end()
        if trainer.is_global_zero:
            try:
                self._after_step(learner, done)
            except TacitError as error:  # told when all processes have left the training loop
                self.failure = error
        # all processes stop after the same step, also if only one got the signal or cannot go on
        stopping = self.signal is not None or self.failure is not None
        trainer.should_stop = trainer.strategy.reduce_boolean_decision(stopping, all=False)
        self.forecast.begin()

    def _after_step(self, learner: Learner, done: int) -> None:
        plan = learner.plan
        at_epoch = done % plan.steps_per_epoch == 0
        epoch = done // plan.steps_per_epoch
        probing = at_epoch and self._probed(epoch, plan.epochs)
        looking = probing or done % self.look_every == 0
        saving = learner.done or self.signal is not None or self.keeper.due(at_epoch=at_epoch)
        if looking or saving or done % self.row_every == 0:
            self._write_row(learner, done, looking, probing)
        self.bar.at(done, self._epoch(done))
        if probing:
            self.bar.line()
        else:
            self.bar.line_if_late()
        if saving:
            self._save(learner)
        if self.forecast.ready and not self._foretold:
            self._foretell(learner, done)
            self._foretold = True

    def _probed(self, epoch: int, epochs: int) -> bool:
        """Whether this epoch, counted from 1, ends with a probe."""
        return epoch % self.probe_every == 0 or epoch == epochs

    def _epoch(self, done: int) -> int:
        """The epoch that the last of `done` steps belongs to, counted from 1."""
        return (done - 1) // self.steps_per_epoch + 1

    def _write_row(self, learner: Learner, done: int, looking: bool, probing: bool) -> None:
        now = time.monotonic()
        before, then = self._row_at
        rate = (done - before) * learner.plan.batch_size / max(now - then, 1e-9)
        reading, means = learner.pulse.read(), learner.take_means()
        loss = means.get("loss", 0.0)
        self._react(self.guard.numbers(done, reading, loss, _norm(learner), learner.plan.accumulate))
        values: dict[str, float] = {
            "step": done,
            "epoch": self._epoch(done),
            "lr": learner.trainer.optimizers[0].param_groups[0]["lr"],
            "samples_per_second": rate,
            **means,
            "grad_norm": reading.gradient,
        }
        if done == 1:
            self.guard.begin(self.outputs.std())
        if looking:
            values |= self._look(learner, probing)
        with resumable(self.run):
            self.metrics.write(values)
        self.bar.show(values)
        if looking:
            self._looked_at = done
            if "effective_rank" in values:
                self._react(self.guard.collapse(done, values, self.outputs.std(), loss))
            if self.guard.healthy:
                self.keeper.confirm()
        if values.get(self.probe.score, float("-inf")) > self.best:
            self.best = values[self.probe.score]
            self.keeper.save_best(self._checkpoint(learner))
        self._row_at = (done, time.monotonic())

    def _look(self, learner: Learner, probing: bool) -> dict[str, float]:
        if probing:
            values = self.probe.measure(learner.method.encoder, learner.device)
            self._compare_modes(values, learner)
            return values
        began = time.monotonic()
        values = self.probe.look(learner.method.encoder, learner.device)
        self._look_seconds = time.monotonic() - began
        return values

    def _compare_modes(self, values: dict[str, float], learner: Learner) -> None:
        """Say once where predictions differ much from what training sees, at two probes in a row."""
        if "evaluation_mode" not in values or learner.index < self.probe.settled_after:
            return
        modes = Modes(values["evaluation_mode"], values["training_mode"], self.probe.pictures)
        if modes.apart and self._apart and not learner.done:
            trouble = Trouble(
                "statistics",
                f"labelled training pictures are at {modes}: BatchNorm's running statistics do not fit",
                "they will be estimated again at the end; if that does not help, pass weaker views",
            )
            self._warn(trouble)
        self._apart = modes.apart

    def _react(self, trouble: Trouble | None) -> None:
        """Stop, or say it once."""
        if trouble is None:
            return
        if trouble.fatal or self.on_collapse == "stop":
            kept = self.keeper.fall_back(spoilt=not trouble.fatal or not self.guard.healthy)
            if not trouble.fatal:
                kept += f"; to go on with it: {self.run.resuming('--on-collapse warn')}"
            raise TacitError(f"{trouble.seen}; {trouble.mend}; {kept}")
        self._warn(trouble)

    def _warn(self, trouble: Trouble) -> None:
        if trouble.kind not in self._warned:
            self._warned.add(trouble.kind)
            self.bar.warn(f"warning: {trouble.seen}; {trouble.mend}")

    def _save(self, learner: Learner) -> None:
        self.keeper.save(self._checkpoint(learner))
        if self.guard.healthy and self._looked_at == learner.index:
            self.keeper.confirm()

    def _checkpoint(self, learner: Learner) -> Checkpoint:
        """The state as it can be saved; one that is not finite never is."""
        state = learner.method.state_dict()
        numbers = [value for value in state.values() if value.is_floating_point() and value.numel()]
        if not math.isfinite(get_total_norm(numbers, norm_type=torch.inf).item()):
            self._react(self.guard.spoilt(learner.index))
        return Checkpoint(
            step=learner.index,
            method=state,
            optimizer=learner.trainer.optimizers[0].state_dict(),
            probe=self.best,
            guard={**self.guard.state, **learner.pulse.state()},
        )

    def _foretell(self, learner: Learner, done: int) -> None:
        """Say how long it will take, and whether memory is tight."""
        plan, device = learner.plan, learner.device
        left = plan.total - done
        to_end = range(done // plan.steps_per_epoch + 1, plan.epochs + 1)
        probes = sum(self._probed(epoch, plan.epochs) for epoch in to_end)
        looks = left // self.look_every * self._look_seconds
        seconds = (
            self.forecast.seconds(left) + looks + probes * self.probe.passes * self._pass_seconds(learner)
        )
        self.bar.say(
            f"forecast: about {duration(seconds)} left for steps {done + 1:,} to {plan.total:,}; "
            f"peak memory {gib(peak_memory(device))}; a checkpoint takes {gib(state_bytes(learner.method))}"
        )
        if memory_is_tight(device):
            full = learner.trainer.precision == "32-true"
            self.bar.say(
                "note: memory is nearly full; if it does not suffice, pass "
                + options_that_save_memory(learner.method, plan, device, full=full)
            )

    def _pass_seconds(self, learner: Learner) -> float:
        """Seconds that one sample takes through the network: of a look, or a third of its share of a step."""
        if len(self.probe.health):
            return self._look_seconds / len(self.probe.health)
        labelled = learner.labelled.batch_size if learner.labelled else 0
        return self.forecast.seconds(1) / (3 * (learner.plan.batch_size + labelled))

    def on_train_start(self, trainer: Trainer, learner: Learner) -> None:  # type: ignore[override]
        """From here on SIGINT and SIGTERM end the run after the step under way; a second one at once.

        Here and not earlier, because Lightning installs handlers of its own before.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._stop)
        if trainer.is_global_zero and self.guard.fresh:
            self.guard.begin(self._look(learner, probing=False))
        self.guard.grown(learner.start, _norm(learner))
        self.forecast = Forecast(learner.device)
        self.forecast.begin()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Puts the handlers of SIGINT and SIGTERM back at the end of the block.

        Raises:
            TacitError: at the end of the block, if the run could not go on.
            Interrupted: if a signal came; the exit code is 130 or 143.
        """
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        except SystemExit as leaving:  # what Lightning makes of an interrupt that it meets itself
            if not isinstance(leaving.__context__, KeyboardInterrupt) or not is_main_process():
                raise
            raise self._stopped(self.signal or leaving.__context__) from None
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)
        if self.failure is not None:
            raise self.failure
        if self.signal is not None and is_main_process():
            raise self._stopped(self.signal)

    def _stopped(self, why: BaseException | int) -> Interrupted:
        how = self.run.resuming() if self.run.begun else "the same command"
        return interrupted(why, f"stopped; go on with: {how}")


def _norm(learner: Learner) -> float:
    return get_total_norm(list(learner.method.parameters())).item()


def _look_every(images: int, batch_size: int) -> int:
    """Steps between looks: a look is one forward pass, a step costs three at least (forward, backward)."""
    if not images:
        return sys.maxsize
    return max(1, math.ceil(images / (_LOOK_SHARE * 3 * batch_size)))


def _facts(learner: Learner) -> Facts:
    recipe = learner.recipe
    return Facts(
        lr=learning_rate(recipe),
        clip=recipe.clip,
        batch_size=recipe.batch_size,
        temperature=learner.method.temperature,
    )
