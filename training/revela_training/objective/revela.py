"""The Revela objective: a language model that reads its neighbours teaches the retriever who they should be.

Cai et al., "Revela: Dense Retriever Learning via Language Modeling", ICLR 2026, arXiv 2506.16552, section 3.
Shapes: G groups of B texts, N = G * B, L tokens, P pairs, H heads, E head size of values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from revela_training.objective.attention import Pairs, plan_buckets, read_twice, select_pairs
from revela_training.objective.cross_entropy import chunked_cross_entropy
from revela_training.objective.interface import CausalLM, Layers, Reader
from revela_training.objective.readers import AddingReader, HandOn, JointReader
from revela_training.objective.weights import ObjectiveError

__all__ = ["AttentionName", "ObjectiveOutput", "ReadName", "RevelaObjective"]

ReadName = Literal["joint", "published"]

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

    The LM reads every text twice. The base stream is the plain LM. The cross stream also reads, in each layer, the
    keys and values that the base stream has there for the other texts j of its group (after rotary embedding). The
    gradient reaches the retriever through W alone. There are two ways to read them:

    - ``"joint"``: one softmax over a token's own text (causal) and all tokens of its neighbours, ``log W[i, j]`` added
      to the scores of neighbour j's; positions of the cross stream begin behind the longest text of its group, so
      neighbours lie in its past. Any LM reads so as it stands: freeze it. Then the base stream costs a forward without
      graph, and no weight of the LM needs a gradient.
    - ``"published"``: each layer adds to the self-attention of text i the sum over j of ``W[i, j] * b_ij``, b_ij the
      full attention of i's queries to j, before the output projection. The LM has to be trained for it, or have been:
      SmolLM2-135M goes from 4.7 to 11.0 nats per token at first.

    A text's own attention keeps the LM's masks and sliding windows. Attention between texts is always full, masks only
    padding, takes the LM's scale and soft cap, and has no dropout. Every layer of the LM must call
    ``transformers.AttentionInterface``. The LM's attention implementation is then named ``revela_...`` in memory (not
    when saved), and the LM, called on its own, computes what it did before.

    Padding may stand on either side: positions count real tokens, and no token is predicted from padding, so
    both sides give the same loss. Gradient checkpointing (also reentrant), PEFT, frozen parameters, autocast,
    bf16 and a compiled decoder (``lm.get_decoder().compile()``) work as usual; an LM compiled as a whole is refused.

    Args:
        lm: a causal LM (``AutoModelForCausalLM``), or a PEFT model around one.
        read: how neighbours are read, see above.
        v_norm: divide b_ij per head by the attention's mean value norm (paper: on for prose, off for code); published
            reading only.
        dual: add the base stream's loss, so that the LM keeps learning to read without neighbours.
        min_weight: leave out pairs with W[i, j] <= this. 0 computes all of them, exactly; 0.01 is faster and
            changes little where W is peaked (read ``dropped_mass``; keep it well below 1 / (B - 1)).
            `revela_training.objective.attention.select_pairs` says what the dropped mass bounds.
        attention: how published attention between texts is computed. "auto", and "triton" and "sdpa" to insist, are
            those of `revela_training.objective.attention.cross_attention`. "reference" is the dense form the method was
            published with (two passes, all pairs, scores and logits written out): slower and larger, there to compare
            with.

    Raises:
        ModelError: the attention of the LM, or of some of its layers, cannot be reached.
        ObjectiveError: ``min_weight`` is not in [0, 1), ``attention`` is unknown or cannot do what is asked, or the LM
            was compiled as a whole.

    Example:
        >>> objective = RevelaObjective(lm.requires_grad_(False), min_weight=0.03)
        >>> weights = similarity_weights(queries, passages, temperature=0.3, standardize=True)
        >>> objective(input_ids, attention_mask, weights=weights).loss.backward()
    """

    def __init__(
        self,
        lm: nn.Module,
        *,
        read: ReadName = "joint",
        v_norm: bool = True,
        dual: bool = False,
        min_weight: float = 0.0,
        attention: AttentionName = "auto",
    ) -> None:
        super().__init__()
        if read not in get_args(ReadName):
            raise ObjectiveError(f"read must be one of {', '.join(get_args(ReadName))}, got {read!r}")
        if not 0.0 <= min_weight < 1.0:
            raise ObjectiveError(f"min_weight must be in [0, 1), got {min_weight}: 0 keeps every pair, 0.01 is fast")
        if attention not in get_args(AttentionName):
            raise ObjectiveError(f"attention must be one of {', '.join(get_args(AttentionName))}, got {attention!r}")
        if read == "joint" and attention in ("reference", "triton"):
            raise ObjectiveError(f'attention = {attention!r} reads the published way alone: use read="published"')
        if attention == "reference" and min_weight:
            raise ObjectiveError(f"the reference attends to every pair, got min_weight = {min_weight}: set it to 0")
        self.lm = lm
        self.read: ReadName = read
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
        pairs = select_pairs(weights, self.min_weight)
        baseline = baseline or self.dual
        streams = _Streams(input_ids, mask, real, weights.shape[-1], behind=self.read == "joint")
        if self.attention == "reference":
            base, cross = self._run_reference(streams, weights)
        elif self.read == "joint" and not any(p.requires_grad for p in self.lm.parameters()):
            base, cross = self._run_frozen(streams, pairs, whole=baseline)
        else:
            base, cross = self._run(streams, pairs)

        loss = cross_loss = self._loss(cross[:, :-1][predicted], targets)
        baseline_loss = None
        if baseline:
            assert base is not None
            with nullcontext() if self.dual else torch.no_grad():
                baseline_loss = self._loss(base[:, :-1][predicted], targets)
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

    def _run(self, streams: _Streams, pairs: Pairs) -> tuple[Tensor | None, Tensor]:
        """Final states of base and cross stream, (N, L, hidden) each, in one call of the LM."""
        ids, mask, positions = streams.doubled()
        with self._reader(streams, pairs, None) as reader:
            base, cross = self._parts.hidden_states(ids, mask, positions, reader).chunk(2)
        return base, cross

    def _run_frozen(self, streams: _Streams, pairs: Pairs, *, whole: bool) -> tuple[Tensor | None, Tensor]:
        """The same where nothing of the LM learns: the base stream leaves keys and values and needs no graph.

        Its states are None unless it is wanted ``whole``.
        """
        with torch.no_grad():
            base, layers = self._parts.recorded(streams.ids, streams.mask, streams.positions, whole=whole)
        with self._reader(streams, pairs, layers) as reader:
            cross = self._parts.hidden_states(streams.ids, streams.mask, streams.cross_positions, reader)
        return base, cross

    def _run_reference(self, streams: _Streams, weights: Tensor) -> tuple[Tensor | None, Tensor]:
        if any(getattr(m, "gradient_checkpointing", False) and m.training for m in self._parts.decoder.modules()):
            raise ObjectiveError(
                'attention = "reference" keeps the keys and values of every layer, which gradient checkpointing '
                'throws away: use attention = "auto", or switch checkpointing off'
            )
        return read_twice(
            self._parts,
            streams.ids,
            streams.mask,
            streams.positions,
            weights,
            key_mask=streams.key_mask,
            v_norm=self.v_norm,
        )

    @contextmanager
    def _reader(self, streams: _Streams, pairs: Pairs, layers: Layers | None) -> Iterator[Reader]:
        if self.read == "joint":
            smallest = torch.finfo(pairs.weights.dtype).tiny  # 0 is never read, see `plan_buckets`
            with self._within_reach(pairs.weights.clamp_min(smallest).log()) as log_weights:
                yield JointReader(plan_buckets(pairs, streams.real), log_weights, streams.real, layers)
        else:
            assert self.attention != "reference"
            with self._within_reach(pairs.weights) as weights:
                yield AddingReader(replace(pairs, weights=weights), streams.key_mask, self.v_norm, self.attention)

    @contextmanager
    def _within_reach(self, weights: Tensor) -> Iterator[Tensor]:
        """Weights that get their gradient even where reentrant checkpoints run a backward per layer.

        Those end in a leaf, whose sum is handed on.
        """
        if not (weights.requires_grad and torch.is_grad_enabled() and self._parts.reentrant_checkpointing()):
            yield weights
            return
        leaf = weights.detach().requires_grad_()
        hook = self._parts.model.get_input_embeddings().register_forward_hook(
            lambda module, args, output: HandOn.apply([leaf], output, weights)
        )
        try:
            yield leaf
        finally:
            hook.remove()

    def _loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        parts = self._parts
        if self.attention == "reference":
            return functional.cross_entropy(parts.logits(hidden).float(), targets)
        return chunked_cross_entropy(
            hidden, targets, parts.logits, parts.head_parameters(), vocabulary=parts.vocabulary
        )


@dataclass(frozen=True)
class _Streams:
    """What both streams read: the same texts at other places.

    Attributes:
        ids: (N, L).
        mask: (N, L), 1 for real tokens.
        real: (N, L) bool.
        size: texts of a group, B.
        behind: the cross stream's positions begin behind those of the longest text of its group.
    """

    ids: Tensor
    mask: Tensor
    real: Tensor
    size: int
    behind: bool

    @cached_property
    def key_mask(self) -> Tensor | None:
        """(N, L) bool; None when no token is padding."""
        return None if bool(self.real.all()) else self.real

    @cached_property
    def positions(self) -> Tensor:
        """(N, L) int64, of the base stream: real tokens are counted."""
        return (self.real.cumsum(-1) - 1).clamp_min(0)

    @cached_property
    def cross_positions(self) -> Tensor:
        """(N, L) int64, of the cross stream."""
        if not self.behind:
            return self.positions
        longest = self.real.sum(-1).view(-1, self.size).amax(-1)
        return self.positions + longest.repeat_interleave(self.size)[:, None]

    def doubled(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, mask and positions of the base stream's rows, then the cross stream's, (2N, L) each."""
        positions = torch.cat([self.positions, self.cross_positions])
        return torch.cat([self.ids] * 2), torch.cat([self.mask] * 2), positions


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
