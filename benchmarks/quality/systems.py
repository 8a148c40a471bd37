"""The systems: from a name and a task to per-query metrics."""

from __future__ import annotations

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
from safetensors.torch import load_file
from sets import Task

from revela_rag.encoder import Encoder
from revela_rag.evaluation import Run, dense_run, hybrid_run, lexical_run, score_run
from revela_rag.evaluation.vectors import passages
from revela_training import adapt
from revela_training.adapters import LinearAdapter
from revela_training.backbone import Role, TrainableRetriever
from revela_training.config import AdaptConfig, resolve_config
from revela_training.gate import evaluation_pairs, make_evaluation_set, run_gate
from revela_training.job import _build_dataset, _build_retriever, _select  # the very texts and adapter of `adapt`
from revela_training.units import make_units, split_pairs

#: Systems that `adapt` trains: preset, and settings that win over those of the command line.
ADAPTED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "published": ("published", {}),
    "revela": ("auto", {"contrastive_weight": 0.0}),
    "no-revela": ("auto", {"revela_weight": 0.0, "lm_warmup_steps": 0, "max_tokens": 8}),
    "default": ("auto", {}),
}
UNTRAINED = ("bm25", "base")
SYSTEMS = (*UNTRAINED, *baselines.METHODS, *ADAPTED)

#: Vectors (n, d) of texts in a role at a strength of the adapter.
Embed = Callable[[Sequence[str], Role, float], np.ndarray]
#: Metric to {query id: value}.
Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Trained:
    """What training gave.

    Attributes:
        embed: vectors at a strength.
        strength: what the gate chose; 0 is the base.
        variants: name to strength of what is scored: "full" as trained, "gated" as the gate chose.
        details: facts for the result file.
        output: model folder to remove when all is scored.
    """

    embed: Embed
    strength: float
    variants: dict[str, float]
    details: dict[str, Any]
    output: Path | None = None


@dataclass
class Bench:
    """One backbone on one task.

    Args:
        base: directory or hub id of the backbone.
        task: what to train and score on.
        settings: fields of `AdaptConfig` given on the command line.
        work: folder for models in the making.
        keep_models: leave the models that `adapt` wrote in ``work``.
    """

    base: str
    task: Task
    settings: Mapping[str, Any]
    work: Path
    keep_models: bool = False
    _known: dict[tuple[Role, tuple[str, ...]], np.ndarray] = field(default_factory=dict, repr=False)

    def run(self, system: str, adapter: str, seed: int) -> dict[str, Any]:
        """Scores of a system by variant (full, gated, hybrid), and what else is worth keeping.

        Raises:
            NotRunError: the system does not exist in this setting.
            RevelaError: training failed.
        """
        if system == "bm25":
            return {"scores": {"full": self._score(self._bm25)}}
        if system == "base":
            run = self._dense(lambda texts, role, strength: self._base_vectors(texts, role), 0.0)
            return {"scores": {"full": self._score(run), "hybrid": self._score(self._hybrid(run))}}
        started = time.monotonic()
        trained = self._adapted(system, adapter, seed) if system in ADAPTED else self._baseline(system, adapter, seed)
        seconds = round(time.monotonic() - started, 1)
        runs = {name: self._dense(trained.embed, strength) for name, strength in trained.variants.items()}
        scores = {name: self._score(run) for name, run in runs.items()}
        scores["hybrid"] = self._score(self._hybrid(runs["gated"]))
        if trained.output is not None and not self.keep_models:
            shutil.rmtree(trained.output)
        return {"scores": scores, "strength": trained.strength, "seconds": seconds, **trained.details}

    def _adapted(self, system: str, adapter: str, seed: int) -> Trained:
        """Through the front door: `adapt`, as a user calls it."""
        preset, own = ADAPTED[system]
        output = self.work / f"{system}-{adapter}-{seed}"
        # the published preset's learning rate is for LoRA; None follows the adapter
        settings = {"retriever_lr": None, **self.settings, **own, "adapter": adapter, "seed": seed}
        result = adapt(
            self.task.corpus, output=output, base=self.base, preset=preset, resume=True, show_progress=False, **settings
        )
        log = [entry for entry in result.report["log"] if "lm_loss" in entry]
        choosing = result.report["gate"]["choosing"]
        details = {"summary": result.summary, "choosing": choosing, "first": log[0], "last": log[-1]}
        if adapter == "linear":
            variants = {"full": 1.0, "gated": result.strength}
            return Trained(self._through(_load_linear(output)), result.strength, variants, details, output)
        encoder = Encoder(output)  # the updates are merged, so no other strength can be had

        def embed(texts: Sequence[str], role: Role, strength: float) -> np.ndarray:
            return encoder.encode_queries(texts) if role == "query" else encoder.encode_documents(texts)

        return Trained(embed, result.strength, {"gated": result.strength}, details, output)

    def _baseline(self, method: str, adapter: str, seed: int) -> Trained:
        """A method of the field on the texts `adapt` would draw, with the same gate behind it."""
        chunks = self.task.corpus.chunks
        changes = {**self.settings, "base": self.base, "adapter": adapter, "seed": seed}
        cfg = resolve_config(chunks, preset="auto", config=None, changes=changes)
        pairs, weak = evaluation_pairs(chunks)
        choose, report = split_pairs(pairs, holdout=cfg.holdout, max_queries=cfg.max_eval_queries)
        units = _select(make_units(chunks, [*choose, *report]), cfg)
        steps = baselines.plan(method, _build_dataset(units, cfg), units, cfg)
        retriever = _build_retriever(cfg)
        baselines.train(method, retriever, steps, cfg, base=self.base)

        embed = self._through(retriever.adapter) if retriever.adapter is not None else _within(retriever)
        held = make_evaluation_set(
            chunks, choose, report, max_documents=cfg.max_eval_documents, weak=weak, seed=cfg.seed
        )
        gate = run_gate(held, embed, cfg.strengths)
        details = {"summary": gate.summary, "choosing": gate.as_dict()["choosing"], "steps": len(steps)}
        return Trained(embed, gate.strength, {"full": 1.0, "gated": gate.strength}, details)

    def _through(self, adapter: LinearAdapter) -> Embed:
        """Embed with a linear adapter on the backbone's vectors, which are computed once."""

        def embed(texts: Sequence[str], role: Role, strength: float) -> np.ndarray:
            adapter.strength = strength
            with torch.no_grad():
                base = torch.from_numpy(self._base_vectors(texts, role)).to(adapter.weight.device)
                return adapter(base).numpy(force=True)

        return embed

    def _base_vectors(self, texts: Sequence[str], role: Role) -> np.ndarray:
        key = (role, tuple(texts))
        if key not in self._known:
            self._known[key] = self._retriever.embed_base(texts, role).numpy(force=True)
        return self._known[key]

    @cached_property
    def _retriever(self) -> TrainableRetriever:
        return TrainableRetriever(self.base, adapter="linear")

    @cached_property
    def _passages(self) -> tuple[list[str], list[str]]:
        return passages(self.task.data.corpus, window=self._retriever.inference_max_length)

    @cached_property
    def _bm25(self) -> Run:
        data = self.task.data
        texts = [f"{title}\n{text}" if title else text for title, text in data.corpus.values()]
        return lexical_run(list(data.queries.values()), texts, list(data.queries), list(data.corpus))

    def _dense(self, embed: Embed, strength: float) -> Run:
        """The documents found, each by its best chunk."""
        data = self.task.data
        texts, document_ids = self._passages
        queries = embed(list(data.queries.values()), "query", strength)
        return dense_run(queries, embed(texts, "document", strength), list(data.queries), document_ids)

    def _hybrid(self, run: Run) -> Run:
        return hybrid_run([run, self._bm25])

    def _score(self, run: Run) -> Scores:
        return score_run(run, self.task.data.qrels).per_query


def identity(system: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a trained system's result besides task, backbone, adapter and seed."""
    if system in UNTRAINED:
        return {}
    preset, own = ADAPTED.get(system, ("auto", {}))
    defaults = AdaptConfig().replace(**{**settings, **own}).as_dict()
    return {"preset": preset, "config": {name: v for name, v in defaults.items() if name not in ("base", "seed")}}


def _within(retriever: TrainableRetriever) -> Embed:
    def embed(texts: Sequence[str], role: Role, strength: float) -> np.ndarray:
        retriever.set_strength(strength)
        return retriever.embed(texts, role).numpy(force=True)

    return embed


def _load_linear(model: Path) -> LinearAdapter:
    """The adapter of an exported model, as trained."""
    state = load_file(model / "adapter" / "adapter_model.safetensors")
    adapter = LinearAdapter(state["weight"].shape[0], bias="bias" in state)
    adapter.load_state_dict(state)
    return adapter
