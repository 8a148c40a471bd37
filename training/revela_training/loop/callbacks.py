"""What watches a training run: progress, the LM's warm-up, alarms and the time limit."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from revela_rag.errors import TrainingError
from revela_training.loop.distributed import full_tensor

if TYPE_CHECKING:
    from revela_training.loop.trainer import RevelaTrainer

__all__ = ["Alarms", "Progress", "TimeLimit", "Warmup"]

logger = logging.getLogger(__name__)

_CALIBRATION_STEPS = 8
_DEAD_STEPS = 20


class Progress(ProgressCallback):
    """A bar with the time left and what the LM gains from its neighbours, in place of printed dictionaries."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Name the bar."""
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description("train")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Follow a plan that the time limit shortened."""
        if self.training_bar is not None:
            self.training_bar.total = state.max_steps
        super().on_step_end(args, state, control, **kwargs)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Show loss, gain and sharpness of the weights."""
        if self.training_bar is None or not logs:
            return
        if "lm_loss" not in logs:
            shown = {"loss": f"{logs['loss']:.3f}"} if "loss" in logs else {}
            self.training_bar.set_postfix(**shown)
        else:
            gain = logs["baseline_loss"] - logs["lm_loss"]
            self.training_bar.set_postfix(
                loss=f"{logs['lm_loss']:.3f}", gain=f"{gain:.3f}", max_weight=f"{logs['max_weight']:.2f}"
            )


class Warmup(TrainerCallback):
    """Lets the retriever move only after the LM has learned to read its neighbours."""

    def __init__(self, trainer: RevelaTrainer) -> None:
        self._trainer = trainer

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the retriever move from its step on."""
        model = self._trainer.revela
        model.retriever_learns = state.global_step >= self._trainer.warmup_steps


class Alarms(TrainerCallback):
    """Notes the retriever's gradient norm and stops when it is exactly zero for many steps."""

    def __init__(self, trainer: RevelaTrainer) -> None:
        self._trainer = trainer
        self._dead = 0

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the norm, and stop after many zeros."""
        model = self._trainer.revela
        if not model.retriever_learns:
            return
        gradients = [p.grad for p in model.retriever.parameters() if p.grad is not None]
        norm = math.sqrt(sum(float(full_tensor(g.float().pow(2).sum())) for g in gradients))
        self._trainer.note("retriever_grad_norm", norm)
        self._dead = self._dead + 1 if norm == 0.0 else 0
        if self._dead >= _DEAD_STEPS:
            why = f"at temperature={self._trainer.config.temperature} the in-batch weights are saturated. Raise the "
            why += "temperature (0.3 suits standardised rows, 0.02 cosines of supervised models)."
            if model.objective is None:
                why = "the corpus gives no pairs to contrast, and revela_weight=0 leaves nothing else. Raise it."
            raise TrainingError(f"No gradient reached the retriever for {_DEAD_STEPS} steps: {why}")


class TimeLimit(TrainerCallback, ExportableState):
    """Plans the number of steps from the speed of the first ones, and stops at the limit whatever happens.

    Time and plan are part of every checkpoint, so that a resumed run has the time that was left and the same plan;
    under another limit it plans again.
    """

    def __init__(self, trainer: RevelaTrainer, seconds: float) -> None:
        self._trainer = trainer
        self._seconds = seconds
        self._start = time.monotonic()  # as if all had been one run
        self._measured: tuple[int, float] = (0, self._start)  # step and time at which this run began
        self._planned = False

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        kept = {
            "seconds": self._seconds,
            "spent": time.monotonic() - self._start,
            "planned": self._planned,
            "total_steps": self._trainer.total_steps,
            "warmup_steps": self._trainer.warmup_steps,
        }
        return {"args": {}, "attributes": kept}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock, or take it and the plan from the checkpoint."""
        now = time.monotonic()
        self._start, self._measured = now, (state.global_step, now)
        states: Any = state.stateful_callbacks
        stored = states.setdefault(type(self).__name__, self.state())
        kept = (stored if state.global_step else self.state())["attributes"]
        self._start = now - kept["spent"]
        if kept.get("seconds") != self._seconds:
            kept = {**self.state()["attributes"], "planned": False}
        self._plan(state, kept["total_steps"], kept["warmup_steps"], planned=kept["planned"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Plan once the speed is known, and stop in time."""
        first, began = self._measured
        here = self._trainer.world.from_leader(time.monotonic() - began)  # all stop at the same step
        elapsed = here + began - self._start
        done = state.global_step - first
        known = done >= _CALIBRATION_STEPS or elapsed >= self._seconds / 4  # slow steps must not eat up the limit
        if known and not self._planned:
            fits = state.global_step + max(0, int((self._seconds - elapsed) * done / here))
            total = min(state.max_steps, fits)
            self._plan(state, total, min(self._trainer.warmup_steps, total // 3), planned=True)
            logger.info("%d steps fit into the time limit of %.0f s", state.max_steps, self._seconds)
        if elapsed >= self._seconds or state.global_step >= state.max_steps:
            control.should_training_stop = control.should_save = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse what taught the retriever nothing."""
        config = self._trainer.config
        if not self._trainer.revela.retriever_learns and state.global_step < args.max_steps:
            spent = time.monotonic() - self._start
            raise TrainingError(
                f"time_limit={self._seconds:g} ended within the LM's warm-up: {state.global_step} of its "
                f"{config.lm_warmup_steps} steps took {spent:.0f} s, so the retriever learned nothing. Raise "
                "time_limit, lower lm_warmup_steps or max_tokens (in a settings file: --config), or leave lm out."
            )

    def _plan(self, state: TrainerState, total: int, warmup: int, *, planned: bool) -> None:
        self._planned = planned
        state.max_steps = self._trainer.total_steps = total
        self._trainer.warmup_steps = warmup
