"""The bundled language model: it loads offline, is small, and has learned something."""

import math
import socket
from pathlib import Path

import pytest
import torch

from revela_rag.errors import ModelError
from revela_training.objective.lm import bundled_lm_path, load_lm

HELDOUT = Path(__file__).parent / "heldout.txt"
UNTRAINED = math.log(8192)  # nats per token of a model that knows nothing
BOUND = 5.0


@pytest.fixture(scope="module")
def bundled():
    return load_lm()


def rows_of(tokenizer, text, length=160):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    rows = [ids[i : i + length - 1] for i in range(0, len(ids) - length + 2, length - 1)]
    return torch.tensor([[tokenizer.bos_token_id, *row] for row in rows])


def loss_on(model, rows):
    with torch.no_grad():
        return model(input_ids=rows, labels=rows).loss.item()


def test_loads_without_a_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    model, tokenizer = load_lm("bundled")
    assert model.dtype == torch.float32 and not model.training
    assert len(tokenizer) == model.config.vocab_size
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.config.max_position_embeddings >= 512


def test_folder_is_small_and_plain():
    files = list(bundled_lm_path().iterdir())
    assert sum(file.stat().st_size for file in files) < 40_000_000
    assert not [file.name for file in files if file.suffix in {".bin", ".pt", ".pkl", ".pth"}]
    assert "/tmp" not in (bundled_lm_path() / "config.json").read_text()


def test_dtype_is_honoured():
    assert load_lm(dtype="bfloat16")[0].dtype == torch.bfloat16
    assert load_lm(dtype=torch.bfloat16)[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "plain words, and 12345 digits",
        "def f(x):\n\tif x:\n\t\treturn 1\n    return  2\n\n\n",
        "line one\r\nline two\r\n\r\n   trailing   \n",
        "Grüße, naïve – “quotes” 日本語 العربية 😀👩‍👩‍👧 e\u0301",
        "snake_case camelCase HTTPServer /usr/lib/x86_64 a->b; // c\x00\x07",
        HELDOUT.read_text(encoding="utf-8"),
    ],
)
def test_tokenizer_is_lossless(bundled, text):
    tokenizer = bundled[1]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer(text)["input_ids"] == [tokenizer.bos_token_id, *ids]


def test_indentation_is_one_token_and_digits_stand_alone(bundled):
    tokenizer = bundled[1]
    assert tokenizer.tokenize("        return 2024")[:2] == ["Ġ" * 7, "Ġreturn"]
    assert tokenizer.tokenize("2024") == ["2", "0", "2", "4"]


def test_knows_text_and_code_it_never_saw(bundled):
    model, tokenizer = bundled
    loss = loss_on(model, rows_of(tokenizer, HELDOUT.read_text(encoding="utf-8")))
    assert loss < BOUND, f"{loss:.2f} nats per token"


def test_the_bound_is_beyond_a_model_with_shuffled_weights(bundled):
    model, tokenizer = load_lm()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    assert loss_on(model, rows_of(tokenizer, HELDOUT.read_text(encoding="utf-8"))) > BOUND + 1


def test_word_order_matters_to_it(bundled):
    model, tokenizer = bundled
    rows = rows_of(tokenizer, HELDOUT.read_text(encoding="utf-8"))
    order = 1 + torch.randperm(rows.shape[1] - 1, generator=torch.Generator().manual_seed(0))
    mixed = torch.cat([rows[:, :1], rows[:, order]], dim=1)
    assert loss_on(model, mixed) > loss_on(model, rows) + 1


def test_reads_its_neighbours_in_the_objective(bundled):
    from revela_training import RevelaObjective

    model, tokenizer = bundled
    texts = [
        "Return the entry with the greatest height, or None if there are no entries.",
        'def highest(entries):\n    return max(entries, key=lambda entry: entry["height"], default=None)\n',
        "Close the connection to the mail server and forget the password.",
        "def close_connection(self):\n    self.server.quit()\n    self.password = None\n",
    ]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    partner = torch.zeros(4, 4)
    partner[0, 1] = partner[1, 0] = partner[2, 3] = partner[3, 2] = 1.0
    stranger = partner[[2, 3, 0, 1]]
    objective = RevelaObjective(model, read="published")
    with torch.no_grad():
        right = objective(batch["input_ids"], batch["attention_mask"], weights=partner)
        wrong = objective(batch["input_ids"], batch["attention_mask"], weights=stranger)
    assert math.isfinite(right.loss.item())
    assert right.loss < wrong.loss
    assert right.loss < UNTRAINED


def test_missing_path_names_it_and_the_remedy(tmp_path):
    missing = tmp_path / "nowhere"
    with pytest.raises(ModelError, match=r"nowhere.*bundled"):
        load_lm(missing)


def test_a_file_is_refused(tmp_path):
    file = tmp_path / "model.txt"
    file.write_text("x")
    with pytest.raises(ModelError, match="not a folder"):
        load_lm(str(file))


def test_folder_without_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json"):
        load_lm(tmp_path)


def test_pickled_weights_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="safetensors"):
        load_lm(tmp_path)


def test_damaged_folder_is_a_clear_error(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_lm(tmp_path)


def test_unknown_dtype_is_refused():
    with pytest.raises(ModelError, match="float13"):
        load_lm(dtype="float13")
