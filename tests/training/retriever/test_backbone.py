"""The trainable retriever: embeddings, gradients, strength, lengths, prompts and bad input."""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoTokenizer

from revela_rag.errors import ModelError
from revela_training.retriever.adapters import merged
from revela_training.retriever.backbone import TrainableRetriever
from revela_training.retriever.embedding import pool

DECODERS = ["llama", "qwen2", "mamba2", "lfm2"]


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("length", [256, 12])
def test_decoder_pools_the_appended_end_token(backbones, retriever, texts, kind, length):
    """Against the raw model fed one text at a time, without padding: the state at EOS, also when text is cut."""
    model, tokenizer = AutoModel.from_pretrained(backbones(kind)), AutoTokenizer.from_pretrained(backbones(kind))
    expected = []
    for text in texts:
        ids = [*tokenizer("Passage: " + text)["input_ids"][: length - 1], tokenizer.eos_token_id]
        with torch.no_grad():
            expected.append(model(torch.tensor([ids])).last_hidden_state[0, -1])
    found = retriever(kind, "linear").embed_base(texts, "document", max_length=length)
    torch.testing.assert_close(found, F.normalize(torch.stack(expected), dim=-1), atol=1e-6, rtol=0)


def test_encoder_pools_the_mean(backbones, retriever, texts):
    model, tokenizer = AutoModel.from_pretrained(backbones("bert")), AutoTokenizer.from_pretrained(backbones("bert"))
    with torch.no_grad():
        ids = [tokenizer(text, truncation=True, max_length=64, return_tensors="pt") for text in texts]
        expected = torch.stack([model(**one).last_hidden_state[0].mean(0) for one in ids])
    found = retriever("bert", "linear").embed_base(texts, "query")
    torch.testing.assert_close(found, F.normalize(expected, dim=-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["bert", *DECODERS])
def test_batch_composition_does_not_matter(retriever, texts, kind, monkeypatch):
    model = retriever(kind, "lora")
    together = model.embed(texts, "query")
    monkeypatch.setattr("revela_training.retriever.embedding._PIECE_TOKENS", (1, 1))
    alone = model.embed(texts, "query")
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    assert (together[0] @ together[1]) < 0.99  # different texts are told apart


@pytest.mark.parametrize("kind", ["llama", "mamba2"])
def test_padding_side_does_not_matter(retriever, texts, kind):
    model = retriever(kind, "linear")
    right = model.embed(texts, "query")
    model.model.tokenizer.padding_side = "left"
    torch.testing.assert_close(model.embed(texts, "query"), right, atol=1e-5, rtol=0)


def test_decoders_get_prompts_and_encoders_do_not(retriever):
    assert retriever("llama", "linear").prompts == {"query": "Query: ", "document": "Passage: "}
    assert retriever("bert", "linear").prompts == {"query": "", "document": ""}
    own = retriever("bert", "linear")
    own.prompts["query"] = "query : "
    assert own.prompts == {"query": "query : ", "document": ""}
    different = own.embed_base(["open a file"], "query")
    assert not torch.allclose(different, own.embed_base(["open a file"], "document"))
    torch.testing.assert_close(different, own.embed_base(["query : open a file"], "document"))


@pytest.mark.parametrize("adapter", ["linear", "lora"])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_every_adapter_parameter_gets_a_gradient_and_nothing_else(retriever, texts, kind, adapter):
    model = retriever(kind, adapter).train()
    vectors = model.encode(texts, "query")
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(texts)))
    (vectors @ vectors.T).sum().backward()
    trained = model.trainable_parameters()
    assert trained and all(parameter.grad is not None for parameter in trained)
    assert all(parameter.grad.abs().sum() > 0 for parameter in trained)
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    assert frozen and all(parameter.grad is None for parameter in frozen)


def test_lora_leaves_out_what_an_embedding_does_not_pass_through(retriever):
    bert = [name for name, _ in retriever("bert", "lora").named_parameters() if "lora_" in name]
    assert any("attention" in name for name in bert) and not any("pooler" in name for name in bert)
    mamba = [name for name, _ in retriever("mamba2", "lora").named_parameters() if "lora_" in name]
    assert any("in_proj" in name for name in mamba) and not any("out_proj" in name for name in mamba)


@pytest.mark.parametrize("adapter", ["linear", "lora"])
def test_fresh_adapter_is_the_base_model(backbones, texts, adapter):
    model = TrainableRetriever(backbones("bert"), adapter=adapter, lora_rank=4, device="cpu")
    torch.testing.assert_close(model.embed(texts, "query"), model.embed_base(texts, "query"), atol=1e-7, rtol=0)


@pytest.mark.parametrize("adapter", ["linear", "lora"])
def test_strength_runs_from_the_base_to_the_trained_model(retriever, texts, adapter):
    model = retriever("bert", adapter)
    base, trained = model.embed_base(texts, "query"), model.embed(texts, "query")
    assert (base - trained).abs().max() > 1e-3
    model.set_strength(0.0)
    assert torch.equal(model.embed(texts, "query"), base)
    model.set_strength(0.5)
    half = model.embed(texts, "query")
    assert torch.equal(model.embed_base(texts, "query"), base)  # whatever the strength
    assert ((half - base).norm(dim=1) < (trained - base).norm(dim=1)).all()
    model.set_strength(1.0)
    assert torch.equal(model.embed(texts, "query"), trained)


def test_linear_adapter_follows_its_formula(retriever, texts):
    model = retriever("bert", "linear")
    x = model.embed_base(texts, "query")
    a, b = model.adapter.weight, model.adapter.bias
    model.set_strength(0.7)
    expected = F.normalize(x + 0.7 * (x @ a.T + b), dim=1)
    torch.testing.assert_close(model.adapt_embeddings(x), expected, atol=1e-7, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model.adapt_embeddings(x), expected, atol=1e-7, rtol=0)


def test_training_cuts_texts_earlier_than_inference(retriever):
    model = retriever("bert", "linear", max_length=16)
    assert (model.max_length, model.inference_max_length) == (16, 64)
    long, cut = "open a file " * 30, "open a file " * 4 + "open a"  # 14 words and [CLS], [SEP]
    torch.testing.assert_close(model.encode([long], "query"), model.encode([cut], "query"))
    assert not torch.allclose(model.embed([long], "query"), model.encode([long], "query"), atol=1e-4)
    assert model.model.max_seq_length == 64


def test_dropout_of_the_backbone_is_off_in_training(retriever, texts):
    model = retriever("bert", "lora")
    torch.testing.assert_close(model.train().encode(texts, "query"), model.eval().encode(texts, "query"))
    noisy = retriever("bert", "lora", lora_dropout=0.5).train()
    assert not torch.allclose(noisy.encode(texts, "query"), noisy.encode(texts, "query"), atol=1e-5)


def test_merging_lora_changes_neither_the_vectors_nor_afterwards_a_weight(retriever, texts):
    model = retriever("bert", "lora")
    model.set_strength(0.5)
    features = model._features(texts, "query", 64)
    beside, before = pool(model.model, dict(features)), {n: p.clone() for n, p in model.named_parameters()}
    with merged(model.backbone):
        folded = pool(model.model, dict(features))
        assert any(not torch.equal(p, before[n]) for n, p in model.named_parameters())
    torch.testing.assert_close(folded, beside, atol=1e-6, rtol=0)
    assert torch.equal(pool(model.model, dict(features)), beside)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    with pytest.raises(KeyboardInterrupt), merged(model.backbone):
        raise KeyboardInterrupt
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_attention_is_plain_only_while_lora_trains(retriever, texts):
    model = retriever("bert", "lora")
    used = model.backbone.config._attn_implementation
    assert used == "sdpa"
    found = model.train().encode(texts, "query")
    assert model.backbone.config._attn_implementation == "eager"
    inside = model.embed(texts, "query")  # as the gate does; trains on afterwards
    assert model.training and model.backbone.config._attn_implementation == "eager"
    assert model.eval().backbone.config._attn_implementation == used
    torch.testing.assert_close(found, model.encode(texts, "query"), atol=1e-6, rtol=0)
    torch.testing.assert_close(inside, model.embed(texts, "query"), atol=1e-6, rtol=0)
    assert retriever("bert", "linear").train().backbone.config._attn_implementation == used


def test_low_precision_touches_the_transformer_only(retriever, texts):
    full = retriever("bert", "linear")
    base = full.embed_base(texts, "query")
    half = full.embed_base(texts, "query", compute_dtype="bfloat16")
    assert half.dtype == torch.float32 and not torch.equal(half, base)
    assert (F.cosine_similarity(half, base) > 0.999).all()
    torch.testing.assert_close(half.norm(dim=1), torch.ones(len(texts)), atol=1e-6, rtol=0)
    light = retriever("bert", "lora", dtype="bfloat16")
    assert light.backbone.dtype == torch.bfloat16
    assert all(parameter.dtype == torch.float32 for parameter in light.trainable_parameters())
    vectors = light.encode(texts, "query")
    assert vectors.dtype == torch.float32 and vectors.requires_grad


def test_no_texts_and_a_single_string(retriever):
    model = retriever("bert", "linear")
    assert model.encode([], "query").shape == (0, 32)
    assert model.embed_base([], "document").shape == (0, 32)
    with pytest.raises(TypeError, match="list"):
        model.encode("open a file", "query")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"adapter": "dora"}, "dora"),
        ({"adapter": "lora", "lora_rank": 0}, "lora_rank is 0"),
        ({"adapter": "lora", "lora_dropout": 1.0}, "lora_dropout is 1.0"),
        ({"adapter": "linear", "max_length": 2}, "max_length is 2"),
    ],
)
def test_arguments_out_of_range_are_named(backbones, arguments, named):
    with pytest.raises(ModelError, match=named):
        TrainableRetriever(backbones("bert"), **arguments)


def test_strength_out_of_range_is_named(retriever):
    with pytest.raises(ModelError, match=r"strength is -0\.5"):
        retriever("bert", "linear").set_strength(-0.5)


def test_models_that_cannot_be_used_are_refused(backbones, tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        TrainableRetriever(str(tmp_path / "nowhere"), adapter="linear")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text((backbones("bert") / "config.json").read_text())
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        TrainableRetriever(pickled, adapter="linear")


def test_decoder_without_end_token_is_refused(backbones, tmp_path):
    source = tmp_path / "endless"
    source.mkdir()
    for file in backbones("llama").iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(source)
    with pytest.raises(ModelError, match="eos_token"):
        TrainableRetriever(source, adapter="linear")
