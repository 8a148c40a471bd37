"""transformers.Trainer around `Step`: two learning rates, an LM warm-up, checkpoints, several processes."""

from __future__ import annotations

import functools
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader, SequentialSampler
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments
from transformers.utils import SAFE_WEIGHTS_NAME

from revela_rag.errors import TrainingError
from revela_training.data.batching import GroupDataset
from revela_training.data.collate import GroupCollator
from revela_training.loop.callbacks import Alarms, Progress, TimeLimit, Warmup
from revela_training.loop.checkpoint import (
    latest_checkpoint,
    load_optimizer_state,
    load_state,
    optimizer_state,
    random_state,
    restore_random_state,
    save_state,
    whole_checkpoint,
)
from revela_training.loop.distributed import World, clip_gradients, copy_whole, shard_lm, start_world, wants_shards
from revela_training.loop.model import RevelaModel
from revela_training.loop.precision import use_bf16
from revela_training.loop.step import Step
from revela_training.plan import RunPlan

__all__ = ["RevelaTrainer", "latest_checkpoint", "train"]

logger = logging.getLogger(__name__)

_OPTIMIZER, _SCHEDULER, _RANDOM = "optimizer.safetensors", "scheduler.safetensors", "random-{rank}.safetensors"
_PREFETCHING_WORKERS = 2


class RevelaTrainer(Trainer):
    """Trainer of :class:`RevelaModel`: logs what the objective sees and stops when nothing can be learned.

    Gradients are computed and summed over the processes by `Step`; the Trainer's own wrapping for several
    processes is left out.
    """

    def __init__(
        self,
        model: RevelaModel,
        config: RunPlan,
        args: TrainingArguments,
        *,
        world: World | None = None,
        split: bool = False,
        **kwargs: Any,
    ) -> None:
        self.config = config
        self.revela = model
        self.world = world or World()
        self.total_steps = config.max_steps
        self.warmup_steps = config.lm_warmup_steps
        self.step = Step(model, config, world=self.world, split=split, bf16=use_bf16(config.precision))
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)
        self._waited, self._since = 0.0, time.perf_counter()
        self._writing: Path | None = None
        super().__init__(model, args, **kwargs)
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        if not args.disable_tqdm:
            self.add_callback(Progress())
        self.add_callback(Warmup(self))
        self.add_callback(Alarms(self))
        if config.time_limit is not None:
            self.add_callback(TimeLimit(self, config.time_limit))

    def create_accelerator_and_postprocess(self) -> None:
        """Keep accelerate from wrapping the model: `Step` exchanges gradients."""
        super().create_accelerator_and_postprocess()
        self.accelerator.prepare_model = functools.partial(self.accelerator.prepare_model, evaluation_mode=True)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Groups in order; made by other processes where the device is no CPU, whose cores they would take."""
        dataset: Any = self.train_dataset
        workers = 0 if self.args.device.type == "cpu" else _PREFETCHING_WORKERS
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_size=self.args.per_device_train_batch_size,
            sampler=SequentialSampler(dataset),
            collate_fn=self.data_collator,
            drop_last=True,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            multiprocessing_context="fork" if workers else None,  # the data set holds an index that cannot be sent
            pin_memory=self.args.dataloader_pin_memory,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The next batch; the time that takes is logged as ``input_wait``, a share of all time."""
        start = time.perf_counter()
        try:
            return super().get_batch_samples(*args, **kwargs)
        finally:
            self._waited += time.perf_counter() - start

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Gradients of one step; raises TrainingError when its loss is not finite."""
        model.train()
        result = self.step(self._prepare_inputs(inputs))
        loss = torch.tensor(result.loss, device=self.args.device)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss.item()} at step {self.state.global_step + 1}, so training stopped; the base is "
                "untouched. Lower retriever_lr and lm_lr, or train in float32."
            )
        for name, value in result.metrics.items():
            self.note(name, value)
        return loss

    def note(self, name: str, value: float) -> None:
        """Add a value to the mean that the next log line shows under ``name``."""
        self._sums[name] += value
        self._counts[name] += 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log Trainer's values and the means of everything noted since the last line."""
        if self._counts:
            now = time.perf_counter()
            logs = {**logs, "input_wait": self._waited / max(1e-9, now - self._since)}
            self._waited, self._since = 0.0, now
        logs = {**logs, **{name: self._sums[name] / self._counts[name] for name in self._sums}}
        self._sums.clear()
        self._counts.clear()
        super().log(logs, start_time)

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

            joint = self.total_steps - self.warmup_steps
            rise = max(1, min(20, joint // 4)) if self.config.adapter == "lora" else 20

            def retriever(step: int) -> float:
                return min(1.0, max(0.0, (step + 1 - self.warmup_steps) / rise)) * decay(step)

            used = optimizer or self.optimizer
            assert used is not None
            clocks: list[Callable[[int], float]] = [retriever, reader]
            self.lr_scheduler = LambdaLR(used, clocks[: len(used.param_groups)])
        return self.lr_scheduler

    def _clip_grad_norm(self, model: torch.nn.Module) -> Tensor:
        return clip_gradients(self.revela.parameters(), self.args.max_grad_norm)

    def _get_output_dir(self, trial: Any = None) -> str:
        return str(self._writing or self.args.output_dir)

    def _save_checkpoint(self, model: Any, trial: Any = None) -> None:
        folder = Path(str(self.args.output_dir))
        with whole_checkpoint(folder, self.state.global_step, self.world) as self._writing:
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._writing = None

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        state = self.revela.state_dict()  # in every process: parts that are split are gathered
        if self.args.should_save:
            target = Path(output_dir or self._get_output_dir())
            target.mkdir(parents=True, exist_ok=True)
            save_file({name: value.contiguous() for name, value in state.items()}, target / SAFE_WEIGHTS_NAME)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        state = optimizer_state(self.optimizer)
        if self.args.should_save:
            assert self.lr_scheduler is not None
            save_state(state, Path(output_dir) / _OPTIMIZER)
            save_state(self.lr_scheduler.state_dict(), Path(output_dir) / _SCHEDULER)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        assert self.optimizer is not None and self.lr_scheduler is not None
        load_optimizer_state(self.optimizer, load_state(Path(checkpoint) / _OPTIMIZER))
        self.lr_scheduler.load_state_dict(load_state(Path(checkpoint) / _SCHEDULER))

    def _save_rng_state(self, output_dir: str) -> None:
        Path(output_dir).mkdir(parents=True, exist_ok=True)  # the first process may not have come here yet
        save_state(random_state(), Path(output_dir) / _RANDOM.format(rank=self.world.rank))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        path = Path(str(checkpoint)) / _RANDOM.format(rank=self.world.rank)
        if checkpoint is None:
            return
        if path.is_file():
            restore_random_state(load_state(path))
        else:
            logger.warning("%s is missing (fewer processes wrote it): random numbers are not those of one run.", path)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        state = load_file(Path(resume_from_checkpoint) / SAFE_WEIGHTS_NAME)
        module: Any = model or self.model
        own = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if own.keys() != state.keys():
            raise TrainingError(
                f"The checkpoint {resume_from_checkpoint} belongs to another model (only one of them has "
                f"{min(own.keys() ^ state.keys())}). Run without --resume to start afresh."
            )
        for name, parameter in own.items():
            copy_whole(parameter, state[name])


def train(
    model: RevelaModel,
    dataset: GroupDataset,
    collator: GroupCollator,
    config: RunPlan,
    *,
    folder: Path,
    resume: bool = False,
    show_progress: bool = True,
    world: World | None = None,
) -> list[dict[str, float]]:
    """Train ``model`` in place.

    Args:
        model: retriever and LM.
        dataset: groups; one step takes ``groups_per_step`` of them for each process.
        collator: makes the model's input.
        config: settings.
        folder: where checkpoints go; with several processes one that all of them see.
        resume: go on from the newest checkpoint in ``folder``, if there is one.
        show_progress: show a progress bar with the time left.
        world: the processes that train together; None finds them.

    Returns:
        The log: one mapping per logged step with ``step``, ``contrastive_loss``, ``lm_loss``, ``baseline_loss``,
        ``max_weight`` and more, as far as there are.

    Raises:
        TrainingError: the loss is not finite, no gradient reaches the retriever, or memory runs out.
        DiskError: a checkpoint cannot be written.
    """
    world = world or start_world()
    split = wants_shards(config.shard) and world.size > 1 and model.objective is not None
    args = _arguments(config, folder, show_progress=show_progress and world.leads)
    model.to(args.device)
    world.same_start(model)
    if split and model.objective is not None:
        shard_lm(model, model.objective.lm, "read")
    trainer = RevelaTrainer(
        model, config, args, world=world, split=split, train_dataset=dataset, data_collator=collator
    )
    checkpoint = latest_checkpoint(folder) if resume else None
    if checkpoint is not None:
        logger.info("Resuming from %s", checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return [dict(entry) for entry in trainer.state.log_history]


def _arguments(config: RunPlan, folder: Path, *, show_progress: bool) -> TrainingArguments:
    cuda = torch.cuda.is_available()
    args = TrainingArguments(
        output_dir=str(folder),
        use_cpu=not cuda,
        max_steps=config.max_steps,
        per_device_train_batch_size=config.groups_per_step,
        save_steps=config.checkpoint_steps,
        logging_steps=10,
        logging_first_step=True,
        seed=config.seed,
        data_seed=config.seed,
        remove_unused_columns=False,
        report_to=list(config.trackers) or "none",
        disable_tqdm=not show_progress,
        dataloader_pin_memory=cuda,
        label_names=[],
    )
    if args.n_gpu > 1:
        logger.warning(
            "%d GPUs are here and one is used. Start with torchrun --nproc-per-node %d to use all.",
            args.n_gpu,
            args.n_gpu,
        )
        args._n_gpu = 1
    return args
