"""The systems: from a name and a task to per-query metrics."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import baselines
import numpy as np
import torch
from cache import VectorCache
from sets import Task

from revela_rag.context import surroundings
from revela_rag.corpus.types import titled
from revela_rag.evaluation import Run, dense_run, fused_run, lexical_run, score_run
from revela_rag.evaluation.vectors import passages
from revela_rag.fusion import dense_share
from revela_rag.index.words import WordIndex
from revela_rag.model.st_format import Role
from revela_training import adapt
from revela_training.assemble import build_retriever
from revela_training.config import AdaptConfig
from revela_training.data.batching import GroupDataset
from revela_training.job import AdaptResult
from revela_training.loop.precision import compute_dtype
from revela_training.loop.trainer import train
from revela_training.plan import RunPlan
from revela_training.retriever.backbone import TrainableRetriever

#: Systems that `adapt` trains: preset, and settings that win over those of the command line.
ADAPTED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "published": ("published", {}),
    "revela": ("auto", {"contrastive_weight": 0.0}),
    "no-revela": ("auto", {"revela_weight": 0.0}),
    "both": ("auto", {"revela_weight": 1.0}),
    "default": ("auto", {}),
}
UNTRAINED = ("bm25", "base")
SYSTEMS = (*UNTRAINED, *baselines.METHODS, *ADAPTED)

#: Vectors (n, d) of texts in a role at a strength of the adapter.
Embed = Callable[[Sequence[str], Role, float], np.ndarray]
#: Metric to {query id: value}.
Scores = dict[str, dict[str, float]]


@dataclass
class Bench:
    """One backbone on one task.

    Args:
        base: directory or hub id of the backbone.
        task: what to train and score on.
        settings: fields of `AdaptConfig` given on the command line.
        work: folder for models in the making.
        keep_models: leave the models that `adapt` wrote in ``work``.
        curves: score every strength that the gate could choose, not only the one it chose.
        cache: keeps what the frozen backbone gave.
    """

    base: str
    task: Task
    settings: Mapping[str, Any]
    work: Path
    keep_models: bool = False
    curves: bool = False
    cache: VectorCache | None = None
    _known: dict[tuple[Role, tuple[str, ...]], np.ndarray] = field(default_factory=dict, repr=False)

    def run(self, system: str, adapter: str, seed: int) -> dict[str, Any]:
        """Scores of a system by variant (full, gated, hybrid), and what else is worth keeping.

        Raises:
            NotRunError: the system does not exist in this setting.
            RevelaError: training failed.
        """
        if system == "bm25":
            return {"scores": {"full": self._score(self._bm25())}}
        if system == "base":
            dense, hybrid = self._runs(lambda texts, role, strength: self._base_vectors(texts, role), 0.0)
            return {"scores": {"full": self._score(dense), "hybrid": self._score(hybrid)}}
        if system == "tsdae" and adapter == "linear":
            raise baselines.NotRunError(
                "TSDAE trains an encoder, and the linear adapter has none that learns: use tsdae/lora"
            )
        started = time.monotonic()
        retriever, result = self._train(system, adapter, seed)
        seconds = round(time.monotonic() - started, 1)
        embed = self._embedder(retriever)
        choosing = result.report["gate"]["choosing"]
        wanted = {1.0, result.strength, *(map(float, choosing) if self.curves else ())}
        found = {strength: self._runs(embed, strength) for strength in sorted(wanted)}
        gated, hybrid = found[result.strength]
        runs = {"full": found[1.0][0], "gated": gated, "hybrid": hybrid}
        scores = {name: self._score(run) for name, run in runs.items()}
        log = [entry for entry in result.report["log"] if "grad_norm" in entry]
        return {
            "scores": scores,
            "strength": result.strength,
            "summary": result.summary,
            "choosing": choosing,
            "kinds": result.report["gate"].get("kinds"),
            "curve": {
                str(strength): [float(np.mean(list(self._score(run)["nDCG@10"].values()))) for run in both]
                for strength, both in found.items()
            },
            "training": result.report["training"],
            "log": log[:1] + log[-1:],
            "seconds": seconds,
        }

    def _train(self, system: str, adapter: str, seed: int) -> tuple[TrainableRetriever, AdaptResult]:
        """Through the front door, `adapt`; for a method of the field its training alone is another.

        So all have the same texts, held-back queries, draws and gate. The retriever is taken along, because the
        exported model has only the strength that the gate chose.
        """
        preset, own = ADAPTED.get(system, ("auto", {}))
        # the published preset's learning rate is for LoRA; None follows the adapter
        settings = {"retriever_lr": None, **self.settings, **own, "adapter": adapter, "seed": seed}
        made_of = repr(
            (self.base, self.task.digest, identity(system, self.settings))
        )  # else there is nothing to resume
        output = self.work / f"{system}-{adapter}-{seed}-{hashlib.sha256(made_of.encode()).hexdigest()[:8]}"
        trained: list[TrainableRetriever] = []

        def build(plan: RunPlan) -> TrainableRetriever:
            return build_retriever(plan, make=self._make)

        def trainer(model: Any, dataset: GroupDataset, collator: Any, plan: RunPlan, **options: Any) -> list[Any]:
            trained.append(model.retriever)
            if system in ADAPTED:
                return train(model, dataset, collator, plan, **options)
            steps = baselines.plan(system, dataset, plan)
            baselines.train(system, model.retriever, steps, plan, base=self.base)
            return []

        result = adapt(
            self.task.corpus,
            output=output,
            base=self.base,
            preset=preset,
            resume=True,
            show_progress=False,
            build=build,
            trainer=trainer,
            **settings,
        )
        if not self.keep_models:
            shutil.rmtree(output)
        if not trained:
            raise baselines.NotRunError(result.summary)
        return trained[-1], result

    def _embedder(self, retriever: TrainableRetriever) -> Embed:
        """Embed at any strength. Under a linear adapter the backbone's vectors are computed once for all systems."""
        precision = AdaptConfig(**self.settings).machine.precision

        def embed(texts: Sequence[str], role: Role, strength: float) -> np.ndarray:
            retriever.set_strength(strength)
            if retriever.adapter is None:
                return retriever.embed(texts, role, compute_dtype=compute_dtype(precision)).numpy(force=True)
            with torch.no_grad():
                base = torch.from_numpy(self._base_vectors(texts, role)).to(retriever.device)
                return retriever.adapt_embeddings(base).numpy(force=True)

        return embed

    def _base_vectors(self, texts: Sequence[str], role: Role) -> np.ndarray:
        key = (role, tuple(texts))
        if key not in self._known:
            dtype = compute_dtype(AdaptConfig(**self.settings).machine.precision)
            self._known[key] = self._retriever.embed_base(texts, role, compute_dtype=dtype).numpy(force=True)
        return self._known[key]

    @cached_property
    def _retriever(self) -> TrainableRetriever:
        return self._make(self.base, adapter="linear")

    @property
    def _make(self) -> Callable[..., TrainableRetriever]:
        return self.cache.retriever if self.cache else TrainableRetriever

    @cached_property
    def _passages(self) -> tuple[list[str], list[str]]:
        return passages(self.task.data.corpus, window=self._retriever.inference_max_length)

    @cached_property
    def _trust(self) -> float:
        """What an adapted model has from its base."""
        texts, document_ids = self._passages
        owners = np.unique(surroundings(document_ids), return_inverse=True)[1]
        return dense_share(owners, self._base_vectors(texts, "document").__getitem__)

    @cached_property
    def _words(self) -> WordIndex:
        texts, document_ids = self._passages
        return WordIndex.build(range(len(texts)), texts, document_ids)

    def _bm25(self) -> Run:
        data = self.task.data
        texts = [titled(title, text) for title, text in data.corpus.values()]
        return lexical_run(list(data.queries.values()), texts, list(data.queries), list(data.corpus))

    def _runs(self, embed: Embed, strength: float) -> tuple[Run, Run]:
        """What an index finds by cosine and what it finds in hybrid search."""
        data = self.task.data
        texts, document_ids = self._passages
        queries, vectors = embed(list(data.queries.values()), "query", strength), embed(texts, "document", strength)
        dense = dense_run(queries, vectors, list(data.queries), document_ids)
        return dense, fused_run(queries, vectors, data.queries, document_ids, self._words, trust=self._trust)

    def _score(self, run: Run) -> Scores:
        return score_run(run, self.task.data.qrels).per_query


def identity(system: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a trained system's result besides task, backbone, adapter and seed."""
    if system in UNTRAINED:
        return {}
    preset, own = ADAPTED.get(system, ("auto", {}))
    defaults = AdaptConfig(**{**settings, **own}).as_dict()
    return {"preset": preset, "config": {name: v for name, v in defaults.items() if name not in ("base", "seed")}}
