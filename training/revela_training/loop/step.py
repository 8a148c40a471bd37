"""One optimisation step in as many pieces as memory asks for, with the gradients of one piece.

The step goes over the embeddings: the retriever encodes, the LM reads some groups at a time and leaves its gradient
on the embeddings, and from there the gradient goes back through the retriever, all at once or, after encoding again,
in chunks (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", GradCache,
arXiv 2101.06983). Every mean is over the tokens of the whole step, in all processes, however it is cut.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from revela_rag.errors import TrainingError
from revela_rag.memory import available_memory, is_out_of_memory
from revela_training.data.tokens import trim
from revela_training.loop.distributed import World
from revela_training.loop.model import RevelaModel
from revela_training.losses import ContrastiveLoss
from revela_training.plan import RunPlan
from revela_training.retriever.embedding import like_length, rows_of
from revela_training.retriever.vectors import VectorRetriever

__all__ = ["Embeddings", "Step", "StepResult"]

logger = logging.getLogger(__name__)

_SMALLEST_CHUNK = 4
_CPU_CHUNK = 16  # texts; about what the caches of a core hold
_BYTES = 85  # of activations for each token, layer and hidden unit, LoRA under bfloat16 autocast on a CPU

#: From embeddings of what asks and what answers, and which texts those are, to a loss; None where there are no pairs.
Term = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor | None]


@dataclass(frozen=True, slots=True)
class StepResult:
    """Loss and metrics of a step, over all processes."""

    loss: float
    metrics: dict[str, float]


class Step:
    """Leaves the gradients of one step on the parameters.

    Args:
        model: the model.
        config: settings; ``groups_at_once`` and ``retriever_chunk`` say how small the pieces are to begin with.
        world: the processes that share the step.
        split: whether FSDP splits the LM; it averages gradients, and no process can repeat a step alone.
        bf16: run LM and backbone under bfloat16 autocast; similarities and losses stay float32.

    Attributes:
        groups_at_once: groups the LM reads at once now.
        chunk: texts the retriever encodes at once, without keeping activations, now; None is all of them, kept.
    """

    def __init__(
        self, model: RevelaModel, config: RunPlan, *, world: World, split: bool = False, bf16: bool = False
    ) -> None:
        self._model = model
        self._config = config
        self._world = world
        self._split = split
        self._bf16 = bf16
        contrastive = ContrastiveLoss(config.contrastive_temperature, config.self_distillation)
        self._terms: dict[str, tuple[float, Term]] = {  # what is a loss over pairs, by the name it is logged under
            "contrastive_loss": (config.contrastive_weight, contrastive.over_kinds),
        }
        self.groups_at_once = config.groups_at_once
        self.chunk = None if model.is_cached else config.retriever_chunk

    def __call__(self, batch: Mapping[str, Any]) -> StepResult:
        """Compute the gradients of ``batch``; parameters must come without any.

        Raises:
            TrainingError: not even one group fits into memory.
        """
        random = _RandomState(batch["text_index"].device)
        self._spare_memory(batch)
        tokens = _predicted(batch)
        total = self._world.sum([float(tokens.sum())])[0]
        while True:
            failed = False
            try:
                embeddings = Embeddings(self._model, batch, self.chunk, bf16=self._bf16)
            except (RuntimeError, MemoryError) as error:
                failed = self._is_ours(error)
            if not self._world.any(failed):
                others = self._others(batch, embeddings)
                try:
                    sums = self._backward(batch, embeddings, others, tokens, total)
                except (RuntimeError, MemoryError) as error:
                    failed = self._is_ours(error)
                del others
                if not self._world.any(failed):
                    break
            embeddings = None  # type: ignore[assignment]  # frees its graph
            self._model.zero_grad(set_to_none=True)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._shrink(len(batch["text_index"]), batch["text_index"].shape[1])
            random.restore()
        del embeddings
        self._world.sum_gradients(self._model.parameters())
        return self._result(sums)

    def _spare_memory(self, batch: Mapping[str, Any]) -> None:
        """Encode in chunks where all activations together could fill the memory: a system kills what fills it."""
        model, free = self._model, available_memory()
        if self.chunk is not None or model.is_cached or batch["text_index"].is_cuda or free is None:
            return
        if not model.retriever_learns or isinstance(model.retriever, VectorRetriever):
            return
        config = model.retriever.backbone.config
        width, layers = (getattr(config, name, 0) for name in ("hidden_size", "num_hidden_layers"))
        roles = [role for role in model.roles(batch) if role in batch]
        tokens = sum(int(batch[role]["attention_mask"].sum()) for role in roles)
        needed = tokens * width * layers * _BYTES * (1 if self._bf16 else 2)
        if needed > free / 2:
            self.chunk = _CPU_CHUNK
            logger.warning(
                "A step would take %.1f GB of the %.1f GB of memory that are free: encoding %d texts at a time, "
                "twice. The result stays the same; steps take longer.",
                needed / 1e9,
                free / 1e9,
                self.chunk,
            )

    def _is_ours(self, error: BaseException) -> bool:
        if not is_out_of_memory(error):
            raise error
        if self._split:
            raise TrainingError(
                f"Out of memory with the LM split between {self._world.size} processes, where a step cannot be "
                f"repeated in smaller pieces. Set groups_at_once below {self.groups_at_once}"
                " or retriever_chunk, or use more processes."
            ) from error
        return True

    def _shrink(self, groups: int, size: int) -> None:
        """Halve what is computed at once; the same in all processes."""
        now = min(self.groups_at_once, groups)
        chunk = self.chunk
        if now > 1:
            self.groups_at_once = now // 2
            if not self._model.is_cached:
                self.chunk = min(chunk or groups * size, self.groups_at_once * size)
        elif not self._model.is_cached and (chunk is None or chunk > _SMALLEST_CHUNK):
            self.chunk = max(_SMALLEST_CHUNK, (chunk or 2 * size) // 2)
        else:
            raise TrainingError(
                f"Out of memory with a single group of group_size={self._config.group_size} texts of "
                f"max_tokens={self._config.max_tokens} tokens. Halve max_tokens or group_size, or take a smaller LM."
            )
        text = "" if self.chunk is None else f", {self.chunk} texts in the retriever"
        logger.warning(
            "Out of memory: going on with %d of %d groups at once%s. The result stays the same; steps take longer.",
            min(self.groups_at_once, groups),
            groups,
            text,
        )

    def _others(self, batch: Mapping[str, Any], embeddings: Embeddings) -> dict[str, Tensor]:
        """What the contrastive term needs of all processes."""
        if not self._model.contrasts:
            return {}
        gather = self._world.gather
        return {
            "pair_index": gather(batch["pair_index"]).unique(dim=0),
            "pseudo_index": gather(batch["pseudo_index"]).unique(dim=0),
            "asked_index": gather(batch["asked_index"]),
            "answer_index": gather(batch["answer_index"]),
            "asked": gather(embeddings.leaves["asked"].detach()),
            "answers": gather(embeddings.leaves["answers"].detach()),
            **{name: gather(value) for name, value in embeddings.base.items()},
        }

    def _backward(
        self,
        batch: Mapping[str, Any],
        embeddings: Embeddings,
        others: Mapping[str, Tensor],
        tokens: Tensor,
        total: float,
    ) -> dict[str, Tensor | float]:
        model, groups = self._model, len(tokens)
        factor = self._world.size if self._split else 1  # FSDP averages where a sum is wanted
        sums: dict[str, Tensor | float] = {"tokens": float(tokens.sum()), "texts": float(groups)}
        for rows in _slices(groups, self.groups_at_once):
            share = int(tokens[rows].sum())
            if share == 0:
                continue
            queries, passages = (embeddings.of(role)[rows] for role in ("queries", "passages"))
            with _autocast(queries.device, self._bf16):
                reading = model.read(*_texts(batch, rows), queries=queries, passages=passages)
            if reading.loss.requires_grad:  # not where the LM is frozen and the retriever stands still
                (reading.loss * (share / total * factor)).backward()
            found = {"loss": reading.loss.detach(), **reading.metrics}
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value * share
            sums["max_weight"] = sums.get("max_weight", 0.0) + reading.max_weight * (rows.stop - rows.start)
        embeddings.divide_gradient(factor)
        if others:
            self._add_terms(batch, embeddings, others, sums)
        embeddings.backward()
        return sums

    def _add_terms(
        self,
        batch: Mapping[str, Any],
        embeddings: Embeddings,
        others: Mapping[str, Tensor],
        sums: dict[str, Tensor | float],
    ) -> None:
        """Backward of the terms over the pairs of all processes; each has the gradient of its own texts."""
        asked, answers = (
            self._with_own(others[role], batch[index], embeddings.leaves[role])
            for role, index in (("asked", "asked_index"), ("answers", "answer_index"))
        )
        for name, (weight, term) in self._terms.items():
            loss = term(asked, answers, others)
            if loss is not None:
                sums[name] = loss.detach() / self._world.size
                (loss * weight).backward()

    def _with_own(self, everywhere: Tensor, index: Tensor, leaf: Tensor) -> Tensor:
        """The gathered rows, those of this process with their gradient."""
        if self._world.size == 1:
            return leaf
        counts = self._world.sum([float(len(index)) * (rank == self._world.rank) for rank in range(self._world.size)])
        before = int(sum(counts[: self._world.rank]))
        return torch.cat([everywhere[:before], leaf, everywhere[before + len(leaf) :]])

    def _result(self, sums: Mapping[str, Tensor | float]) -> StepResult:
        names = ("loss", "lm_loss", "baseline_loss", "max_weight", *self._terms, "tokens", "texts")
        there = [name for name in names if name in sums]
        values = dict(zip(there, self._world.sum([float(sums[name]) for name in there]), strict=True))
        tokens, texts = values.pop("tokens"), values.pop("texts")
        by = {"max_weight": texts, **dict.fromkeys(self._terms, 1.0)}
        means = {name: value / by.get(name, tokens) for name, value in values.items()}
        loss = means.pop("loss", 0.0)
        for name, (weight, _) in self._terms.items():
            loss += weight * means.get(name, 0.0)
        return StepResult(loss, means)


class Embeddings:
    """Embeddings of a batch, cut off from the graph behind them; `backward` takes their gradient through it.

    Args:
        model: the model.
        batch: what `GroupCollator` makes.
        chunk: texts to encode at once without a graph, and again with one for the gradient; None keeps the graph.
        bf16: encode under bfloat16 autocast.

    Attributes:
        leaves: by role, as `RevelaModel.roles` says; they collect the gradient.
        base: what the contrastive term needs of the unadapted model, as `ContrastiveLoss` names it.
    """

    def __init__(self, model: RevelaModel, batch: Mapping[str, Any], chunk: int | None, *, bf16: bool) -> None:
        self._model = model
        self._bf16 = bf16
        self._batch = batch
        self._pieces: list[_Piece] = []
        with torch.set_grad_enabled(model.retriever_learns and (chunk is None or model.is_cached)):
            self._graphs = {role: self._make(role, chunk) for role in model.roles(batch)}
        self.base: dict[str, Tensor] = {}
        if model.distils:
            with model.retriever.unadapted():
                self.base = {f"base_{role}": self._make(role, None) for role in ("asked", "answers")}
        learns = model.retriever_learns
        self.leaves = {role: made.detach().requires_grad_(learns) for role, made in self._graphs.items()}

    def of(self, role: str) -> Tensor:
        """Embeddings of a role of the LM's; passages ask for themselves where nothing else does."""
        return self.leaves[role if role in self.leaves else "passages"]

    def _make(self, role: str, chunk: int | None) -> Tensor:
        if self._model.is_cached or role not in self._batch:
            return self._model.embed_role(self._batch, role)
        made = self._encode(role, chunk)
        return made.view(*self._batch["text_index"].shape, -1) if role in ("passages", "queries") else made

    def _encode(self, role: str, chunk: int | None) -> Tensor:
        """Embed texts of like length together; in chunks how each was made is kept, to make it again with a graph."""
        features = self._batch[role]
        parts = like_length(features["attention_mask"].sum(-1), chunk)
        made = []
        for rows in parts:
            if chunk is not None:
                self._pieces.append(_Piece(role, rows, _RandomState(rows.device)))
            with _autocast(rows.device, self._bf16):
                made.append(self._model.encode(rows_of(features, rows)))
        return torch.cat(made)[torch.cat(parts).argsort()]

    def divide_gradient(self, factor: int) -> None:
        """Take back a factor that was meant for the LM's own gradients."""
        for leaf in self.leaves.values():
            if factor != 1 and leaf.grad is not None:
                leaf.grad /= factor

    def backward(self) -> None:
        """Go on from the gradient that the embeddings have by now."""
        if not self._model.retriever_learns:
            return
        chunked = {piece.role for piece in self._pieces}
        pairs = [
            (self._graphs[role], leaf.grad)
            for role, leaf in self.leaves.items()
            if role not in chunked and leaf.grad is not None and self._graphs[role].requires_grad
        ]
        if pairs:
            torch.autograd.backward([graph for graph, _ in pairs], [grad for _, grad in pairs])
        for piece in self._pieces:
            gradient = self.leaves[piece.role].grad
            if gradient is None:
                continue
            after = _RandomState(piece.rows.device)
            piece.random.restore()
            with _autocast(piece.rows.device, self._bf16):
                part = self._model.encode(rows_of(self._batch[piece.role], piece.rows))
            part.backward(gradient.flatten(0, -2)[piece.rows])
            after.restore()


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows that were encoded together, and the random numbers that dropout drew for them."""

    role: str
    rows: Tensor
    random: _RandomState


class _RandomState:
    """State of the random numbers of the CPU and of one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._device)


def _predicted(batch: Mapping[str, Any]) -> Tensor:
    """Tokens the LM predicts in each group, (G,) on the CPU: all of a text but its first; 0 where no LM reads."""
    if "attention_mask" not in batch:
        return torch.zeros(len(batch["text_index"]))
    lengths = batch["attention_mask"].sum(-1).cpu()
    return (lengths - 1).clamp_min(0).view(batch["text_index"].shape).sum(-1)


def _autocast(device: torch.device, bf16: bool) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _texts(batch: Mapping[str, Any], groups: slice) -> tuple[Tensor, Tensor]:
    """The LM's input for some of the groups, without columns of padding."""
    size = batch["text_index"].shape[1]
    rows = slice(groups.start * size, groups.stop * size)
    return trim(batch["input_ids"][rows], batch["attention_mask"][rows])
