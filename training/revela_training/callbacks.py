"""What watches a training run: progress, the LM's warm-up, alarms and the time limit."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from revela_rag.errors import TrainingError
from revela_training.distributed import full_tensor

if TYPE_CHECKING:
    from revela_training.trainer import RevelaTrainer

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
        model.joint = state.global_step >= self._trainer.warmup_steps


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
        if not model.joint:
            return
        gradients = [p.grad for p in model.retriever.parameters() if p.grad is not None]
        norm = math.sqrt(sum(float(full_tensor(g.float().pow(2).sum())) for g in gradients))
        self._trainer.note("retriever_grad_norm", norm)
        self._dead = self._dead + 1 if norm == 0.0 else 0
        if self._dead >= _DEAD_STEPS:
            why = f"at temperature={self._trainer.config.temperature} the in-batch weights are saturated. Raise the "
            why += "temperature (0.02 suits supervised models), or set standardize=true."
            if model.objective is None:
                why = "the corpus gives no pairs to contrast, and revela_weight=0 leaves nothing else. Raise it."
            raise TrainingError(f"No gradient reached the retriever for {_DEAD_STEPS} steps: {why}")


class TimeLimit(TrainerCallback):
    """Plans the number of steps from the speed of the first ones, and stops at the limit whatever happens."""

    def __init__(self, trainer: RevelaTrainer, seconds: float) -> None:
        self._trainer = trainer
        self._seconds = seconds
        self._start = time.monotonic()
        self._first = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._start, self._first = time.monotonic(), state.global_step
        if self._first:  # resumed: a warm-up that an earlier limit shortened must not start again
            self._trainer.warmup_steps = min(self._trainer.warmup_steps, self._first)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Plan once the speed is known, and stop in time."""
        elapsed = self._trainer.world.from_leader(time.monotonic() - self._start)  # all stop at the same step
        done = state.global_step - self._first
        if done == _CALIBRATION_STEPS:
            fits = self._first + max(done, int(self._seconds * done / elapsed))
            state.max_steps = self._trainer.total_steps = min(state.max_steps, fits)
            self._trainer.warmup_steps = min(self._trainer.warmup_steps, state.max_steps // 3)
            logger.info("%d steps fit into the time limit of %.0f s", state.max_steps, self._seconds)
        if elapsed >= self._seconds or state.global_step >= state.max_steps:
            control.should_training_stop = True
