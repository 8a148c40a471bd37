"""The recipe, from a folder of packages to a model that loads, in small."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from revela_training.objective.lm import load_lm

TINY = ["--hidden", "32", "--head-dim", "16", "--layers", "1", "--kv-heads", "1", "--batch", "2", "--length", "32"]


def collect(recipe, packages, output, *options):
    recipe.collect.main(["--root", str(packages), "--output", str(output), "--heldout", "0.4", *options])
    return json.loads((output / "provenance.json").read_text())


def rows(folder, split):
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


@pytest.fixture
def data(recipe, packages, tmp_path):
    corpus, output = tmp_path / "corpus", tmp_path / "data"
    collect(recipe, packages, corpus, "--exclude", "")
    recipe.prepare.main(["--corpus", str(corpus), "--output", str(output), "--vocabulary", "400"])
    return output


def test_from_packages_to_a_model_that_loads(recipe, data, tmp_path):
    run, exported = tmp_path / "run", tmp_path / "exported"
    recipe.train.main(["--data", str(data), "--output", str(run), "--max-steps", "3", *TINY])
    exported.mkdir()
    recipe.export.export(run, exported)
    model, tokenizer = load_lm(exported)
    batch = tokenizer("def apple_first(value):", return_tensors="pt")
    assert math.isfinite(model(**batch, labels=batch["input_ids"]).loss.item())
    assert load_file(exported / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16
    assert not list(exported.glob("optimizer*")) and "run" not in (exported / "tokenizer_config.json").read_text()
    result = recipe.evaluate.alone(model, data, bos=tokenizer.bos_token_id, length=32, limit=4)
    assert 0 < result["all"]["bits_per_byte"] < 20
    assert result["all"]["tokens"] == result["code"]["tokens"] + result["prose"]["tokens"]


def test_training_lowers_the_loss(recipe, data, tmp_path):
    recipe.train.main(
        ["--data", str(data), "--output", str(tmp_path / "run"), "--max-steps", "60", "--warmup", "5", *TINY]
    )
    history = [json.loads(line)["loss"] for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert np.mean(history[-5:]) < np.mean(history[:5]) - 1


def test_resumed_run_equals_an_uninterrupted_one(recipe, data, tmp_path):
    options = ["--data", str(data), "--floor", "1", "--warmup", "1", "--fp32", *TINY]
    recipe.train.main(["--output", str(tmp_path / "whole"), "--max-steps", "4", *options])
    recipe.train.main(["--output", str(tmp_path / "halves"), "--max-steps", "2", *options])
    recipe.train.main(["--output", str(tmp_path / "halves"), "--max-steps", "4", *options])
    whole, halves = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "halves"))
    for name, tensor in whole.items():
        torch.testing.assert_close(halves[name], tensor, rtol=0, atol=0)
    assert json.loads((tmp_path / "halves" / "state.json").read_text())["tokens"] == 4 * 2 * 32


def test_neighbours_phase_goes_on_from_a_model(recipe, data, tmp_path):
    plain, groups = tmp_path / "plain", tmp_path / "groups"
    recipe.train.main(["--data", str(data), "--output", str(plain), "--max-steps", "2", *TINY])
    documents = rows(tmp_path / "corpus", "train") + rows(tmp_path / "corpus", "heldout")
    made = recipe.groups.make_groups(documents, count=2, seed=0)
    assert [len(group) for group in made] == [16, 16]
    groups.mkdir()
    (groups / "texts.json").write_text(json.dumps(made))
    vectors = torch.nn.functional.normalize(torch.randn(2, 16, 8), dim=-1)
    save_file({"embeddings": vectors}, groups / "embeddings.safetensors")
    options = ["--data", str(data), "--groups", str(groups), "--init", str(plain), *TINY]
    recipe.train.main(["--output", str(tmp_path / "run"), "--phase", "neighbours", "--max-steps", "2", *options])
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "run"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    model, tokenizer = load_lm(tmp_path / "run")
    batches = recipe.groups.Groups(groups, tokenizer, length=32, temperature=0.05, seed=0)
    result = recipe.evaluate.among_neighbours(model, batches)
    assert {"all", "prose", "code"} == set(result)
    assert result["all"]["neighbours_bits_per_byte"] > 0


def test_nan_stops_training(recipe, data, tmp_path):
    options = ["--data", str(data), "--output", str(tmp_path / "run"), "--max-steps", "40", *TINY]
    with pytest.raises(SystemExit, match="lower --lr"):
        recipe.train.main([*options, "--lr", "1e30", "--matrix-lr", "1e30", "--warmup", "1"])


def test_only_permissive_packages_are_read(recipe, packages, tmp_path):
    provenance = collect(recipe, packages, tmp_path / "corpus", "--exclude", "")
    names = {entry["package"]: entry["licence"] for entry in provenance["packages"]}
    assert set(names) == {"apples", "boats", "clouds", "doors"}
    assert names["boats"] == "BSD-3-Clause"
    documents = rows(tmp_path / "corpus", "train") + rows(tmp_path / "corpus", "heldout")
    assert documents and not [d for d in documents if "tests" in d["path"]]
    assert not [d for d in documents if "Copyright" in d["text"]]


def test_held_out_packages_never_train(recipe, packages, tmp_path):
    collect(recipe, packages, tmp_path / "corpus", "--exclude", "")
    train, heldout = ({d["source"] for d in rows(tmp_path / "corpus", split)} for split in ("train", "heldout"))
    assert train and heldout and not train & heldout


def test_duplicates_and_excluded_text_are_dropped(recipe, packages, tmp_path):
    (packages / "boats" / "copy.md").write_text((packages / "apples" / "guide.md").read_text())
    (tmp_path / "stdlib").mkdir()
    (tmp_path / "stdlib" / "cloud.py").write_text((packages / "clouds" / "cloud.py").read_text())
    provenance = collect(recipe, packages, tmp_path / "corpus", "--exclude", str(tmp_path / "stdlib"))
    dropped = provenance["statistics"]["dropped"]
    assert dropped["duplicate"] >= 1 and dropped["repeats the standard library"] >= 1
    texts = [d["text"] for s in ("train", "heldout") for d in rows(tmp_path / "corpus", s)]
    assert sum("apple number 3 is put beside" in text for text in texts) == 1
    assert not [text for text in texts if "def cloud_first(value" in text]


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True), ("BSD License", True), ("Apache Software License", True), ("PSF-2.0", True), ("MPL-2.0", True),
        ("ISC", True), ("Apache-2.0 OR MIT", True), ("GPL-2.0-only", False), ("LGPL-3.0", False), ("AGPL-3.0", False),
        ("GNU General Public License v3 (GPLv3)", False), ("MIT AND GPL-3.0", False), ("Proprietary", False),
        ("", False),
        ("LicenseRef-NVIDIA-Proprietary", False), ("permitted", False),
    ],
)  # fmt: skip
def test_permissive(recipe, licence, allowed):
    assert recipe.licences.permissive(licence) is allowed


def test_minified_and_generated_text_is_refused(recipe):
    assert recipe.collect.looks_written("def f(x):\n    return x\n" * 20)
    assert not recipe.collect.looks_written("var a=1;" * 1000)
    assert not recipe.collect.looks_written("// Code generated by protoc. DO NOT EDIT.\n" + "package x\n" * 50)
    assert not recipe.collect.looks_written("0.123 4.567 8.9\n" * 100)


def test_comment_and_code_are_taken_apart(recipe):
    java = (
        "/**\n * Returns the sum of both of the numbers.\n */\npublic int add(int a, int b) {\n"
        "    int theSumOfBothNumbers = a + b;\n    return theSumOfBothNumbers;\n}\n\n"
    )
    ((comment, code),) = recipe.groups.commented_code(java, "java")
    assert comment == "Returns the sum of both of the numbers."
    assert code.startswith("public int add") and "Returns the sum" not in code
    python = (
        'def add(a, b):\n    """Return the sum of both of the numbers."""\n'
        '    total = a + b\n    print("adding", a, "and", b)\n    return total\n'
    )
    ((doc, body),) = recipe.groups.commented_code(python, "python")
    assert doc == "Return the sum of both of the numbers."
    assert body.startswith("def add(a, b):\n    total") and "Return the sum" not in body


def test_copies_overlap_with_their_partner_only(recipe):
    rows = [[1, *range(100 * i, 100 * i + 40)] for i in range(1, 5)]
    mixed, weights = recipe.groups.copies(rows, rng=np.random.default_rng(0))
    assert mixed[0] == rows[0] and mixed[2] == rows[2]
    for first in (0, 2):
        shared = set(mixed[first][1:]) & set(mixed[first + 1][1:])
        assert 20 <= len(shared) < 40
        assert mixed[first][1:] != mixed[first + 1][1:]
    assert not set(mixed[0][1:]) & set(mixed[3][1:])
    assert weights.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]


def test_rescaled_values_leave_the_model_as_it_was(recipe):
    model, tokenizer = load_lm()
    ids = tokenizer("def add(a, b):\n    return a + b\n", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        recipe.train.rescale_values(model, ids, norm=0.5)
        after = model(input_ids=ids).logits
        values = model.model.layers[0].self_attn.v_proj(
            model.model.layers[0].input_layernorm(model.model.embed_tokens(ids))
        )
    torch.testing.assert_close(after, before, rtol=0, atol=1e-3)
    assert values.unflatten(-1, (-1, 64)).norm(dim=-1).mean().item() == pytest.approx(0.5, rel=1e-3)
