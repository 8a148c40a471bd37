"""The field's label-free methods, on the same texts, steps, adapter and learning rate as `adapt`.

- ``contrastive``: InfoNCE on the pairs that structure gives away (docstring and body, heading and section, halves).
- ``ict``: inverse cloze task (Lee, Chang & Toutanova 2019): a span cut out of a chunk finds the rest of it.
- ``simcse``: a text finds itself through other dropout (Gao, Yao & Chen 2021). Under the linear adapter the dropout is
  on the frozen embedding, as nothing else is random there.
- ``tsdae``: a decoder restores a text from the embedding of its ruins (Wang, Reimers & Gurevych 2021).

The losses are those of sentence-transformers. Its trainer is not used: all methods must see the same texts in the same
order, which the `GroupDataset` of `adapt` decides.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sentence_transformers.sentence_transformer.losses import DenoisingAutoEncoderLoss, MultipleNegativesRankingLoss
from torch import Tensor, nn
from torch.nn import functional as F

from revela_rag.errors import TrainingError
from revela_rag.model.st_format import Role
from revela_training.data.batching import GroupDataset
from revela_training.plan import RunPlan
from revela_training.retriever.backbone import TrainableRetriever
from revela_training.retriever.embedding import tokenize

METHODS = ("contrastive", "ict", "simcse", "tsdae")
DROPOUT = 0.1
_KEPT_WORDS = 0.4  # TSDAE deletes 60 % of them
_KEPT_SPANS = 0.1  # ICT leaves the query in its passage that often
_WARMUP_STEPS = 20


class NotRunError(TrainingError):
    """The method cannot be run in this setting; the message says why."""


@dataclass(frozen=True)
class Step:
    """What one step trains on: texts that must find each other, row by row."""

    left: list[str]
    right: list[str]


def plan(method: str, dataset: GroupDataset, cfg: RunPlan) -> list[Step]:
    """The texts of every step: those of the groups and pairs that `adapt` draws with the same settings."""
    chunks: dict[int, list[str]] = {}
    for owner, text in zip(dataset.owners.tolist(), dataset.texts, strict=True):
        chunks.setdefault(owner, []).append(text)
    steps = []
    for start in range(0, cfg.max_steps * cfg.groups_per_step, cfg.groups_per_step):
        groups = [dataset[start + i] for i in range(cfg.groups_per_step)]
        pairs = np.unique(np.concatenate([group.pairs for group in groups]), axis=0)
        pairs = pairs[pairs[:, 0] >= 0]
        drawn = np.unique(np.concatenate([*(group.texts for group in groups), pairs.ravel()]))
        if method == "contrastive":
            rows = [(dataset.texts[query], dataset.texts[answer]) for query, answer in pairs.tolist()]
        elif method == "simcse":
            rows = [(text, text) for text in dict.fromkeys(dataset.texts[i] for i in drawn.tolist())]
        else:
            whole = dict.fromkeys("\n".join(chunks[owner]) for owner in np.unique(dataset.owners[drawn]).tolist())
            made = [cropped(chunk) if method == "ict" else (damaged(chunk), chunk) for chunk in whole]
            rows = [row for row in made if row]
        if len(rows) > 1:
            steps.append(Step([left for left, _ in rows], [right for _, right in rows]))
    if not steps:
        raise NotRunError(f"the corpus gives nothing to train {method} on")
    return steps


def cropped(text: str) -> tuple[str, str] | None:
    """A span of a fifth to a half of the words and the rest, or None for short texts. A function of the text alone."""
    words = list(re.finditer(r"\S+", text))
    if len(words) < 8:
        return None
    rng = _random(text)
    size = max(3, round(len(words) * rng.uniform(0.2, 0.5)))
    first = int(rng.integers(0, len(words) - size + 1))
    start, end = words[first].start(), words[first + size - 1].end()
    rest = text if rng.random() < _KEPT_SPANS else f"{text[:start]}{text[end:]}".strip()
    return text[start:end], rest


def damaged(text: str) -> str:
    """The text with 60 % of its words deleted; at least one stays. A function of the text alone."""
    words = text.split()
    rng = _random(text)
    kept = [word for word, draw in zip(words, rng.random(len(words)), strict=True) if draw < _KEPT_WORDS]
    return " ".join(kept or words[:1])


def train(method: str, retriever: TrainableRetriever, steps: Sequence[Step], cfg: RunPlan, *, base: str) -> None:
    """Train the retriever's adapter in place.

    Raises:
        NotRunError: the method needs what the retriever does not have.
    """
    torch.manual_seed(cfg.seed)
    if method == "tsdae":
        parameters, loss = _tsdae(retriever, base)
    else:
        parameters, loss = _infonce(method, retriever, steps, cfg)
    retriever.train()
    if method == "simcse" and retriever.adapter is None:
        retriever.backbone.train()  # attention drops out with its module, not with a dropout layer
    _fit(parameters, loss, steps, cfg)
    retriever.eval()


def _infonce(
    method: str, retriever: TrainableRetriever, steps: Sequence[Step], cfg: RunPlan
) -> tuple[list[nn.Parameter], Callable[[Step], Tensor]]:
    roles: tuple[Role, Role] = ("document", "document") if method == "simcse" else ("query", "document")
    infonce = MultipleNegativesRankingLoss(retriever.model, scale=1 / cfg.contrastive_temperature)
    encode: Callable[[list[str], Role], Tensor] = retriever.encode
    if retriever.adapter is not None:
        encode = _cached_encode(retriever, steps, roles, cfg, dropout=DROPOUT if method == "simcse" else 0.0)
    elif method == "simcse":
        for module in retriever.backbone.modules():
            if isinstance(module, nn.Dropout):
                module.p = DROPOUT

    def loss(step: Step) -> Tensor:
        return infonce.compute_loss_from_embeddings([encode(step.left, roles[0]), encode(step.right, roles[1])], None)

    return retriever.trainable_parameters(), loss


def _cached_encode(
    retriever: TrainableRetriever, steps: Sequence[Step], roles: tuple[Role, Role], cfg: RunPlan, *, dropout: float
) -> Callable[[list[str], Role], Tensor]:
    """Encode through the linear adapter alone, the backbone having run once over all texts."""
    needed: dict[Role, dict[str, int]] = {}
    for step in steps:
        for role, texts in zip(roles, (step.left, step.right), strict=True):
            rows = needed.setdefault(role, {})
            for text in texts:
                rows.setdefault(text, len(rows))
    tables = {
        role: retriever.embed_base(list(rows), role, max_length=cfg.retriever_max_tokens)
        for role, rows in needed.items()
    }

    def encode(texts: list[str], role: Role) -> Tensor:
        vectors = tables[role][[needed[role][text] for text in texts]]
        return retriever.adapt_embeddings(F.dropout(vectors, dropout))

    return encode


def _tsdae(retriever: TrainableRetriever, base: str) -> tuple[list[nn.Parameter], Callable[[Step], Tensor]]:
    """The decoder starts as a copy of the base with new cross-attention, and is thrown away afterwards."""
    if retriever.adapter is not None:
        raise NotRunError("TSDAE trains an encoder, and the linear adapter has none that learns: use tsdae/lora")
    retriever.backbone.config._name_or_path = base
    try:
        objective = DenoisingAutoEncoderLoss(retriever.model, decoder_name_or_path=base, tie_encoder_decoder=False)
    except (TypeError, ValueError) as error:
        raise NotRunError(f"TSDAE needs a decoder with cross-attention: {error}") from error
    if not any("crossattention" in name.lower() for name, _ in objective.decoder.named_modules()):
        raise NotRunError(f"TSDAE needs a decoder with cross-attention, {type(objective.decoder).__name__} has none")
    objective.decoder.to(retriever.device).train()

    def features(texts: list[str]) -> dict[str, Any]:
        prompt, length = retriever.prompts["document"], retriever.max_length
        return tokenize(retriever.model, texts, prompt=prompt, length=length, device=retriever.device)

    def loss(step: Step) -> Tensor:
        return objective([features(step.left), features(step.right)], None)

    return [*retriever.trainable_parameters(), *objective.decoder.parameters()], loss


def _fit(
    parameters: Sequence[nn.Parameter], loss: Callable[[Step], Tensor], steps: Sequence[Step], cfg: RunPlan
) -> None:
    """AdamW with the schedule and the clipping of `revela_training.loop.trainer`."""
    optimizer = torch.optim.AdamW(parameters, lr=cfg.retriever_lr, betas=(0.9, 0.98), weight_decay=cfg.weight_decay)

    def scale(step: int) -> float:
        return min(1.0, (step + 1) / _WARMUP_STEPS) * min(1.0, max(0.02, 2 * (1 - step / len(steps))))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    for step in steps:
        optimizer.zero_grad()
        loss(step).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()


def _random(text: str) -> np.random.Generator:
    """A generator that depends on the text alone, so that what it draws is embedded once for all seeds."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], "big"))
