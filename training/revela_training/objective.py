"""The Revela objective: a language model that reads its neighbours teaches the retriever who they should be.

Cai et al., "Revela: Dense Retriever Learning via Language Modeling", ICLR 2026, arXiv 2506.16552, section 3.
Shapes: G groups of B texts, N = G * B, L tokens, P pairs, H heads, E head size of values.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from revela_training.attention import Implementation, Pairs, cross_attention, read_twice, select_pairs
from revela_training.cross_entropy import chunked_cross_entropy
from revela_training.interface import CausalLM
from revela_training.weights import ObjectiveError

__all__ = ["AttentionName", "ObjectiveOutput", "RevelaObjective"]

AttentionName = Literal["auto", "triton", "sdpa", "reference"]


@dataclass
class ObjectiveOutput:
    """What one call of the objective gives.

    Attributes:
        loss: () fp32, to call ``backward`` on: next-token cross-entropy of the cross stream, plus that of the
            base stream if ``dual``.
        baseline_loss: () fp32, of the base stream: the same LM without its neighbours. Carries a gradient only
            if ``dual``; None if it was not asked for.
        cross_loss: () fp32, of the cross stream alone, without graph. ``baseline_loss - cross_loss`` is what the
            LM gains from its neighbours, in nats per token.
        dropped_mass: () fp32, mean over texts of the attention weight that ``min_weight`` left out.
        pairs: how many pairs were attended to.
        tokens: how many tokens were predicted; the losses are means over them.
    """

    loss: Tensor
    baseline_loss: Tensor | None
    cross_loss: Tensor
    dropped_mass: Tensor
    pairs: int
    tokens: int
    _make_logits: Callable[[], Tensor] = field(repr=False)

    @cached_property
    def logits(self) -> Tensor:
        """Logits of the cross stream, (N, L, vocabulary), made on first access: training never needs them.

        Read them before the LM's parameters change.
        """
        return self._make_logits()


class RevelaObjective(nn.Module):
    """Next-token loss of a causal LM whose texts also read each other, as much as the retriever says.

    The LM runs once over every text twice, [x; x]. The first half, the base stream, is the plain LM. In the
    second, the cross stream, each layer adds to the self-attention of text i the sum over the other texts j of
    its group of ``W[i, j] * b_ij``, b_ij the full attention of i's queries to the keys and values that the base
    stream has for j in that layer (after rotary embedding, before the output projection). The gradient reaches
    the retriever through W alone.

    Self-attention stays the LM's own: masks, sliding windows, soft caps, dropout. Attention between texts is
    always full, masks only padding, takes the LM's scale and soft cap, and has no dropout. Every layer of the LM
    must call ``transformers.AttentionInterface``. The LM's attention implementation is then named ``revela_...``
    in memory (not when saved), and the LM, called on its own, computes what it did before.

    Padding may stand on either side: positions count real tokens, and no token is predicted from padding, so
    both sides give the same loss. Gradient checkpointing (also reentrant), PEFT, frozen parameters, autocast,
    bf16 and a compiled decoder (``lm.get_decoder().compile()``) work as usual; an LM compiled as a whole is refused.

    Args:
        lm: a causal LM (``AutoModelForCausalLM``), or a PEFT model around one.
        v_norm: divide b_ij per head by the attention's mean value norm (paper: on for prose, off for code).
        dual: add the base stream's loss, so that the LM keeps learning to read without neighbours.
        min_weight: leave out pairs with W[i, j] <= this. 0 computes all of them, exactly; 0.01 is faster and
            changes little where W is peaked (read ``dropped_mass``; keep it well below 1 / (B - 1)).
            `revela_training.attention.select_pairs` says what the dropped mass bounds.
        attention: how attention between texts is computed. "auto", and "triton" and "sdpa" to insist, are those of
            `revela_training.attention.cross_attention`. "reference" is the dense form the method was published
            with (two passes, all pairs, scores and logits written out): slower and larger, there to compare with.

    Raises:
        ModelError: the attention of the LM, or of some of its layers, cannot be reached.
        ObjectiveError: ``min_weight`` is not in [0, 1), ``attention`` is unknown or cannot do what is asked, or the LM
            was compiled as a whole.

    Example:
        >>> objective = RevelaObjective(lm, min_weight=0.01)
        >>> weights = similarity_weights(queries, passages, temperature=0.02)
        >>> objective(input_ids, attention_mask, weights=weights).loss.backward()
    """

    def __init__(
        self,
        lm: nn.Module,
        *,
        v_norm: bool = True,
        dual: bool = False,
        min_weight: float = 0.0,
        attention: AttentionName = "auto",
    ) -> None:
        super().__init__()
        if not 0.0 <= min_weight < 1.0:
            raise ObjectiveError(f"min_weight must be in [0, 1), got {min_weight}: 0 keeps every pair, 0.01 is fast")
        if attention not in get_args(AttentionName):
            raise ObjectiveError(f"attention must be one of {', '.join(get_args(AttentionName))}, got {attention!r}")
        if attention == "reference" and min_weight:
            raise ObjectiveError(f"the reference attends to every pair, got min_weight = {min_weight}: set it to 0")
        self.lm = lm
        self.v_norm = v_norm
        self.dual = dual
        self.min_weight = min_weight
        self.attention: AttentionName = attention
        _refuse_compiled_whole(lm)
        self._parts = CausalLM(lm)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor | None = None,
        *,
        weights: Tensor,
        baseline: bool = True,
    ) -> ObjectiveOutput:
        """Compute the losses of one batch.

        Args:
            input_ids: (G * B, L) int64, group after group.
            attention_mask: (G * B, L), 1 for tokens and 0 for padding on either side; None: nothing is padded.
            labels: (G * B, L) int64, token ids, -100 where nothing is to be predicted; default ``input_ids``
                without the padding. A label is predicted from the token before it, unless that is padding.
            weights: (B, B) or (G, B, B), zero diagonals, as `similarity_weights` gives them.
            baseline: compute ``baseline_loss``; False saves one forward of the head where it is not logged.

        Returns:
            Losses and counts; logits on demand.

        Raises:
            ObjectiveError: shapes do not fit, a diagonal is not zero, or there is no token to predict.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        weights, real, targets, predicted = _check(input_ids, mask, labels, weights)
        n = len(input_ids)
        pairs = select_pairs(weights, self.min_weight)
        positions = (real.cumsum(-1) - 1).clamp_min(0)
        if self.attention == "reference":
            hidden = self._run_reference(input_ids, mask, positions, real, weights)
        else:
            hidden = self._run(input_ids, mask, positions, real, pairs)

        cross = hidden[n:]
        loss = cross_loss = self._loss(cross[:, :-1][predicted], targets)
        baseline_loss = None
        if self.dual or baseline:
            with nullcontext() if self.dual else torch.no_grad():
                baseline_loss = self._loss(hidden[:n, :-1][predicted], targets)
            loss = loss + baseline_loss if self.dual else loss
        return ObjectiveOutput(
            loss=loss,
            baseline_loss=baseline_loss,
            cross_loss=cross_loss.detach(),
            dropped_mass=pairs.dropped_mass,
            pairs=len(pairs.readers),
            tokens=len(targets),
            _make_logits=lambda: self._parts.logits(cross),
        )

    def _run(self, input_ids: Tensor, mask: Tensor, positions: Tensor, real: Tensor, pairs: Pairs) -> Tensor:
        assert self.attention != "reference"
        reader = _CrossReader(pairs, None if bool(real.all()) else real, self.v_norm, self.attention)
        hook = None
        if pairs.weights.requires_grad and torch.is_grad_enabled() and self._parts.reentrant_checkpointing():
            # reentrant checkpoints run a backward per layer: let those end in a leaf, and hand its sum on
            leaf = pairs.weights.detach().requires_grad_()
            reader = replace(reader, pairs=replace(pairs, weights=leaf))
            hook = self._parts.model.get_input_embeddings().register_forward_hook(
                lambda module, args, output: _HandOn.apply([leaf], output, pairs.weights)
            )
        try:
            ids, mask, positions = (torch.cat([x, x]) for x in (input_ids, mask, positions))
            return self._parts.hidden_states(ids, mask, positions, reader)
        finally:
            if hook is not None:
                hook.remove()

    def _run_reference(
        self, input_ids: Tensor, mask: Tensor, positions: Tensor, real: Tensor, weights: Tensor
    ) -> Tensor:
        if any(getattr(m, "gradient_checkpointing", False) and m.training for m in self._parts.decoder.modules()):
            raise ObjectiveError(
                'attention = "reference" keeps the keys and values of every layer, which gradient checkpointing '
                'throws away: use attention = "auto", or switch checkpointing off'
            )
        key_mask = None if bool(real.all()) else real
        return read_twice(self._parts, input_ids, mask, positions, weights, key_mask=key_mask, v_norm=self.v_norm)

    def _loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        parts = self._parts
        if self.attention == "reference":
            return functional.cross_entropy(parts.logits(hidden).float(), targets)
        return chunked_cross_entropy(
            hidden, targets, parts.logits, parts.head_parameters(), vocabulary=parts.vocabulary
        )


@dataclass(frozen=True, slots=True)
class _CrossReader:
    """Adds, in every layer, what the cross stream reads in the base stream."""

    pairs: Pairs
    key_mask: Tensor | None
    v_norm: bool
    implementation: Implementation

    @torch.compiler.disable  # its loops and kernels gain nothing; the LM around it is compiled as usual
    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        output: Tensor,
        arguments: dict[str, Any],
    ) -> Tensor:
        n = len(query) // 2
        scaling = arguments.get("scaling")
        read = cross_attention(
            query[n:],
            key[:n],
            value[:n],
            self.pairs,
            key_mask=self.key_mask,
            scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
            v_norm=self.v_norm,
            softcap=arguments.get("softcap"),
            implementation=self.implementation,
        )
        return torch.cat([output[:n], output[n:] + read.transpose(1, 2)])


class _HandOn(torch.autograd.Function):
    """Identity on the embeddings whose backward, the last to run, hands the leaf's gradient to the weights."""

    @staticmethod
    def forward(ctx: Any, leaf: list[Tensor], embeddings: Tensor, weights: Tensor) -> Tensor:
        ctx.leaf = leaf
        return embeddings.view_as(embeddings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor | None]:
        (leaf,) = ctx.leaf
        collected, leaf.grad = leaf.grad, None
        return None, grad, collected


def _refuse_compiled_whole(lm: nn.Module) -> None:
    """Decoder and head are called one by one: a compiled whole would never run, or run as something else."""
    base = getattr(lm, "get_base_model", lambda: lm)()
    if any(hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) is not None for m in (lm, base)):
        raise ObjectiveError(
            "the LM was compiled as a whole, but the objective calls its decoder and its head one by one: "
            "load it anew and compile its decoder, lm.get_decoder().compile(), or its layers"
        )


def _check(
    input_ids: Tensor, mask: Tensor, labels: Tensor | None, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Validated (weights (G, B, B) fp32, real (N, L), targets (M,), predicted (N, L - 1))."""
    weights = (weights[None] if weights.ndim == 2 else weights).float()
    if weights.ndim != 3 or weights.shape[1] != weights.shape[2]:
        raise ObjectiveError(f"weights must be (B, B) or (G, B, B), got {tuple(weights.shape)}")
    groups, size, _ = weights.shape
    if input_ids.ndim != 2 or len(input_ids) != groups * size:
        raise ObjectiveError(
            f"input_ids of shape {tuple(input_ids.shape)} do not fit weights for {groups} group(s) of {size} "
            f"texts: give ({groups * size}, L), group after group"
        )
    for name, tensor in (("attention_mask", mask), ("labels", labels)):
        if tensor is not None and tensor.shape != input_ids.shape:
            raise ObjectiveError(
                f"{name} is {tuple(tensor.shape)}, input_ids {tuple(input_ids.shape)}: give the same shape"
            )
    real = mask.bool()
    labels = input_ids.masked_fill(~real, -100) if labels is None else labels
    if bool(weights.detach().diagonal(dim1=1, dim2=2).any()):
        raise ObjectiveError(
            "the diagonal of weights is not zero: a text that attends fully to itself sees the tokens it is to "
            "predict. Use similarity_weights, or zero the diagonal"
        )
    predicted = (labels[:, 1:] != -100) & real[:, :-1]
    targets = labels[:, 1:][predicted]
    if len(targets) == 0:
        raise ObjectiveError("no token to predict: every text has a single token or its labels are all -100")
    return weights, real, targets, predicted
