"""Models that cannot read a corpus."""

import pytest
from sentence_transformers import SentenceTransformer

from revela_rag import Encoder
from revela_rag.model.unknown_tokens import warn_of_unknown_tokens

FOREIGN = "☃ ☂ ☁ ☀ ★ ☆ ☎ ☏ ☐ ☑ ☒ ☓"


@pytest.mark.parametrize(
    ("texts", "unknown", "warned"),
    [
        ([[1, 0, 0, 2]] * 5, 0, True),
        ([[1, 0, 0, 2]] * 4, 0, False),  # some emoji
        ([[0] * 10 + [1] * 189], 0, True),
        ([[0] * 10 + [1] * 191], 0, False),
        ([[0] * 100], None, False),
        ([], 0, False),
    ],
)
def test_a_share_of_some_tokens_is_told(texts, unknown, warned, caplog):
    assert warn_of_unknown_tokens(texts, unknown, "tiny") == warned
    assert ("tiny has no token for" in caplog.text) == warned


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_encoder_tells_once_of_documents_it_cannot_read(bert_dir, wrapped, caplog):
    encoder = Encoder(SentenceTransformer(str(bert_dir)) if wrapped else bert_dir)
    encoder.encode_queries([FOREIGN])
    encoder.encode_documents(["☃"])
    assert "has no token" not in caplog.text
    for _ in range(2):
        encoder.encode_documents([FOREIGN] * 3)
    assert caplog.text.count("of the corpus, so it cannot tell such texts apart") == 1
