"""Errors of the objective against the golden tensors, one row per tensor.

    python benchmarks/golden_errors.py [--attention reference] [--json FILE]

Losses: absolute difference. All else: |a - b| / |b| (absolute where b is zero), logits on real tokens only.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import get_args

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from revela_training.objective import AttentionName, RevelaObjective
from revela_training.objective.weights import similarity, weights_from_similarity

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "data" / "golden"
ARCHITECTURES = ("llama", "qwen2")


def load(architecture: str) -> dict[str, Tensor]:
    """Every tensor of one golden file."""
    return load_file(GOLDEN / f"{architecture}.safetensors")


def model(architecture: str, tensors: dict[str, Tensor], role: str) -> torch.nn.Module:
    """The LM (``lm``) or the retriever's causal LM (``retriever``) with the golden weights."""
    lm = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(GOLDEN / f"{architecture}_config"))
    lm.load_state_dict({k.removeprefix(f"{role}."): v for k, v in tensors.items() if k.startswith(f"{role}.")})
    return lm.eval()


def cases(tensors: dict[str, Tensor]) -> list[str]:
    """The cases in a golden file, A before B."""
    return sorted({k.rsplit(".loss", 1)[0] for k in tensors if k.endswith(".loss")})


def error(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of the expected, absolute where that is zero."""
    difference, scale = float((actual - expected).norm()), float(expected.norm())
    return difference / scale if scale else difference


def compute(
    architecture: str,
    case: str,
    tensors: dict[str, Tensor],
    *,
    golden_cosines: bool = False,
    attention: AttentionName = "auto",
) -> dict[str, Tensor]:
    """Our value of every tensor in a golden case, by the golden name within the case.

    With ``golden_cosines`` the values of the cosines, not their gradient, are the golden ones. Two fp32 runs of the
    retriever differ by 3e-7 there, whatever the code, which the weights then magnify by 1 / temperature.
    """
    lm = model(architecture, tensors, "lm")
    retriever, ours = None, {}
    if case.startswith("pipeline"):
        retriever = model(architecture, tensors, "retriever")
        queries, passages = (
            embed(retriever, tensors[f"{side}_input_ids"], tensors[f"{side}_attention_mask"])
            for side in ("query", "passage")
        )
        scores = ours["similarity"] = similarity(queries, passages)
        if golden_cosines:
            scores = scores + (tensors[f"{case}.similarity"] - scores).detach()
        weights = weights_from_similarity(scores, temperature=float(case.rsplit("_", 1)[1]))
        ours["weights"] = weights
        weights.retain_grad()
    else:
        weights = tensors[f"{case}.weights"].clone().requires_grad_()
    objective = RevelaObjective(lm, read="published", v_norm="no_v_norm" not in case, attention=attention)
    output = objective(tensors["input_ids"], tensors["attention_mask"], tensors["labels"], weights=weights)
    output.loss.backward()
    ours |= {"loss": output.loss, "baseline_loss": output.baseline_loss, "logits": output.logits}
    ours["grad_weights"] = weights.grad
    for role, network in (("lm", lm), ("retriever", retriever)):
        if network is not None:
            ours |= {f"grad.{role}.{name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {name: value.detach() for name, value in ours.items()}


def embed(retriever: torch.nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Last-token pooling of right-padded texts, unit rows."""
    hidden = retriever.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    return F.normalize(hidden[torch.arange(len(hidden)), attention_mask.sum(-1) - 1], dim=-1)


def errors(
    architecture: str, case: str, *, golden_cosines: bool = False, attention: AttentionName = "auto"
) -> dict[str, float]:
    """Error of every golden tensor of a case; what was given and not computed is left out."""
    tensors = load(architecture)
    ours = compute(architecture, case, tensors, golden_cosines=golden_cosines, attention=attention)
    real = tensors["attention_mask"].bool()
    found = {}
    for name, actual in ours.items():
        expected = tensors.get(f"{case}.{name}")
        if expected is None:
            continue
        if name.endswith("loss"):
            found[name] = float((actual - expected).abs())
        elif name == "logits":
            found[name] = error(actual[real], expected[real])
        else:
            found[name] = error(actual, expected)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the errors here")
    parser.add_argument("--attention", choices=get_args(AttentionName), default="auto", help="default: auto")
    arguments = parser.parse_args()
    table: dict[str, dict[str, dict[str, float]]] = {}
    for architecture in ARCHITECTURES:
        by_case = table[architecture] = {}
        for case in cases(load(architecture)):
            by_case[case] = errors(architecture, case, attention=arguments.attention)
            if case.startswith("pipeline"):
                by_case[f"{case} (golden cosines)"] = errors(
                    architecture, case, golden_cosines=True, attention=arguments.attention
                )
    for architecture, by_case in table.items():
        for case, by_tensor in by_case.items():
            print(f"\n{architecture}  {case}")
            for name, value in by_tensor.items():
                print(f"  {name:<60} {value:.1e}")
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
