"""The objective, slowly: one unpadded text at a time, a loop over pairs, scores written out.

Shares nothing with the library: two passes of the LM's public forward, its own attention function, dense softmax.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface


@dataclass
class _State:
    record: dict[int, tuple[Tensor, Tensor]] | None = None
    others: list[tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]] = field(default_factory=list)
    v_norm: bool = True
    joint: bool = False


def _expand(x: Tensor, heads: int) -> Tensor:
    return x.repeat_interleave(heads // x.shape[1], dim=1)


def _scores(q: Tensor, k: Tensor, mask, scaling: float, softcap) -> Tensor:
    scores = q @ _expand(k, q.shape[1]).mT * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    return scores if mask is None else scores + mask


def _attend(*args) -> Tensor:
    return _scores(*args).softmax(-1)


def _joint(query: Tensor, key: Tensor, value: Tensor, mask, scaling: float, softcap, others) -> Tensor:
    scores, values = [_scores(query, key, mask, scaling, softcap)], [value]
    for weight, (other_key, other_value) in others:
        scores.append(_scores(query, other_key, None, scaling, softcap) + weight.log())
        values.append(other_value)
    return torch.cat(scores, -1).softmax(-1) @ _expand(torch.cat(values, 2), query.shape[1])


def _oracle_attention(module, query, key, value, attention_mask, scaling=None, softcap=None, oracle=None, **kwargs):
    layer = module.layer_idx
    output = _attend(query, key, attention_mask, scaling, softcap) @ _expand(value, query.shape[1])
    if oracle.record is not None:
        oracle.record[layer] = (key, value)
    if oracle.joint:
        others = [(weight, layers[layer]) for weight, layers in oracle.others]
        output = _joint(query, key, value, attention_mask, scaling, softcap, others)
        return output.transpose(1, 2).contiguous(), None
    for weight, layers in oracle.others:
        other_key, other_value = layers[layer]
        scores = _attend(query, other_key, None, scaling, softcap)
        read = scores @ _expand(other_value, query.shape[1])
        if oracle.v_norm:
            norms = _expand(other_value.norm(dim=-1, keepdim=True), query.shape[1])
            read = read / (scores @ norms + 1e-6)
        output = output + weight * read
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register("test_oracle", _oracle_attention)
AttentionMaskInterface.register("test_oracle", AttentionMaskInterface()["eager"])


def oracle(lm, input_ids: Tensor, attention_mask: Tensor, weights: Tensor, *, v_norm: bool = True, joint: bool = False):
    """(loss, baseline_loss, logits of every text's real tokens) with gradients; ``lm`` is set to slow attention."""
    lm.set_attn_implementation("test_oracle")
    _groups, size, _ = weights.shape
    texts = [ids[mask.bool()][None] for ids, mask in zip(input_ids, attention_mask, strict=True)]
    tokens = sum(text.shape[1] - 1 for text in texts)

    def loss_of(logits: Tensor, text: Tensor) -> Tensor:
        return F.cross_entropy(logits[0, :-1].float(), text[0, 1:], reduction="sum") / tokens

    records, baseline = [], 0.0
    for text in texts:
        record: dict[int, tuple[Tensor, Tensor]] = {}
        logits = lm(input_ids=text, oracle=_State(record=record), use_cache=False).logits
        records.append(record)
        baseline = baseline + loss_of(logits, text)
    loss, every = 0.0, []
    for i, text in enumerate(texts):
        group, row = divmod(i, size)
        others = [(weights[group, row, j], records[group * size + j]) for j in range(size) if j != row]
        behind = max(texts[group * size + j].shape[1] for j in range(size)) if joint else 0
        positions = torch.arange(behind, behind + text.shape[1])[None]
        state = _State(others=others, v_norm=v_norm, joint=joint)
        logits = lm(input_ids=text, position_ids=positions, oracle=state, use_cache=False).logits
        loss = loss + loss_of(logits, text)
        every.append(logits[0])
    return loss, baseline, torch.cat(every)
