"""Six short texts, two prompts, and a tiny random model that is sensitive to both."""

from __future__ import annotations

from pathlib import Path

from revela_rag.corpus import Chunk
from revela_rag.corpus.types import chunk_id

PROMPTS = {"query": "find this: ", "document": "store this: "}
TEXTS = {
    "cache.py": "def invalidate(key):\n    # drop one entry of the cache\n    store.pop(key)",
    "retry.py": "def retry(call, times):\n    # call again after a failure\n    return call()",
    "tax.md": "Value added tax is due on the tenth day of the month.",
    "leave.md": "Every employee has thirty days of paid leave in a year.",
    "travel.md": "Trains are booked by the office, flights need an approval.",
    "login.md": "A password is reset by the link on the login page.",
}


def build_model(path: Path, *, seed: int = 0) -> str:
    """Write a random BERT of width 32 as a sentence-transformers directory with prompts."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as modules
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # written down rather than trained: the trainer numbers pieces in another order at each run
    told = " ".join([*TEXTS.values(), *PROMPTS.values(), "what how when who is are the a of ?"]).lower()
    words = {word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(told)}
    pieces = sorted(words | set(told) - {" ", "\n"}) + sorted(f"##{mark}" for mark in set(told) if mark.isalnum())
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys([*special, *pieces]))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(fast),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=128,
            initializer_range=0.5,
        )
        bert = BertModel(config).eval()
    raw = path / "transformer"
    bert.save_pretrained(raw)
    fast.save_pretrained(raw)
    transformer = modules.Transformer(str(raw), max_seq_length=96)
    stack = [transformer, modules.Pooling(32, pooling_mode="mean"), modules.Normalize()]
    SentenceTransformer(modules=stack, prompts=PROMPTS, device="cpu").save(str(path / "model"))
    return str(path / "model")


def make_chunks() -> list[Chunk]:
    return [
        Chunk(
            id=chunk_id(source, text),
            text=text,
            document_id=source,
            kind="code" if source.endswith(".py") else "prose",
            metadata={
                "source": source,
                "team": "platform" if source.endswith(".py") else "people",
                "lines": 3,
            },
        )
        for source, text in TEXTS.items()
    ]
