"""What a run is put together from: texts, retriever, language model, and their embeddings and tokens."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from revela_rag.corpus import Chunk
from revela_rag.evaluation import headings_by_document, without_headings
from revela_rag.model.st_format import Role
from revela_rag.model.unknown_tokens import SAMPLED, warn_of_unknown_tokens
from revela_training.config import AdaptConfig
from revela_training.data.batching import GroupDataset, bm25_neighbours, prefers_interleave
from revela_training.data.collate import GroupCollator
from revela_training.data.pseudo_queries import PseudoQuery, pseudo_queries
from revela_training.data.tokens import TokenStore, tokenize_for_lm, tokenize_for_retriever
from revela_training.data.units import Unit
from revela_training.gate.held_back import EvaluationSet
from revela_training.loop.distributed import World
from revela_training.loop.model import first_half
from revela_training.loop.precision import compute_dtype, use_bf16
from revela_training.loop.workspace import Workspace
from revela_training.objective.lm import load_lm
from revela_training.retriever.backbone import TrainableRetriever
from revela_training.retriever.vectors import VectorRetriever

__all__ = [
    "build_collator",
    "build_dataset",
    "build_lm",
    "build_retriever",
    "cache",
    "look_for_unknown_tokens",
    "plan_steps",
    "select",
    "texts_to_embed",
    "times_embedded",
    "warn_of_one_hot",
    "within_positions",
]

logger = logging.getLogger(__name__)

_FULL_TRAINING_LIMIT = 100_000_000
_PASSAGES_PER_PSEUDO = 4  # passages read for word frequencies, for each that gives queries
_CONTRASTIVE_EPOCHS = 5
_JOINT_STEPS = {"linear": (20, 150), "lora": (20, 24)}
_STEPS_WITHOUT_CONTRAST = {"linear": 300, "lora": 150}
_ONE_HOT = 0.999  # of all texts' largest weights the mean: 1e-4 kept to 0.9997, 1e-3 to 0.989, 0.02 to 0.83


def select(units: list[Unit], cfg: AdaptConfig) -> list[Unit]:
    """At most ``max_training_texts`` texts: pairs first, they teach most; in corpus order."""
    limit = cfg.max_training_texts
    if limit is None or sum(len(unit.texts) for unit in units) <= limit:
        return units
    order = np.random.default_rng((cfg.seed, 4)).permutation(len(units)).tolist()
    order.sort(key=lambda i: not units[i].is_pair)
    kept, texts = [], 0
    for index in order:
        if texts + len(units[index].texts) > limit:
            break
        kept.append(index)
        texts += len(units[index].texts)
    return [units[i] for i in sorted(kept)]


def build_dataset(
    units: list[Unit], chunks: Sequence[Chunk], held_out: Collection[str], cfg: AdaptConfig, world: World
) -> GroupDataset:
    """Groups for the objective and pairs for the contrastive term.

    Of chunks in ``held_out`` no query is made, and none of their headings, which stand above their neighbours, too.
    """
    interleave = cfg.batching == "interleave" or (cfg.batching == "auto" and prefers_interleave(units))
    contrasts = cfg.contrastive_weight > 0
    return GroupDataset(
        units,
        group_size=cfg.group_size,
        length=1,
        neighbours=None if interleave or not cfg.neighbours or cfg.revela_weight == 0 else bm25_neighbours(units),
        neighbour_count=cfg.neighbours,
        interleave=interleave,
        extra_pairs=cfg.contrastive_pairs or 0 if contrasts else 0,
        extra_negatives=cfg.contrastive_negatives or 0 if contrasts else 0,
        pseudo=_pseudo(chunks, held_out, cfg) if contrasts else ((), ()),
        seed=cfg.seed,
    )


def _pseudo(
    chunks: Sequence[Chunk], held_out: Collection[str], cfg: AdaptConfig
) -> tuple[Sequence[PseudoQuery], Sequence[str]]:
    free = [chunk for chunk in chunks if chunk.id not in held_out]
    order = np.random.default_rng((cfg.seed, 5)).permutation(len(free))[: _PASSAGES_PER_PSEUDO * cfg.pseudo_queries]
    held = headings_by_document([chunk for chunk in chunks if chunk.id in held_out])
    drawn = [free[i] for i in order.tolist()]
    passages = [replace(chunk, title=without_headings(chunk, held)).embedding_text for chunk in drawn]
    return pseudo_queries(passages, limit=cfg.pseudo_queries, seed=cfg.seed), passages


def plan_steps(dataset: GroupDataset, cfg: AdaptConfig, world: World) -> AdaptConfig:
    """The settings with ``max_steps`` filled in, and the data set made as long."""
    if cfg.max_steps is None:
        assert cfg.adapter != "auto"
        joint = _STEPS_WITHOUT_CONTRAST[cfg.adapter]
        if cfg.contrastive_weight:
            shown = max(1, cfg.contrastive_pairs or 0) * cfg.groups_per_step * world.size
            fewest, most = _JOINT_STEPS[cfg.adapter]
            joint = min(max(math.ceil(_CONTRASTIVE_EPOCHS * dataset.contrasts / shown), fewest), most)
        cfg = cfg.replace(max_steps=cfg.lm_warmup_steps + joint)
    assert cfg.max_steps is not None
    dataset.resize(cfg.max_steps * cfg.groups_per_step * world.size)
    return cfg


def build_retriever(cfg: AdaptConfig) -> TrainableRetriever:
    """The base with a fresh adapter, of one kind by now."""
    assert cfg.adapter != "auto"
    with torch.random.fork_rng():
        torch.manual_seed(cfg.seed)
        return TrainableRetriever(
            cfg.base,
            adapter=cfg.adapter,
            lora_rank=cfg.lora_rank,
            lora_alpha=cfg.lora_alpha,
            lora_dropout=cfg.lora_dropout,
            max_length=cfg.retriever_max_tokens or 160,
            trust_remote_code=cfg.trust_remote_code,
        )


def build_lm(cfg: AdaptConfig) -> tuple[Any, Any]:
    """The LM, trainable as the settings say, and its tokenizer; two times None where the objective is left out."""
    if cfg.revela_weight == 0:
        return None, None
    training = "frozen" if cfg.lm_training == "auto" and cfg.read == "joint" else cfg.lm_training
    model: Any
    model, tokenizer = load_lm(
        cfg.lm,
        dtype="bfloat16" if training == "frozen" and use_bf16(cfg) else "float32",
        trust_remote_code=cfg.trust_remote_code,
    )
    if training == "auto":
        training = "full" if model.num_parameters() < _FULL_TRAINING_LIMIT else "lora"
    if training == "frozen":
        model.requires_grad_(False)
    elif training == "lora":
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            r=cfg.lora_rank,
            lora_alpha=cfg.lora_alpha,
            lora_dropout=cfg.lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng():
            torch.manual_seed(cfg.seed)
            model = get_peft_model(model, lora)
    return model, tokenizer


def within_positions(cfg: AdaptConfig, reader: Any) -> AdaptConfig:
    """The settings with ``max_tokens`` no larger than what an LM has positions for: twice that in joint reading."""
    positions = getattr(getattr(reader, "config", None), "max_position_embeddings", None)
    positions = positions // 2 if positions and cfg.read == "joint" else positions
    if not positions or (cfg.max_tokens or 160) <= positions:
        return cfg
    logger.warning("The LM reads at most %d tokens: max_tokens=%s is lowered to that.", positions, cfg.max_tokens)
    return cfg.replace(max_tokens=int(positions))


def warn_of_one_hot(log: Sequence[Mapping[str, float]], cfg: AdaptConfig) -> None:
    """Say so where every text read a single neighbour in all of a run: then next to no gradient reached the weights."""
    largest = [entry["max_weight"] for entry in log if "max_weight" in entry]
    if largest and min(largest) >= _ONE_HOT:
        logger.warning(
            "The in-batch weights were one-hot from the first step to the last (max_weight %.4f or more), so the "
            "objective taught the retriever next to nothing: raise temperature=%g (0.3 suits standardised rows, 0.02 "
            "cosines of supervised models).",
            min(largest),
            cfg.temperature,
        )


def look_for_unknown_tokens(retriever: TrainableRetriever, chunks: Sequence[Chunk], cfg: AdaptConfig) -> None:
    """Warn where the base's tokenizer has no tokens for much of the corpus."""
    tokenizer = retriever.model.tokenizer
    drawn = np.random.default_rng((cfg.seed, 7)).permutation(len(chunks))[:SAMPLED]
    texts = [chunks[i].embedding_text for i in drawn.tolist()]
    if texts and callable(tokenizer):
        length = retriever.inference_max_length
        found = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=length)["input_ids"]
        warn_of_unknown_tokens(found, getattr(tokenizer, "unk_token_id", None), retriever.base_name)


def build_collator(
    retriever: TrainableRetriever | VectorRetriever,
    tokenizer: Any,
    dataset: GroupDataset,
    cfg: AdaptConfig,
    work: Workspace,
) -> GroupCollator:
    """All texts tokenised once: for the LM, and for the retriever where its backbone trains."""
    reader = None
    if tokenizer is not None:
        reader = tokenize_for_lm(dataset.texts, tokenizer, max_tokens=cfg.max_tokens or 160, keep=work.array)
    if cfg.adapter == "linear" or isinstance(retriever, VectorRetriever):
        return GroupCollator(reader)

    def stored(texts: Sequence[str], role: Role) -> TokenStore:
        return tokenize_for_retriever(texts, retriever, role, keep=work.array)

    texts = [*dataset.texts, *dataset.pseudo_texts]
    halves = None if reader is None else _asked(retriever, dataset.texts, cfg)
    return GroupCollator(
        reader,
        passages=stored(texts, "document"),
        queries=None if halves is None else stored(halves, "query"),
        asked=stored(texts, "query") if _prompted(retriever) and cfg.contrastive_weight else None,
    )


def texts_to_embed(
    retriever: VectorRetriever, dataset: GroupDataset, data: EvaluationSet, cfg: AdaptConfig
) -> tuple[list[str], list[str]]:
    """All that an adaptation embeds, documents and queries: what `cache` asks for, and what the gate does."""
    documents = [*dataset.texts, *dataset.pseudo_texts, *data.documents]
    pairs = [*data.choose, *data.report, *(pair for kind in data.witnesses.values() for pair in kind)]
    queries = [pair.query for pair in pairs]
    if _prompted(retriever) and cfg.contrastive_weight:
        queries += [documents[row] for row in dataset.asking]
    if cfg.revela_weight != 0:
        queries += _asked(retriever, dataset.texts, cfg) or []
    return documents, queries


def _prompted(retriever: TrainableRetriever | VectorRetriever) -> bool:
    if isinstance(retriever, VectorRetriever):
        return retriever.roles_differ
    return retriever.prompts["query"] != retriever.prompts["document"]


def times_embedded(retriever: TrainableRetriever | VectorRetriever, cfg: AdaptConfig) -> int:
    """How often `cache` embeds a text: in each of the roles and parts that differ."""
    halves = cfg.revela_weight != 0 and (cfg.query_part == "first_half" or _prompted(retriever))
    return 1 + (_prompted(retriever) and cfg.contrastive_weight > 0) + halves


def _asked(retriever: TrainableRetriever | VectorRetriever, texts: Sequence[str], cfg: AdaptConfig) -> list[str] | None:
    """What of each text asks; None where that is the text itself, prompt included."""
    if cfg.query_part == "first_half":
        return [first_half(text) for text in texts]
    return list(texts) if _prompted(retriever) else None


def cache(
    retriever: TrainableRetriever | VectorRetriever,
    dataset: GroupDataset,
    cfg: AdaptConfig,
    work: Workspace,
    show_progress: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frozen base embeddings, each (N, d), as `RevelaModel` wants them: of the data set's texts and pseudo texts."""

    def embed(name: str, inputs: Sequence[str], role: Role) -> torch.Tensor:
        def block(some: Sequence[str]) -> np.ndarray:
            made = retriever.embed_base(
                list(some), role, max_length=cfg.retriever_max_tokens, compute_dtype=compute_dtype(cfg)
            )
            return made.numpy(force=True)

        with tqdm(total=len(inputs), desc="embed", unit="text", disable=not show_progress) as bar:
            return torch.from_numpy(work.vectors(name, inputs, block, bar=bar))

    texts = [*dataset.texts, *dataset.pseudo_texts]
    passages = whole = embed("passages", texts, "document")
    if _prompted(retriever) and cfg.contrastive_weight:
        rows = dataset.asking
        whole = torch.zeros_like(passages)
        whole[torch.from_numpy(rows)] = embed("asking", [texts[row] for row in rows], "query")
    asked = None if cfg.revela_weight == 0 else _asked(retriever, dataset.texts, cfg)
    return passages if asked is None else embed("queries", asked, "query"), passages, whole
