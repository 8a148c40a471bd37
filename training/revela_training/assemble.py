"""What a run is put together from: texts, retriever, language model, and their embeddings and tokens."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from revela_rag.corpus import Chunk
from revela_rag.evaluation import headings_by_document, without_headings
from revela_rag.model.st_format import Role
from revela_rag.model.unknown_tokens import SAMPLED, warn_of_unknown_tokens
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
from revela_training.plan import RunPlan
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
_ONE_HOT = 0.999  # of all texts' largest weights the mean: 1e-4 kept to 0.9997, 1e-3 to 0.989, 0.02 to 0.83


def select(units: list[Unit], plan: RunPlan) -> list[Unit]:
    """At most ``max_training_texts`` texts: pairs first, they teach most; in corpus order."""
    limit = plan.max_training_texts
    if limit is None or sum(len(unit.texts) for unit in units) <= limit:
        return units
    order = np.random.default_rng((plan.seed, 4)).permutation(len(units)).tolist()
    order.sort(key=lambda i: not units[i].is_pair)
    kept, texts = [], 0
    for index in order:
        if texts + len(units[index].texts) > limit:
            break
        kept.append(index)
        texts += len(units[index].texts)
    return [units[i] for i in sorted(kept)]


def build_dataset(
    units: list[Unit], chunks: Sequence[Chunk], held_out: Collection[str], plan: RunPlan, world: World
) -> GroupDataset:
    """Groups for the objective and pairs for the contrastive term.

    Of chunks in ``held_out`` no query is made, and none of their headings, which stand above their neighbours, too.
    """
    interleave = plan.batching == "interleave" or (plan.batching == "auto" and prefers_interleave(units))
    contrasts = plan.contrastive_weight > 0
    return GroupDataset(
        units,
        group_size=plan.group_size,
        length=1,
        neighbours=None if interleave or not plan.neighbours or plan.revela_weight == 0 else bm25_neighbours(units),
        neighbour_count=plan.neighbours,
        interleave=interleave,
        extra_pairs=plan.contrastive_pairs if contrasts else 0,
        extra_negatives=plan.contrastive_negatives if contrasts else 0,
        pseudo=_pseudo(chunks, held_out, plan) if contrasts else ((), ()),
        seed=plan.seed,
    )


def _pseudo(
    chunks: Sequence[Chunk], held_out: Collection[str], plan: RunPlan
) -> tuple[Sequence[PseudoQuery], Sequence[str]]:
    free = [chunk for chunk in chunks if chunk.id not in held_out]
    order = np.random.default_rng((plan.seed, 5)).permutation(len(free))[: _PASSAGES_PER_PSEUDO * plan.pseudo_queries]
    held = headings_by_document([chunk for chunk in chunks if chunk.id in held_out])
    drawn = [free[i] for i in order.tolist()]
    passages = [replace(chunk, title=without_headings(chunk, held)).embedding_text for chunk in drawn]
    return pseudo_queries(passages, limit=plan.pseudo_queries, seed=plan.seed), passages


def plan_steps(dataset: GroupDataset, plan: RunPlan, world: World) -> RunPlan:
    """The plan with as many steps as show each contrastive pair five times, and the data set made as long."""
    steps = plan.max_steps
    if plan.fewest_steps < steps:
        shown = max(1, plan.contrastive_pairs) * plan.groups_per_step * world.size
        wanted = plan.lm_warmup_steps + math.ceil(_CONTRASTIVE_EPOCHS * dataset.contrasts / shown)
        steps = min(max(wanted, plan.fewest_steps), steps)
    dataset.resize(steps * plan.groups_per_step * world.size)
    return plan.replace(max_steps=steps, fewest_steps=steps)


def build_retriever(plan: RunPlan, make: Callable[..., TrainableRetriever] = TrainableRetriever) -> TrainableRetriever:
    """The base with a fresh adapter; ``make`` takes what :class:`TrainableRetriever` does, such as one with a cache."""
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        return make(
            plan.base,
            adapter=plan.adapter,
            lora_rank=plan.lora_rank,
            lora_alpha=plan.lora_alpha,
            lora_dropout=plan.lora_dropout,
            max_length=plan.retriever_max_tokens,
            trust_remote_code=plan.trust_remote_code,
        )


def build_lm(plan: RunPlan) -> tuple[Any, Any]:
    """The LM, trainable as the settings say, and its tokenizer; two times None where the objective is left out."""
    if plan.lm is None:
        return None, None
    training = "frozen" if plan.lm_training == "auto" and plan.read == "joint" else plan.lm_training
    model: Any
    model, tokenizer = load_lm(
        plan.lm,
        dtype="bfloat16" if training == "frozen" and use_bf16(plan.precision) else "float32",
        trust_remote_code=plan.trust_remote_code,
    )
    if training == "auto":
        training = "full" if model.num_parameters() < _FULL_TRAINING_LIMIT else "lora"
    if training == "frozen":
        model.requires_grad_(False)
    elif training == "lora":
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            r=plan.lora_rank,
            lora_alpha=plan.lora_alpha,
            lora_dropout=plan.lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng():
            torch.manual_seed(plan.seed)
            model = get_peft_model(model, lora)
    return model, tokenizer


def within_positions(plan: RunPlan, reader: Any) -> RunPlan:
    """The settings with ``max_tokens`` no larger than what an LM has positions for: twice that in joint reading."""
    positions = getattr(getattr(reader, "config", None), "max_position_embeddings", None)
    positions = positions // 2 if positions and plan.read == "joint" else positions
    if not positions or plan.max_tokens <= positions:
        return plan
    logger.warning("The LM reads at most %d tokens: max_tokens=%s is lowered to that.", positions, plan.max_tokens)
    return plan.replace(max_tokens=int(positions))


def warn_of_one_hot(log: Sequence[Mapping[str, float]], plan: RunPlan) -> None:
    """Say so where every text read a single neighbour in all of a run: then next to no gradient reached the weights."""
    largest = [entry["max_weight"] for entry in log if "max_weight" in entry]
    if largest and min(largest) >= _ONE_HOT:
        logger.warning(
            "The in-batch weights were one-hot from the first step to the last (max_weight %.4f or more), so the "
            "objective taught the retriever next to nothing: raise temperature=%g (0.3 suits standardised rows, 0.02 "
            "cosines of supervised models).",
            min(largest),
            plan.temperature,
        )


def look_for_unknown_tokens(retriever: TrainableRetriever, chunks: Sequence[Chunk], plan: RunPlan) -> None:
    """Warn where the base's tokenizer has no tokens for much of the corpus."""
    tokenizer = retriever.model.tokenizer
    drawn = np.random.default_rng((plan.seed, 7)).permutation(len(chunks))[:SAMPLED]
    texts = [chunks[i].embedding_text for i in drawn.tolist()]
    if texts and callable(tokenizer):
        length = retriever.inference_max_length
        found = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=length)["input_ids"]
        warn_of_unknown_tokens(found, getattr(tokenizer, "unk_token_id", None), retriever.base_name)


def build_collator(
    retriever: TrainableRetriever | VectorRetriever,
    tokenizer: Any,
    dataset: GroupDataset,
    plan: RunPlan,
    work: Workspace,
) -> GroupCollator:
    """All texts tokenised once: for the LM, and for the retriever where its backbone trains."""
    reader = None
    if tokenizer is not None:
        reader = tokenize_for_lm(dataset.texts, tokenizer, max_tokens=plan.max_tokens, keep=work.array)
    if plan.adapter == "linear" or isinstance(retriever, VectorRetriever):
        return GroupCollator(reader)

    def stored(texts: Sequence[str], role: Role) -> TokenStore:
        return tokenize_for_retriever(texts, retriever, role, keep=work.array)

    texts = [*dataset.texts, *dataset.pseudo_texts]
    halves = None if reader is None else _asked(retriever, dataset.texts, plan)
    return GroupCollator(
        reader,
        passages=stored(texts, "document"),
        queries=None if halves is None else stored(halves, "query"),
        asked=stored(texts, "query") if _prompted(retriever) and plan.contrastive_weight else None,
    )


def texts_to_embed(
    retriever: VectorRetriever, dataset: GroupDataset, data: EvaluationSet, plan: RunPlan
) -> tuple[list[str], list[str]]:
    """All that an adaptation embeds, documents and queries: what `cache` asks for, and what the gate does."""
    documents = [*dataset.texts, *dataset.pseudo_texts, *data.documents]
    pairs = [*data.choose, *data.report, *(pair for kind in data.witnesses.values() for pair in kind)]
    queries = [pair.query for pair in pairs]
    if _prompted(retriever) and plan.contrastive_weight:
        queries += [documents[row] for row in dataset.asking]
    if plan.revela_weight != 0:
        queries += _asked(retriever, dataset.texts, plan) or []
    return documents, queries


def _prompted(retriever: TrainableRetriever | VectorRetriever) -> bool:
    if isinstance(retriever, VectorRetriever):
        return retriever.roles_differ
    return retriever.prompts["query"] != retriever.prompts["document"]


def times_embedded(retriever: TrainableRetriever | VectorRetriever, plan: RunPlan) -> int:
    """How often `cache` embeds a text: in each of the roles and parts that differ."""
    halves = plan.revela_weight != 0 and (plan.query_part == "first_half" or _prompted(retriever))
    return 1 + (_prompted(retriever) and plan.contrastive_weight > 0) + halves


def _asked(retriever: TrainableRetriever | VectorRetriever, texts: Sequence[str], plan: RunPlan) -> list[str] | None:
    """What of each text asks; None where that is the text itself, prompt included."""
    if plan.query_part == "first_half":
        return [first_half(text) for text in texts]
    return list(texts) if _prompted(retriever) else None


def cache(
    retriever: TrainableRetriever | VectorRetriever,
    dataset: GroupDataset,
    plan: RunPlan,
    work: Workspace,
    show_progress: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frozen base embeddings, each (N, d), as `RevelaModel` wants them: of the data set's texts and pseudo texts."""

    def embed(name: str, inputs: Sequence[str], role: Role) -> torch.Tensor:
        def block(some: Sequence[str]) -> np.ndarray:
            made = retriever.embed_base(
                list(some), role, max_length=plan.retriever_max_tokens, compute_dtype=compute_dtype(plan.precision)
            )
            return made.numpy(force=True)

        with tqdm(total=len(inputs), desc="embed", unit="text", disable=not show_progress) as bar:
            return torch.from_numpy(work.vectors(name, inputs, block, bar=bar))

    texts = [*dataset.texts, *dataset.pseudo_texts]
    passages = whole = embed("passages", texts, "document")
    if _prompted(retriever) and plan.contrastive_weight:
        rows = dataset.asking
        whole = torch.zeros_like(passages)
        whole[torch.from_numpy(rows)] = embed("asking", [texts[row] for row in rows], "query")
    asked = None if plan.revela_weight == 0 else _asked(retriever, dataset.texts, plan)
    return passages if asked is None else embed("queries", asked, "query"), passages, whole
