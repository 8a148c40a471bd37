"""The job: corpus in, adapted retriever out, with the proof beside it."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from revela_rag.api import is_api
from revela_rag.api.vectors import ApiVectors
from revela_rag.corpus import Corpus, StructuralPair, load_corpus
from revela_rag.errors import CorpusError, ModelError, TrainingError
from revela_rag.model.st_format import Role
from revela_rag.model.window import read_window
from revela_training.assemble import (
    build_collator,
    build_dataset,
    build_lm,
    build_retriever,
    cache,
    look_for_unknown_tokens,
    plan_steps,
    select,
    texts_to_embed,
    times_embedded,
    warn_of_one_hot,
    within_positions,
)
from revela_training.budget import Budget, Plan, work_of
from revela_training.config import AdaptConfig, flat_settings, load_config
from revela_training.data.units import make_units, split_pairs
from revela_training.gate import FEWEST_TO_CHOOSE, Embed, Gate, keep_base, run_gate
from revela_training.gate.held_back import EvaluationSet, evaluation_pairs, make_evaluation_set
from revela_training.loop.distributed import World, start_world
from revela_training.loop.model import RevelaModel
from revela_training.loop.precision import compute_dtype
from revela_training.loop.trainer import train
from revela_training.loop.workspace import EMBEDDED_AT_ONCE, Workspace, digest
from revela_training.plan import RunPlan
from revela_training.resolve import resolve_plans
from revela_training.retriever.backbone import TrainableRetriever
from revela_training.retriever.export import check_output, export_model
from revela_training.retriever.export_map import export_map
from revela_training.retriever.vectors import Confirm, VectorRetriever

__all__ = ["AdaptResult", "adapt"]

logger = logging.getLogger(__name__)

Retriever = TrainableRetriever | VectorRetriever

_SHARE_OF_FIRST = 0.6  # of the time that is left, for an adapter that another may follow
#: What a time limit may cut, as it is told.
_CUT = {"steps": "steps", "texts": "texts to train on", "documents": "texts to search", "queries": "queries a half"}
_API_LENGTH = 512  # tokens of a text that embeddings behind an API read, about
_LARGEST_ON_CPU = 25_000_000  # frozen parameters of the layers: MiniLM-L6 has 11 million, MiniLM-L12 21


@dataclass(frozen=True)
class AdaptResult:
    """What an adaptation gave.

    Attributes:
        path: directory of the model, which loads in any sentence-transformers consumer; for embeddings behind an API
            of the map, see :meth:`revela_rag.Encoder.over`.
        adapted: whether the returned model differs from the base.
        strength: chosen strength of the adapter; 0 when the base was kept.
        summary: one plain sentence with before and after.
        report: everything measured: corpus statistics, training log, choosing and reporting halves, per-query values.
    """

    path: Path
    adapted: bool
    strength: float
    summary: str
    report: dict[str, Any]


def adapt(
    source: str | Path | Iterable[Any],
    *,
    output: str | Path,
    base: Any = None,
    lm: str | None = None,
    preset: str = "auto",
    max_steps: int | None = None,
    time_limit: float | None = None,
    resume: bool = False,
    config: AdaptConfig | str | Path | None = None,
    show_progress: bool = True,
    cache: str | Path | bool | None = None,
    confirm: Confirm | None = None,
    build: Callable[[RunPlan], TrainableRetriever] | None = None,
    trainer: Callable[..., list[dict[str, float]]] | None = None,
    **settings: Any,
) -> AdaptResult:
    """Adapt a retriever to a corpus without labels (Cai et al., ICLR 2026).

    Started by ``torchrun`` or ``accelerate launch`` all processes train together; the first one writes, evaluates
    and keeps the caches, and all return the same.

    Args:
        source: folder, file, BEIR directory, JSON, YAML, JSONL or Parquet file, :class:`~revela_rag.corpus.Corpus`, or
            an iterable of documents (LangChain Documents and LlamaIndex Nodes among them).
        output: directory to write the model to.
        base: model to adapt; default all-MiniLM-L6-v2. Or embeddings behind an API, whose vectors are mapped: LangChain
            ``Embeddings``, a LlamaIndex ``BaseEmbedding``, or a function as :class:`revela_rag.ApiEmbeddings`.
        lm: causal LM to train against with the Revela objective, ``"bundled"`` for the small one; by default there is
            none, and settings of the objective alone (``temperature``, ``v_norm``, ...) do nothing but cause a warning.
        preset: ``"prose"``, ``"code"``, ``"published"`` or ``"auto"`` (by what most chunks are).
        max_steps: optimiser steps, LM warm-up included.
        time_limit: seconds for all of it, reading and judging included: where not everything fits, fewer texts train
            and judge, drawn at random; the report says how many of how many.
        resume: go on from an interrupted run with the same output and settings.
        config: an :class:`AdaptConfig`, which goes without a preset, or a TOML or JSON file with some of its settings.
        show_progress: show progress bars.
        cache: where vectors from behind an API are kept, a file or a directory; None for the user's cache, False for
            nowhere.
        confirm: asked with a :class:`~revela_rag.api.CostEstimate` before anything of the source is sent to an API,
            unless it is all in the cache; where it gives False, nothing is sent. None sends.
        build: makes the retriever that is adapted, its adapter included; for experiments, such as one that keeps
            embeddings between runs. None is :func:`revela_training.assemble.build_retriever`.
        trainer: trains it in place, to compare methods on the same texts, held-back queries and gate; called as what
            None stands for, :func:`revela_training.loop.trainer.train`.
        **settings: any other field of :class:`AdaptConfig`, ``adapter`` among them: by default tool catalogues
            and other small corpora of prose are adapted inside the model with LoRA, and all else, or what
            LoRA does no good, with a linear map.

    Returns:
        Where the model is and what was measured. Of embeddings behind an API it is a small folder for
        :meth:`revela_rag.Encoder.over`.

    Raises:
        CorpusError: nothing usable in ``source``, or fewer texts than one batch.
        ModelError: the base model or the LM cannot be loaded.
        EmbeddingError: embeddings behind an API fail; what they gave is kept, and running again goes on from there.
        TrainingError: settings that cannot be used, or training that cannot go on.
        DiskError: the disk is full; nothing half-written is left.

    Example:
        >>> from revela_training import adapt
        >>> result = adapt("docs/", output="my-retriever", max_steps=200)  # doctest: +SKIP
        >>> print(result.summary)  # doctest: +SKIP
    """
    started = time.monotonic()
    output = check_output(output)
    world = start_world()
    if world.leads and output.is_dir() and any(output.iterdir()):
        logger.warning(
            "%s holds a model already, which this run replaces when it is done; indexes made with it must be built "
            "again. Choose another --output to keep it.",
            output,
        )
    show_progress = show_progress and world.leads
    made_by: Callable[[RunPlan], Retriever] = build or build_retriever
    served = isinstance(base, ApiVectors) or is_api(base)
    if served:
        made_by, base = _over_api(base, cache=cache, confirm=confirm)
    given = {"base": base, "lm": lm, "max_steps": max_steps, "time_limit": time_limit}
    chosen = {**flat_settings(settings), **{name: value for name, value in given.items() if value is not None}}
    stored = config.as_dict() if isinstance(config, AdaptConfig) else load_config(config) if config else {}
    if served:
        chosen["adapter"] = _outside({**stored, **chosen}.get("adapter"), base)
    values = {**AdaptConfig().as_dict(), **stored, **chosen}
    if isinstance(source, Corpus):
        corpus = source
    else:  # what lies behind the model's window would neither train nor be found
        trusted = bool(values["trust_remote_code"])
        window = None if served else read_window(values["base"], trust_remote_code=trusted)
        corpus = load_corpus(source, max_words=values["max_words"], window=window, show_progress=show_progress)
    logger.info("%s", corpus.report.summary())
    pairs, weak = evaluation_pairs(corpus.chunks)
    configs = resolve_plans(corpus.chunks, preset=preset, config=config, changes=chosen, served=served)
    tried = {"adapter": "auto"} if len(configs) > 1 else {}
    work = Workspace(
        output,
        identity={
            **{name: value for name, value in _jsonable(configs[0].as_dict()).items() if name != "time_limit"},
            **tried,
            "corpus": digest(c.id for c in corpus.chunks),
            "processes": world.size,
        },
        resume=resume,
        world=world,
    )
    try:
        budget = Budget(configs[0].time_limit, started=started, world=world, show=show_progress and not served)
        job = _Job(corpus, pairs, weak, world, show_progress, budget, made_by, trainer or train)
        result = job.run(configs, output, work, started=started)
    except (CorpusError, ModelError, TrainingError):
        work.remove()  # going on from there would only fail again
        raise
    else:
        work.remove()
        return result
    finally:
        work.close()


@dataclass(frozen=True)
class _Job:
    """What all adapters that are tried have in common."""

    corpus: Corpus
    pairs: Sequence[StructuralPair]
    weak: bool
    world: World
    show_progress: bool
    budget: Budget
    build: Callable[[RunPlan], Retriever]
    trainer: Callable[..., list[dict[str, float]]]

    def run(self, configs: Sequence[RunPlan], output: Path, work: Workspace, *, started: float) -> AdaptResult:
        """Adapt with the first settings whose adapter the gate accepts, or else those that come last."""
        refused: list[dict[str, str]] = []
        told: dict[str, Any]
        if self._is_too_small(configs[-1]):
            return self._keep(configs[-1], output, started=started)
        for cfg in configs:
            last = cfg is configs[-1]
            share = 1.0 if last else _SHARE_OF_FIRST
            part = work if cfg is configs[0] else work.within(cfg.adapter)
            try:
                retriever = self.build(cfg)
                if cfg is configs[0] and isinstance(retriever, TrainableRetriever):
                    look_for_unknown_tokens(retriever, self.corpus.chunks, cfg)
                if not last and isinstance(retriever, TrainableRetriever) and _is_slow(retriever):
                    raise ModelError(f"{retriever.base_name} is too large to train inside in minutes on a CPU")
                report, data = self._train(retriever, cfg, part, share)
            except (ModelError, TrainingError) as error:
                if last:
                    raise
                told = {"strength": 0.0, "summary": str(error)}
            else:
                gate = self._choose(retriever, data, cfg, part)
                gate = gate and replace(gate, summary=_with_limit(gate.summary, report["training"]))
                decided = "" if gate is None else json.dumps({"strength": gate.strength, "summary": gate.summary})
                told = json.loads(self.world.text_from_leader(decided))
            if told["strength"] or last:
                break
            refused.append({"adapter": cfg.adapter, "summary": told["summary"]})
            logger.info("%s: %s; trying the next adapter", cfg.adapter, told["summary"])
        queries = _queries(data.report)
        return self._written(retriever, output, gate, report, started, {"queries": queries, "refused": refused})

    def _written(
        self,
        retriever: Retriever,
        output: Path,
        gate: Gate | None,
        report: dict[str, Any],
        started: float,
        proof: dict[str, Any],
    ) -> AdaptResult:
        """Write the model, in the first process, which alone has a gate, and tell all the same."""
        stored = ""
        if gate is not None:
            proof = {"gate": gate.as_dict(), "seconds": round(time.monotonic() - started, 1), **proof}
            _write(retriever, output, gate, {**report, **proof})
            stored = json.dumps(proof)
        proof = json.loads(self.world.text_from_leader(stored))
        told = proof["gate"]
        return AdaptResult(output, told["strength"] > 0, told["strength"], told["summary"], {**report, **proof})

    def _held_back(self, cfg: RunPlan) -> tuple[list[StructuralPair], list[StructuralPair]]:
        """The pairs that choose and those that report."""
        return split_pairs(self.pairs, holdout=cfg.holdout, max_queries=cfg.max_eval_queries)

    def _is_too_small(self, cfg: RunPlan) -> bool:
        """Whether too few documents would choose a strength, so that all else is in vain.

        Raises:
            CorpusError: and there are not even the texts of one group.
        """
        choose, report = self._held_back(cfg)
        if report and len({pair.chunk_id for pair in choose}) >= FEWEST_TO_CHOOSE:
            return False
        if len(self.corpus.chunks) < cfg.group_size:
            raise CorpusError(f"There is too little to adapt to: {self._too_few(cfg)}")
        return True

    def _too_few(self, cfg: RunPlan) -> str:
        skipped = self.corpus.report.skipped_summary()
        needed = math.ceil(2 * FEWEST_TO_CHOOSE / cfg.holdout)
        return (
            f"of the corpus' {len(self.corpus.chunks)} chunks {len({pair.chunk_id for pair in self.pairs})} have a "
            "heading, a docstring or a title of three words with a text below, or are long enough to be cut in two: "
            f"too few to tell a better model by. It takes about {needed}, of which {FEWEST_TO_CHOOSE} are held back to "
            "choose by and as many to report. Add documents, or longer ones."
            f"{f' Skipped: {skipped}' if skipped else ''}"
        )

    def _keep(self, cfg: RunPlan, output: Path, *, started: float) -> AdaptResult:
        """The base as it is, where nothing could show whether another model is better."""
        training = {"units": 0, "texts": 0, "pairs": 0, "pseudo_texts": 0, "processes": self.world.size}
        told = {"config": cfg.as_dict(), "corpus": self.corpus.report.as_dict(), "training": training, "log": []}
        gate = keep_base(self._too_few(cfg)) if self.world.leads else None
        return self._written(self.build(cfg), output, gate, told, started, {"queries": [], "refused": []})

    def _planned(self, retriever: Retriever, cfg: RunPlan, work: Workspace, share: float) -> Plan:
        """What fits into the time that is left, or all."""
        chunks = self.corpus.chunks
        length = retriever.inference_max_length if isinstance(retriever, TrainableRetriever) else _API_LENGTH
        texts = [text for unit in select(make_units(chunks, crop=self.weak), cfg) for text in unit.texts]
        times = times_embedded(retriever, cfg)
        todo = work_of(texts, chunks, len(self.pairs), cfg, length=length, times=times)
        return self.budget.plan(work.folder, retriever, cfg, chunks, todo, share=share)

    def _train(
        self, retriever: Retriever, cfg: RunPlan, work: Workspace, share: float
    ) -> tuple[dict[str, Any], EvaluationSet]:
        """Train the adapter; what to report of it, and the queries held back from it."""
        chunks = self.corpus.chunks
        plan = self._planned(retriever, cfg, work, share)
        cfg = plan.applied(cfg)
        choose, report_pairs = self._held_back(cfg)
        stored = isinstance(retriever, VectorRetriever) and retriever.vectors.has_documents  # of whole texts
        units = select(make_units(chunks, [*choose, *report_pairs], crop=self.weak and not stored), cfg)
        held_out = {pair.chunk_id for pair in (*choose, *report_pairs)}
        dataset = build_dataset(units, chunks, held_out, cfg, self.world)
        cfg = plan_steps(dataset, cfg, self.world)

        def judged_by(documents: int) -> EvaluationSet:
            return make_evaluation_set(
                chunks, choose, report_pairs, max_documents=documents, weak=self.weak, seed=cfg.seed
            )

        cost = None
        if isinstance(retriever, VectorRetriever):
            sent = texts_to_embed(retriever, dataset, judged_by(plan.documents), cfg)
            cost = retriever.foresee(*sent).as_dict()
        reader, tokenizer = build_lm(cfg)
        cfg = within_positions(cfg, reader)
        texts = [*dataset.texts, *dataset.pseudo_texts]
        if cfg.adapter == "linear":
            self.budget.say(f"Embedding {len(texts):,} texts to train on", *plan.seconds_of(texts, cfg))
        cached = cache(retriever, dataset, cfg, work, self.show_progress) if cfg.adapter == "linear" else None
        plan = self.budget.for_training(plan, work.folder, share=share)
        self.budget.say(f"Training for {cfg.max_steps} steps", plan.training, after=plan.judging)
        log = self.trainer(
            RevelaModel(retriever, reader, cfg, cached=cached),
            dataset,
            build_collator(retriever, tokenizer, dataset, cfg, work),
            cfg.replace(time_limit=plan.training),
            folder=work.checkpoints,
            resume=work.resuming,
            show_progress=self.show_progress,
            world=self.world,
        )
        warn_of_one_hot(log, cfg)
        documents = self.budget.for_judging(plan, share=share)
        data = judged_by(documents)
        searched = (len(data.documents), plan.sizes["documents"][1])
        report = {
            "config": cfg.as_dict(),
            "corpus": self.corpus.report.as_dict(),
            "training": {
                "units": len(units),
                "texts": len(dataset.texts),
                "pairs": sum(u.is_pair for u in units),
                "pseudo_texts": len(dataset.pseudo_texts),
                "processes": self.world.size,
                "steps": int(max((entry["step"] for entry in log), default=cfg.max_steps)),
                "planned_steps": cfg.max_steps,
                "sampled": replace(plan, sizes={**plan.sizes, "documents": searched}).sampled,
            },
            "log": log,
            **({"cost": cost} if cost else {}),
        }
        queries, about = len(choose) + len(report_pairs), plan.judging or None
        self.budget.say(f"Judging by {queries:,} queries among {len(data.documents):,} texts", about)
        return report, data

    def _choose(self, retriever: Retriever, data: EvaluationSet, cfg: RunPlan, work: Workspace) -> Gate | None:
        """What the gate makes of it, in the first process alone."""
        if not self.world.leads:
            return None
        retriever.eval()
        embed = _embedder(retriever, work, cfg, self.show_progress)
        held = bool(cfg.self_distillation and cfg.contrastive_weight)
        strict = cfg.adapter == "lora" or data.terse
        return run_gate(data, embed, cfg.strengths, strict=strict, gentle=not held)


def _over_api(
    embeddings: Any, *, cache: str | Path | bool | None, confirm: Confirm | None
) -> tuple[Callable[[RunPlan], Retriever], str]:
    """What builds a retriever over embeddings behind an API, and their name."""
    vectors = embeddings if isinstance(embeddings, ApiVectors) else ApiVectors(embeddings, cache=cache)
    return lambda cfg: VectorRetriever(vectors, confirm=confirm), vectors.name


def _outside(adapter: str | None, base: str) -> str:
    """The adapter of a base that nothing can be trained inside of."""
    if adapter == "lora":
        raise TrainingError(
            f"adapter='lora' trains inside a model, and {base!r} is behind an API; leave the adapter out, or "
            "take 'linear'."
        )
    return adapter if adapter not in (None, "auto") else "linear"


def _with_limit(summary: str, training: dict[str, Any]) -> str:
    """A verdict with how much it is about, where a time limit cut that short."""
    cut = {"steps": (training["steps"], training["planned_steps"]), **training["sampled"]}
    said = [f"{cut[name][0]:,} of {cut[name][1]:,} {what}" for name, what in _CUT.items() if _is_cut(cut.get(name))]
    if not said:
        return summary
    verdict, mark, rest = summary.partition(";")
    return f"{verdict} (time limit: {', '.join(said)}){mark}{rest}"


def _is_cut(counts: Sequence[int] | None) -> bool:
    return counts is not None and counts[0] < counts[1]


def _is_slow(retriever: TrainableRetriever) -> bool:
    """Whether LoRA would keep a CPU busy for more than minutes."""
    frozen = ((name, p) for name, p in retriever.backbone.named_parameters() if not p.requires_grad)
    layers = sum(p.numel() for name, p in frozen if "embedding" not in name)
    return retriever.device.type == "cpu" and layers > _LARGEST_ON_CPU


def _embedder(retriever: Retriever, work: Workspace, cfg: RunPlan, show_progress: bool) -> Embed:
    """Vectors at the model's full inference length. Under a linear adapter the backbone runs once for all strengths."""
    work, compute = work.alone(), compute_dtype(cfg.precision)
    trained = digest(str(value.tolist()) for value in retriever.trainable_parameters())

    def kept(name: str, texts: Sequence[str], make: Callable[[Sequence[str]], torch.Tensor]) -> np.ndarray:
        show = show_progress and len(texts) > EMBEDDED_AT_ONCE
        with tqdm(total=len(texts), desc="judge", unit="text", delay=1, disable=not show) as bar:  # most are kept
            return work.vectors(name, texts, lambda some: make(some).numpy(force=True), bar=bar)

    def embed(texts: Sequence[str], role: Role, strength: float) -> np.ndarray:
        retriever.set_strength(strength)
        if retriever.adapter is None:
            name = f"evaluate-{role}-{strength:g}-{trained}"
            return kept(name, texts, lambda some: retriever.embed(some, role, compute_dtype=compute))
        base = kept(f"evaluate-{role}", texts, lambda some: retriever.embed_base(some, role, compute_dtype=compute))
        with torch.no_grad():
            return retriever.adapt_embeddings(torch.from_numpy(base).to(retriever.device)).numpy(force=True)

    return embed


def _write(retriever: Retriever, output: Path, gate: Gate, report: dict[str, Any]) -> None:
    summary = {name: {m: e.mean(m) for m in e.per_query} for name, e in gate.evaluations.items()}
    stored = {
        "summary": gate.summary,
        "strength": gate.strength,
        **({"trust": gate.trust} if gate.trust and gate.strength else {}),
        "config": _jsonable(report["config"]),
        "corpus": report["corpus"],
        "training": report["training"],
        "evaluation": summary,
        "choosing": {str(s): value for s, value in gate.choosing.items()},
        "seconds": report["seconds"],
        "refused": report["refused"],
        **({"cost": report["cost"]} if "cost" in report else {}),
    }
    if isinstance(retriever, VectorRetriever):
        export_map(retriever, output, strength=gate.strength, revela_json=stored)
    else:
        export_model(retriever, output, strength=gate.strength, revela_json=stored)


def _queries(pairs: Sequence[StructuralPair]) -> list[dict[str, str]]:
    return [
        {"id": str(i), "query": pair.query, "chunk_id": pair.chunk_id, "role": pair.query_role}
        for i, pair in enumerate(pairs)
    ]


def _jsonable(values: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
