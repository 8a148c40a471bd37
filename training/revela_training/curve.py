"""A training watched from outside: retrieval quality over its steps, on queries that do not train."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from revela_rag.corpus import Chunk
from revela_rag.corpus.types import titled
from revela_rag.evaluation import RetrievalData, dense_run, score_run
from revela_rag.model.st_format import Role
from revela_training.assemble import build_collator, build_dataset, build_lm, build_retriever, plan_steps
from revela_training.config import AdaptConfig
from revela_training.data.batching import GroupDataset
from revela_training.data.collate import GroupCollator
from revela_training.data.units import Unit, make_units
from revela_training.loop.distributed import World
from revela_training.loop.model import RevelaModel
from revela_training.loop.precision import compute_dtype, use_bf16
from revela_training.loop.step import Step
from revela_training.loop.workspace import Workspace
from revela_training.plan import RunPlan
from revela_training.resolve import make_plan
from revela_training.retriever.backbone import TrainableRetriever

__all__ = ["Curve", "Point"]

logger = logging.getLogger(__name__)

_RISE = 10  # steps until the learning rate is at its peak; it falls over the second half
_LOGGED = 5  # steps between lines of the log


@dataclass(frozen=True)
class Point:
    """One evaluation.

    Attributes:
        step: optimiser steps until then.
        seconds: that training alone took until then.
        quality: metric to its mean over the queries.
        training: means since the evaluation before, ``lm_loss``, ``baseline_loss``, ``max_weight`` and such.
    """

    step: int
    seconds: float
    quality: dict[str, float]
    training: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


@dataclass
class Curve:
    """Train a retriever inside its backbone and score it every so many steps.

    Args:
        chunks: the corpus that trains.
        data: documents, queries and judgements that score and never train.
        config: settings; LoRA trains whatever their ``adapter`` says.
        folder: for what is kept while it runs; removed at the end.
        structure: whether the parts of a chunk (title and text, docstring and body, halves) are texts of their own that
            always share a group. False leaves every chunk whole, so that nothing but BM25 says what belongs together.
        evaluated_tokens: tokens of queries and documents that an evaluation reads.

    Attributes:
        vectors: (Q, d) of the queries and (N, d) of the documents at the last evaluation.
        retriever: what trains.

    Example:
        >>> curve = Curve(corpus.chunks, data, config, Path("work"))  # doctest: +SKIP
        >>> for point in curve.points(every=50):  # doctest: +SKIP
        ...     print(point.step, point.quality["nDCG@10"])
    """

    chunks: Sequence[Chunk]
    data: RetrievalData
    config: AdaptConfig
    folder: Path
    structure: bool = True
    evaluated_tokens: int = 160
    vectors: tuple[np.ndarray, np.ndarray] | None = None
    retriever: TrainableRetriever | None = None
    _seconds: float = 0.0

    def points(self, *, every: int, minutes: float | None = None, at_start: bool = False) -> Iterator[Point]:
        """Train, and give an evaluation after every so many steps and after the last.

        Args:
            every: steps between evaluations.
            minutes: of training, evaluations not counted; None goes by the steps alone. The learning rate falls by
                whichever ends first.
            at_start: evaluate the base, too.
        """
        units = make_units(self.chunks) if self.structure else _whole(self.chunks)
        plan = make_plan(self.config, "lora")
        dataset = build_dataset(units, self.chunks, set(), plan, World())
        plan = plan_steps(dataset, plan, World())
        self.retriever = retriever = build_retriever(plan)
        reader, tokenizer = build_lm(plan)
        work = Workspace(self.folder, identity={}, resume=False, world=World())
        try:
            collator = build_collator(retriever, tokenizer, dataset, plan, work)
            model = RevelaModel(retriever, reader, plan).to(retriever.device).train()
            model.retriever_learns = True
            if at_start:
                yield self._evaluated(retriever, 0, [])
            losses: list[dict[str, float]] = []
            for step, metrics, last in self._steps(model, dataset, collator, plan, minutes):
                losses.append(metrics)
                if step % _LOGGED == 0:
                    logger.info("step %d, %.0f s: %s", step, self._seconds, _means(losses[-_LOGGED:]))
                if step % every == 0 or last:
                    yield self._evaluated(retriever, step, losses)
                    losses = []
        finally:
            work.remove()
            work.close()

    def _steps(
        self, model: RevelaModel, dataset: GroupDataset, collator: GroupCollator, plan: RunPlan, minutes: float | None
    ) -> Iterator[tuple[int, dict[str, float], bool]]:
        """Step, its metrics, and whether it was the last."""
        total, together, peak = plan.max_steps, plan.groups_per_step, plan.retriever_lr
        parameters = model.retriever.trainable_parameters()
        optimizer = torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.98), weight_decay=plan.weight_decay)
        compute = Step(model, plan, world=World(), bf16=use_bf16(plan.precision))
        for step in range(1, total + 1):
            start = time.perf_counter()
            done = max((step - 1) / total, self._seconds / (60 * minutes) if minutes else 0.0)
            for group in optimizer.param_groups:
                group["lr"] = peak * min(1.0, step / _RISE, max(0.02, 2 * (1 - done)))
            batch = collator([dataset[(step - 1) * together + i] for i in range(together)])
            result = compute(_moved(batch, model.retriever.device))
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            self._seconds += time.perf_counter() - start
            over = step == total or (minutes is not None and self._seconds >= 60 * minutes)
            yield step, result.metrics, over
            if over:
                return

    def _evaluated(self, retriever: TrainableRetriever, step: int, losses: list[dict[str, float]]) -> Point:
        data = self.data

        def embed(texts: list[str], role: Role) -> np.ndarray:
            made = retriever.embed(
                texts,
                role,
                max_length=self.evaluated_tokens,
                compute_dtype=compute_dtype(self.config.machine.precision),
            )
            return made.float().numpy(force=True)

        documents = [titled(title, text) for title, text in data.corpus.values()]
        self.vectors = embed(list(data.queries.values()), "query"), embed(documents, "document")
        found = score_run(dense_run(*self.vectors, list(data.queries), list(data.corpus)), data.qrels)
        quality = {metric: round(found.mean(metric), 4) for metric in found.metrics}
        point = Point(step, round(self._seconds, 1), quality, _means(losses))
        logger.info("%s", point)
        return point


def _whole(chunks: Sequence[Chunk]) -> list[Unit]:
    return [Unit((chunk.embedding_text,), chunk.document_id, chunk.position, False) for chunk in chunks]


def _means(entries: list[dict[str, float]]) -> dict[str, float]:
    names = sorted({name for entry in entries for name in entry})
    return {name: round(float(np.mean([entry[name] for entry in entries if name in entry])), 3) for name in names}


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {name: _moved(part, device) for name, part in value.items()}
    return value.to(device) if torch.is_tensor(value) else value
