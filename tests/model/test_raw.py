"""Which raw models are read as language models, and that their tokenizers end texts."""

import json

import pytest

from revela_rag.errors import ModelError
from revela_rag.model.raw import is_raw_decoder

from .conftest import bert, llama, sentence_transformer

CONFIGS = [
    ({"model_type": "llama"}, True),
    ({"model_type": "mamba2"}, True),
    ({"model_type": "llama", "is_causal": False}, False),
    ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, False),
    ({"model_type": "bert"}, False),
    ({"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}, False),
    ({"model_type": "roberta", "architectures": ["RobertaForCausalLM"]}, False),  # reads both ways all the same
    ({"model_type": "roberta", "architectures": ["RobertaForCausalLM"], "is_decoder": True}, True),
    ({"model_type": "bert", "architectures": ["BertLMHeadModel"], "is_decoder": True}, True),
    ({"model_type": "modernbert"}, False),
    ({"model_type": "their-own", "architectures": ["TheirForCausalLM"]}, True),
    ({"model_type": "t5"}, False),
    ({}, False),
]


@pytest.mark.parametrize(("config", "decoder"), CONFIGS, ids=str)
def test_language_models_are_told_from_encoders(tmp_path, config, decoder):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert is_raw_decoder(tmp_path) is decoder


def test_what_is_a_retriever_already_is_not_raw(tmp_path):
    assert is_raw_decoder(llama(tmp_path / "llama")) and not is_raw_decoder(bert(tmp_path / "bert"))
    (tmp_path / "llama" / "modules.json").write_text("[]")
    assert not is_raw_decoder(tmp_path / "llama")
    assert not is_raw_decoder(sentence_transformer(tmp_path / "model"))


@pytest.mark.parametrize("content", ["[]", "{", '{"model_type": []}', '{"architectures": 3}'])
def test_a_damaged_configuration_is_a_model_error(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json|cannot be read"):
        is_raw_decoder(tmp_path)
