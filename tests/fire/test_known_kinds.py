"""What is usual passes: the configurations that transformers itself gives."""

import json
import struct

import pytest
import torch
from transformers import AutoConfig, AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from revela_rag.model.safety import check_model

KINDS = [
    "albert",
    "bert",
    "deberta-v2",
    "deepseek_v3",
    "distilbert",
    "doge",
    "electra",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "lfm2",
    "llama",
    "mamba",
    "mistral",
    "mixtral",
    "modernbert",
    "mpnet",
    "nomic_bert",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "roberta",
    "t5",
    "xlm-roberta",
    "xlnet",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_usual_configuration_passes(tmp_path, kind):
    """With weights of one byte for each of its numbers, as the smallest have."""
    if kind not in CONFIG_MAPPING:
        pytest.skip(f"this version of transformers has no {kind}")
    config = AutoConfig.for_model(kind)
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in AutoModel.from_config(config).parameters())
    (tmp_path / "config.json").write_text(json.dumps(json.loads(config.to_json_string(use_diff=False))))
    with (tmp_path / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", 2) + b"{}")
        stream.truncate(size + 10)  # takes no place on the disk
    check_model(tmp_path)
