from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 61,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.15,
}
_EXTRA = {
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 4},
    "gemma2": {"head_dim": 8, "sliding_window": 4, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "gemma3_text": {"head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 8},
    "smollm3": {"no_rope_layers": [1, 0]},
    "gpt_neox": {"rotary_pct": 0.5},
    "phi": {"partial_rotary_factor": 0.5},
    "granite": {"logits_scaling": 4.0, "attention_multiplier": 0.3},
}


@pytest.fixture
def make_lm():
    """A tiny random causal LM of any architecture, weights large enough for attention to matter."""

    def make(architecture: str = "llama", **changes) -> PreTrainedModel:
        torch.manual_seed(7)
        config = AutoConfig.for_model(architecture, **{**_SHAPE, **_EXTRA.get(architecture, {}), **changes})
        return AutoModelForCausalLM.from_config(config).eval()

    return make


@pytest.fixture
def make_batch():
    """(input_ids, attention_mask, weights that require a gradient): random texts, some of one token."""

    def make(groups: int = 1, size: int = 4, length: int = 9, *, side: str = "right", seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        n = groups * size
        lengths = torch.randint(2, length + 1, (n,), generator=generator)
        lengths[0], lengths[-1] = length, 1
        mask = torch.arange(length) < lengths[:, None]
        ids = torch.randint(3, 61, (n, length), generator=generator)
        ids = torch.where(mask, ids, 0)
        if side == "left":
            shift = length - lengths
            ids = torch.stack([row.roll(int(s)) for row, s in zip(ids, shift, strict=True)])
            mask = torch.stack([row.roll(int(s)) for row, s in zip(mask, shift, strict=True)])
        scores = torch.randn(groups, size, size, generator=generator)
        weights = scores.masked_fill(torch.eye(size, dtype=torch.bool), float("-inf")).softmax(-1)
        return ids, mask.long(), weights.requires_grad_()

    return make
