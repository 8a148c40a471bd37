"""transformers.Trainer with two learning rates, an LM warm-up, a time limit and alarms."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import SequentialSampler
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.utils import SAFE_WEIGHTS_NAME

from revela_rag.errors import TrainingError
from revela_training.batching import GroupDataset
from revela_training.config import AdaptConfig
from revela_training.model import GroupCollator, RevelaModel

__all__ = ["RevelaTrainer", "latest_checkpoint", "train"]

logger = logging.getLogger(__name__)

_CALIBRATION_STEPS = 8
_DEAD_STEPS = 20


class RevelaTrainer(Trainer):
    """Trainer of :class:`RevelaModel`: logs what the objective sees and stops when nothing can be learned."""

    def __init__(self, model: RevelaModel, config: AdaptConfig, args: TrainingArguments, **kwargs: Any) -> None:
        self.config = config
        self.total_steps = config.max_steps
        self.warmup_steps = config.lm_warmup_steps
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)
        super().__init__(model, args, **kwargs)
        self.remove_callback(PrinterCallback)
        if not args.disable_tqdm:
            self.remove_callback(ProgressCallback)
            self.add_callback(_Progress())
        self.add_callback(_Warmup(self))
        self.add_callback(_Alarms(self))
        if config.time_limit is not None:
            self.add_callback(_TimeLimit(self, config.time_limit))

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Any]]:
        """Loss of one step; raises TrainingError when it is not finite."""
        output = model(**inputs)
        loss = output["loss"]
        if not torch.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss.item()} at step {self.state.global_step + 1}, so training stopped; the base is "
                "untouched. Lower retriever_lr and lm_lr, or train in float32."
            )
        for name, value in output["metrics"].items():
            self.note(name, float(value.detach()))
        return (loss, output) if return_outputs else loss

    def note(self, name: str, value: float) -> None:
        """Add a value to the mean that the next log line shows under ``name``."""
        self._sums[name] += value
        self._counts[name] += 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log Trainer's values and the means of everything noted since the last line."""
        logs = {**logs, **{name: self._sums[name] / self._counts[name] for name in self._sums}}
        self._sums.clear()
        self._counts.clear()
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        dataset: Any = train_dataset if train_dataset is not None else self.train_dataset
        return SequentialSampler(dataset)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        state = load_file(Path(resume_from_checkpoint) / SAFE_WEIGHTS_NAME)
        module: Any = model or self.model
        loaded = module.load_state_dict(state, strict=False)
        if loaded.unexpected_keys:
            raise TrainingError(
                f"The checkpoint {resume_from_checkpoint} belongs to another model (it has "
                f"{loaded.unexpected_keys[0]}). Run without --resume to start afresh."
            )

    def create_optimizer(self, model: torch.nn.Module | None = None) -> Optimizer:
        """AdamW with a group for the retriever and one for the LM."""
        if self.optimizer is None:
            module: Any = model or self.model
            named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
            retriever = [p for name, p in named if ".retriever." in f".{name}"]
            reader = [p for name, p in named if ".retriever." not in f".{name}"]
            groups = [
                {
                    "params": retriever,
                    "lr": self.config.retriever_lr,
                    "weight_decay": self.config.weight_decay,
                },
                {"params": reader, "lr": self.config.lm_lr, "weight_decay": 0.0},
            ]
            self.optimizer = AdamW([group for group in groups if group["params"]], betas=(0.9, 0.98))
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        """Linear warm-up, flat, then linear decay over the last half; the retriever's clock starts when it moves."""
        if self.lr_scheduler is None:

            def decay(step: int) -> float:
                return min(1.0, max(0.02, 2 * (1 - step / max(1, self.total_steps))))

            def reader(step: int) -> float:
                return min(1.0, (step + 1) / 20) * decay(step)

            def retriever(step: int) -> float:
                return min(1.0, max(0.0, (step + 1 - self.warmup_steps) / 20)) * decay(step)

            used = optimizer or self.optimizer
            assert used is not None
            clocks: list[Callable[[int], float]] = [retriever, reader]
            self.lr_scheduler = LambdaLR(used, clocks[: len(used.param_groups)])
        return self.lr_scheduler


class _Progress(ProgressCallback):
    """A bar with the time left and what the LM gains from its neighbours, in place of printed dictionaries."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description("train")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.training_bar is not None:
            self.training_bar.total = state.max_steps
        super().on_step_end(args, state, control, **kwargs)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if self.training_bar is not None and logs and "lm_loss" in logs:
            gain = logs["baseline_loss"] - logs["lm_loss"]
            self.training_bar.set_postfix(
                loss=f"{logs['lm_loss']:.3f}", gain=f"{gain:.3f}", max_weight=f"{logs['max_weight']:.2f}"
            )


class _Warmup(TrainerCallback):
    """Lets the retriever move only after the LM has learned to read its neighbours."""

    def __init__(self, trainer: RevelaTrainer) -> None:
        self._trainer = trainer

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        model.joint = state.global_step >= self._trainer.warmup_steps


class _Alarms(TrainerCallback):
    """Notes the retriever's gradient norm and stops when it is exactly zero for many steps."""

    def __init__(self, trainer: RevelaTrainer) -> None:
        self._trainer = trainer
        self._dead = 0

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        if not model.joint:
            return
        gradients = [p.grad for p in model.retriever.parameters() if p.grad is not None]
        norm = math.sqrt(sum(float(g.float().pow(2).sum()) for g in gradients))
        self._trainer.note("retriever_grad_norm", norm)
        self._dead = self._dead + 1 if norm == 0.0 else 0
        if self._dead >= _DEAD_STEPS:
            temperature = self._trainer.config.temperature
            raise TrainingError(
                f"No gradient reached the retriever for {_DEAD_STEPS} steps: at temperature={temperature} the in-batch "
                "weights are saturated. Raise the temperature (0.02 suits supervised models), or set standardize=true."
            )


class _TimeLimit(TrainerCallback):
    """Plans the number of steps from the speed of the first ones, and stops at the limit whatever happens."""

    def __init__(self, trainer: RevelaTrainer, seconds: float) -> None:
        self._trainer = trainer
        self._seconds = seconds
        self._start = time.monotonic()
        self._first = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._start, self._first = time.monotonic(), state.global_step
        if self._first:  # resumed: a warm-up that an earlier limit shortened must not start again
            self._trainer.warmup_steps = min(self._trainer.warmup_steps, self._first)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        elapsed = time.monotonic() - self._start
        done = state.global_step - self._first
        if done == _CALIBRATION_STEPS:
            fits = self._first + max(done, int(self._seconds * done / elapsed))
            state.max_steps = self._trainer.total_steps = min(state.max_steps, fits)
            self._trainer.warmup_steps = min(self._trainer.warmup_steps, state.max_steps // 3)
            logger.info("%d steps fit into the time limit of %.0f s", state.max_steps, self._seconds)
        if elapsed >= self._seconds or state.global_step >= state.max_steps:
            control.should_training_stop = True


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint below ``folder``, or None."""
    found = [p for p in folder.glob("checkpoint-*") if (p / "trainer_state.json").is_file()]
    return max(found, key=lambda p: int(p.name.rsplit("-", 1)[1]), default=None)


def train(
    model: RevelaModel,
    dataset: GroupDataset,
    collator: GroupCollator,
    config: AdaptConfig,
    *,
    folder: Path,
    resume: bool = False,
    show_progress: bool = True,
) -> list[dict[str, float]]:
    """Train ``model`` in place.

    Args:
        model: retriever and LM.
        dataset: groups; one step takes ``groups_per_step`` of them.
        collator: makes the LM's input.
        config: settings.
        folder: where checkpoints go.
        resume: go on from the newest checkpoint in ``folder``, if there is one.
        show_progress: show a progress bar with the time left.

    Returns:
        The log: one mapping per logged step with ``step``, ``lm_loss``, ``baseline_loss``, ``max_weight`` and more.

    Raises:
        TrainingError: the loss is not finite or no gradient reaches the retriever.
    """
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=config.max_steps,
        per_device_train_batch_size=config.groups_per_step,
        save_steps=config.checkpoint_steps,
        save_total_limit=2,
        logging_steps=10,
        logging_first_step=True,
        seed=config.seed,
        data_seed=config.seed,
        bf16=bf16,
        remove_unused_columns=False,
        report_to=list(config.trackers) or "none",
        disable_tqdm=not show_progress,
        dataloader_drop_last=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        label_names=[],
    )
    trainer = RevelaTrainer(model, config, args, train_dataset=dataset, data_collator=collator)
    checkpoint = latest_checkpoint(folder) if resume else None
    if checkpoint is not None:
        logger.info("Resuming from %s", checkpoint)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"Out of memory with groups_per_step={config.groups_per_step}, group_size={config.group_size}, "
            f"max_tokens={config.max_tokens}. Halve groups_per_step first."
        ) from error
    return [dict(entry) for entry in trainer.state.log_history]
