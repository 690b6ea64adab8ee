"""What happens beside learning after a step: measuring, writing, showing, saving, stopping."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, Trainer

from tacit.errors import TacitError
from tacit.evaluation.online import OnlineProbe
from tacit.training.checkpoint import Checkpoint
from tacit.training.learner import Learner
from tacit.training.metrics import Metrics
from tacit.training.progress import ProgressBar
from tacit.training.run import Run, is_main_process

_ROWS = 1000  # of metrics.csv per run, at most, beside those at the ends of epochs
_PROBES = 50  # probes per run, at most
_SAVE_AT_EPOCH = 20.0  # seconds since the last checkpoint after which an epoch's end writes one
_SAVE_ANYWAY = 300.0  # seconds after which any step does


class Interrupted(TacitError):
    """The user or the system asked the run to stop; it was saved."""


class Watch(Callback):
    """Looks at the learner after each optimiser step.

    Its hooks name their module's type: a `Learner` is the only one there is (hence the ignored overrides).
    """

    def __init__(
        self, run: Run, learner: Learner, probe: OnlineProbe, bar: ProgressBar, *, best: float
    ) -> None:
        plan = learner.plan
        self.run, self.probe, self.bar = run, probe, bar
        if is_main_process():
            self.metrics = Metrics(run.metrics_file, start=learner.start)
        self.row_every = max(1, plan.total // _ROWS)
        self.probe_every = max(1, plan.epochs // _PROBES)
        self.best = best
        self.signal: int | None = None
        self._seen = learner.start
        self._row_at = (learner.start, time.monotonic())
        self._saved_at = float("-inf")  # the first step saves: from then on the folder is a run to go on with

    def on_train_batch_end(self, trainer: Trainer, learner: Learner, *args: Any) -> None:  # type: ignore[override]
        """Once per optimiser step."""
        done = learner.index
        if done == self._seen:
            return
        self._seen = done
        if trainer.is_global_zero:
            self._after_step(learner, done)
        # all processes stop after the same step, also if only one got the signal
        trainer.should_stop = trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)

    def _after_step(self, learner: Learner, done: int) -> None:
        plan = learner.plan
        at_epoch = done % plan.steps_per_epoch == 0
        epoch = done // plan.steps_per_epoch
        probing = at_epoch and (epoch % self.probe_every == 0 or learner.done)
        passed = time.monotonic() - self._saved_at
        ending = learner.done or self.signal is not None
        saving = ending or passed > _SAVE_ANYWAY or (at_epoch and passed > _SAVE_AT_EPOCH)
        if probing or saving or done % self.row_every == 0:
            self._write_row(learner, done, probing)
        if probing:
            self.bar.line(done, epoch, plan.epochs)
        if saving:
            self.save(learner)

    def _write_row(self, learner: Learner, done: int, probing: bool) -> None:
        now = time.monotonic()
        before, then = self._row_at
        rate = (done - before) * learner.plan.batch_size / max(now - then, 1e-9)
        means = learner.take_means()
        if not math.isfinite(means.get("loss", 0.0)):
            raise TacitError(
                f"the loss is {means['loss']} at step {done}: a lower --lr or --clip 1 may help; "
                f"the last good checkpoint is in {self.run.last.parent}"
            )
        values: dict[str, float] = {
            "step": done,
            "epoch": (done - 1) // learner.plan.steps_per_epoch + 1,
            "lr": learner.trainer.optimizers[0].param_groups[0]["lr"],
            "samples_per_second": rate,
            **means,
        }
        if probing:
            values |= self._measure(learner)
        self.metrics.write(values)
        self.bar.update(done, values)
        self._row_at = (done, time.monotonic())

    def _measure(self, learner: Learner) -> dict[str, float]:
        values = self.probe.measure(learner.method.encoder, learner.device)
        if values.get("knn", float("-inf")) > self.best:
            self.best = values["knn"]
            self._checkpoint(learner).save(self.run.best)
        return values

    def save(self, learner: Learner) -> None:
        """Write the last checkpoint."""
        self._checkpoint(learner).save(self.run.last)
        self._saved_at = time.monotonic()

    def _checkpoint(self, learner: Learner) -> Checkpoint:
        return Checkpoint(
            step=learner.index,
            method=learner.method.state_dict(),
            optimizer=learner.trainer.optimizers[0].state_dict(),
            probe=self.best,
        )

    def on_train_start(self, trainer: Trainer, learner: Learner) -> None:  # type: ignore[override]
        """From here on SIGINT and SIGTERM end the run after the step under way; a second one at once.

        Here and not earlier, because Lightning installs handlers of its own before.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Puts the handlers of SIGINT and SIGTERM back at the end of the block.

        Raises:
            Interrupted: at the end of the block, if a signal came; its exit code is 130 or 143.
        """
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)
        if self.signal is not None:
            error = Interrupted(f"stopped; go on with: tacit fit --resume --out {self.run.quoted}")
            error.exit_code = 128 + self.signal
            raise error
