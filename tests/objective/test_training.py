"""How the objective behaves inside a training loop: adapters, checkpointing, frozen parts, pruning, refusals."""

from __future__ import annotations

import copy
import functools
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, LlamaModel

from revela_rag.errors import ModelError
from revela_training import objective as library
from revela_training.objective.weights import similarity_weights


@pytest.fixture(autouse=True, params=["joint", "published"])
def read(request, monkeypatch):
    """Every test for both ways to read neighbours."""
    own = functools.partial(library.RevelaObjective, read=request.param)
    monkeypatch.setattr(sys.modules[__name__], "RevelaObjective", own)
    return request.param


RevelaObjective = library.RevelaObjective


def _lora(model, **changes):
    config = LoraConfig(r=4, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], init_lora_weights=False, **changes)
    torch.manual_seed(3)
    return get_peft_model(model, config)


def _step(lm, batch, **settings):
    ids, mask, weights = batch
    weights = weights.detach().clone().requires_grad_()
    output = RevelaObjective(lm, **settings)(ids, mask, weights=weights)
    output.loss.backward()
    grads = {name: p.grad.clone() for name, p in lm.named_parameters() if p.grad is not None}
    lm.zero_grad()
    return output, weights.grad, grads


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("adapted", [False, True])
def test_gradient_checkpointing_changes_no_gradient(use_reentrant, adapted, make_lm, make_batch):
    batch = make_batch(groups=2)
    lm = _lora(make_lm()) if adapted else make_lm()
    lm.train()
    plain, weight_grad, grads = _step(lm, batch)
    lm.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    checkpointed, weight_grad_again, grads_again = _step(lm, batch)
    torch.testing.assert_close(checkpointed.loss, plain.loss)
    torch.testing.assert_close(weight_grad_again, weight_grad)
    torch.testing.assert_close(grads_again, grads)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_a_frozen_lm_still_reaches_the_weights(use_reentrant, make_lm, make_batch):
    batch = make_batch()
    lm = make_lm().train().requires_grad_(False)
    _, expected, _ = _step(lm, batch)
    lm.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    _, found, grads = _step(lm, batch)
    assert not grads
    torch.testing.assert_close(found, expected)


def test_frozen_lm_gives_the_weights_the_same_gradient(make_lm, make_batch):
    batch, lm = make_batch(), make_lm()
    _, expected, _ = _step(lm, batch)
    _, found, grads = _step(lm.requires_grad_(False), batch)
    assert not grads
    torch.testing.assert_close(found, expected)


def test_lora_on_both_models_trains_both_and_equals_its_merged_lm(make_lm, make_batch):
    ids, mask, _ = make_batch()
    torch.manual_seed(0)
    retriever = _lora(LlamaModel(make_lm().config), task_type="FEATURE_EXTRACTION")
    lm = _lora(make_lm())

    def weights():
        states = retriever(input_ids=ids, attention_mask=mask).last_hidden_state
        return similarity_weights(states[:, 0], states.mean(1), temperature=0.5)

    output = RevelaObjective(lm)(ids, mask, weights=weights())
    output.loss.backward()
    for model in (retriever, lm):
        grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        assert grads
        assert all(name.count("lora_") and grad is not None and grad.any() for name, grad in grads.items())
    merged = copy.deepcopy(lm).merge_and_unload()
    with torch.no_grad():
        again = RevelaObjective(merged)(ids, mask, weights=weights())
    torch.testing.assert_close(again.loss, output.loss.detach(), atol=1e-5, rtol=0)


def test_lora_on_the_head_receives_its_gradient(make_lm, make_batch):
    lm = get_peft_model(make_lm(), LoraConfig(r=4, target_modules=["lm_head"], init_lora_weights=False))
    _, _, grads = _step(lm, make_batch())
    assert len(grads) == 2
    assert all(grad.any() for grad in grads.values())


def test_tied_embeddings_receive_both_gradients(make_lm, make_batch):
    batch = make_batch()
    untied = make_lm()
    untied.lm_head.weight.data = untied.model.embed_tokens.weight.data.clone()
    tied = make_lm(tie_word_embeddings=True)
    tied.load_state_dict(untied.state_dict())
    _, _, apart = _step(untied, batch)
    _, _, together = _step(tied, batch)
    expected = apart["lm_head.weight"] + apart["model.embed_tokens.weight"]
    torch.testing.assert_close(together["model.embed_tokens.weight"], expected)


def test_the_lm_alone_computes_what_it_did_before(make_lm, make_batch):
    for architecture in ("llama", "gemma2"):
        lm = make_lm(architecture)
        ids, mask, weights = make_batch(side="left")
        before = lm(input_ids=ids, attention_mask=mask).logits
        generated = lm.generate(ids[:1], attention_mask=mask[:1], max_new_tokens=4, do_sample=False)
        objective = RevelaObjective(lm)
        objective(ids, mask, weights=weights)
        assert torch.equal(lm(input_ids=ids, attention_mask=mask).logits, before)
        assert torch.equal(lm.generate(ids[:1], attention_mask=mask[:1], max_new_tokens=4, do_sample=False), generated)
        again = RevelaObjective(lm)
        assert torch.equal(again(ids, mask, weights=weights).loss, objective(ids, mask, weights=weights).loss)


def test_construction_leaves_training_mode_and_random_state_alone(make_lm):
    lm = make_lm(attention_dropout=0.5).train()
    lm.model.layers[0].eval()
    state = torch.get_rng_state()
    RevelaObjective(lm)
    assert lm.training
    assert not lm.model.layers[0].training
    assert torch.equal(torch.get_rng_state(), state)


def test_saved_lm_loads_with_ordinary_attention(make_lm, tmp_path):
    lm = make_lm()
    RevelaObjective(lm)
    lm.save_pretrained(tmp_path)
    assert "revela" not in (tmp_path / "config.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


@pytest.mark.parametrize("min_weight", [0.1, 0.2, 0.3])
def test_pruning_costs_no_more_than_the_mass_it_drops(min_weight, make_lm, make_batch):
    batch, lm = make_batch(groups=2, size=5), make_lm()
    exact, _, _ = _step(lm, batch)
    pruned, grad, _ = _step(lm, batch, min_weight=min_weight)
    weights = batch[2].detach()
    dropped = weights * (weights <= min_weight)
    assert pruned.pairs == int((weights > min_weight).sum())
    torch.testing.assert_close(pruned.dropped_mass, dropped.sum() / 10)
    assert exact.dropped_mass == 0
    assert not grad[weights <= min_weight].any()
    assert 0 < abs(float(pruned.loss.detach() - exact.loss.detach())) <= 2 * float(pruned.dropped_mass)
    # what is kept is exactly the objective of the weights without the dropped ones
    same, expected, _ = _step(lm, (*batch[:2], weights - dropped))
    torch.testing.assert_close(pruned.loss, same.loss)
    kept = weights > min_weight
    torch.testing.assert_close(grad[kept], expected[kept])


def test_without_a_gradient_pairs_of_weight_zero_are_skipped(make_lm, make_batch):
    ids, mask, weights = make_batch()
    weights = weights.detach().clone()
    weights[:, 0, 1] = 0
    output = RevelaObjective(make_lm())(ids, mask, weights=weights)
    assert output.pairs == 11
    assert output.dropped_mass == 0


def test_groups_do_not_see_each_other(make_lm, make_batch):
    ids, mask, weights = make_batch(groups=2)
    objective = RevelaObjective(make_lm())
    together = objective(ids, mask, weights=weights)
    apart = [objective(ids[s], mask[s], weights=weights[g]) for g, s in enumerate((slice(0, 4), slice(4, 8)))]
    total = sum(output.loss * output.tokens for output in apart) / together.tokens
    torch.testing.assert_close(together.loss, total)


def test_padding_side_does_not_matter(make_lm, make_batch):
    ids, mask, weights = make_batch(side="right")
    left_ids, left_mask, _ = make_batch(side="left")
    assert not torch.equal(ids, left_ids)
    objective = RevelaObjective(make_lm())
    right = objective(ids, mask, weights=weights)
    left = objective(left_ids, left_mask, weights=weights)
    torch.testing.assert_close(left.loss, right.loss)
    torch.testing.assert_close(left.logits[left_mask.bool()], right.logits[mask.bool()], atol=1e-5, rtol=1e-4)


def test_padding_tokens_are_never_read(make_lm, make_batch):
    ids, mask, weights = make_batch()
    objective = RevelaObjective(make_lm())
    expected = objective(ids, mask, weights=weights).loss
    torch.testing.assert_close(objective(torch.where(mask.bool(), ids, 42), mask, weights=weights).loss, expected)


def test_dual_adds_the_base_stream_and_its_gradient(make_lm, make_batch):
    ids, mask, weights = make_batch()
    lm = make_lm()
    single = RevelaObjective(lm)(ids, mask, weights=weights)
    dual = RevelaObjective(lm, dual=True)(ids, mask, weights=weights)
    torch.testing.assert_close(dual.loss, single.loss + single.baseline_loss)
    torch.testing.assert_close(dual.cross_loss, single.loss.detach())
    assert not single.baseline_loss.requires_grad
    plain = lm(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
    torch.testing.assert_close(single.baseline_loss, plain.detach(), atol=1e-5, rtol=0)
    parameter = lm.lm_head.weight
    (whole,) = torch.autograd.grad(dual.loss, parameter)
    parts = [torch.autograd.grad(loss, parameter)[0] for loss in (single.loss, plain)]
    torch.testing.assert_close(whole, sum(parts), atol=1e-5, rtol=1e-3)


def test_labels_choose_what_is_predicted(make_lm, make_batch):
    ids, mask, weights = make_batch()
    objective = RevelaObjective(make_lm())
    labels = torch.full_like(ids, -100)
    labels[0, 3] = 5
    output = objective(ids, mask, labels, weights=weights)
    assert output.tokens == 1
    torch.testing.assert_close(output.loss, -output.logits[0, 2].log_softmax(-1)[5])
    assert objective(ids, mask, weights=weights, baseline=False).baseline_loss is None


def test_short_convolutions_between_attention_layers_keep_the_objective_whole(make_lm, make_batch):
    lm = make_lm("lfm2", layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False)
    right_ids, right_mask, weights = make_batch(groups=2, side="right")
    left_ids, left_mask, _ = make_batch(groups=2, side="left")
    right, weight_grad, grads = _step(lm, (right_ids, right_mask, weights))
    left, weight_grad_again, grads_again = _step(lm, (left_ids, left_mask, weights))
    torch.testing.assert_close(left.loss, right.loss)
    torch.testing.assert_close(weight_grad_again, weight_grad)
    torch.testing.assert_close(grads_again, grads)
    assert abs(float(right.loss.detach() - right.baseline_loss)) > 1e-3  # the cross stream reads neighbours
    neighbours = ~torch.eye(4, dtype=torch.bool).expand(2, 4, 4)
    predicts = (right_mask.sum(1) > 1).view(2, 4, 1)  # a text of one token predicts none
    assert weight_grad[neighbours & predicts].abs().min() > 0
    assert grads["model.layers.0.conv.conv.weight"].any()
    swapped = right_ids.clone()
    swapped[1, 0] = 7 if swapped[1, 0] != 7 else 8
    reached = RevelaObjective(lm)(swapped, right_mask, weights=weights).logits[0] - right.logits[0]
    assert reached.abs().max() > 1e-4  # a neighbour's token changes what the first text predicts


def _config(kind, **changes):
    common = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 61, "num_attention_heads": 4}
    return AutoConfig.for_model(kind, **{**common, **changes})


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (_config("mamba", state_size=4), "in none of its 2 layers"),
        (_config("rwkv", attention_hidden_size=32, context_length=32), "RwkvForCausalLM"),
        (_config("bloom"), "in none of its 2 layers|cannot be driven"),
        (
            _config(
                "qwen3_next",
                layer_types=["linear_attention", "full_attention"],
                num_key_value_heads=2,
                intermediate_size=32,
                head_dim=8,
                mlp_only_layers=[0, 1],
                linear_num_value_heads=2,
                linear_num_key_heads=2,
                linear_key_head_dim=8,
                linear_value_head_dim=8,
            ),
            "only in 1 of its 2 layers",
        ),
        (_config("bert", intermediate_size=32), "not causal"),
    ],
    ids=["mamba", "rwkv", "bloom", "qwen3_next", "bert"],
)
def test_an_lm_that_cannot_be_reached_is_refused_and_left_alone(config, why):
    lm = AutoModelForCausalLM.from_config(config)
    before = lm.config._attn_implementation
    with pytest.raises(ModelError, match=why):
        RevelaObjective(lm)
    assert lm.config._attn_implementation == before


def test_something_else_than_a_causal_lm_is_refused(make_lm):
    for model in (torch.nn.Linear(2, 2), LlamaModel(make_lm().config)):
        with pytest.raises(ModelError, match="AutoModelForCausalLM"):
            RevelaObjective(model)
