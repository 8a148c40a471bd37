"""What one process and two processes are made to do alike; run by ``torchrun`` from test_distributed.py."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from revela_rag.corpus import load_corpus
from revela_training.config import AdaptConfig
from revela_training.data.batching import GroupDataset
from revela_training.data.collate import GroupCollator
from revela_training.data.tokens import tokenize_for_lm, tokenize_for_retriever
from revela_training.data.units import make_units
from revela_training.loop.distributed import World, full_tensor, shard_lm, start_world
from revela_training.loop.model import RevelaModel
from revela_training.loop.step import Step
from revela_training.loop.trainer import train
from revela_training.objective.lm import load_lm
from revela_training.plan import RunPlan
from revela_training.resolve import make_plan
from revela_training.retriever.backbone import TrainableRetriever

GROUPS = 4  # in one step of all processes
STEPS = 12
CASES: dict[str, dict[str, Any]] = {
    "linear": {"adapter": "linear"},
    "lora": {"adapter": "lora"},
    "lora-pieces": {"adapter": "lora", "groups_at_once": 1, "retriever_chunk": 3},
    "lora-split": {"adapter": "lora", "shard": True},
}


def settings(case: str, world: World) -> RunPlan:
    chosen = AdaptConfig(
        group_size=4,
        groups_per_step=GROUPS // world.size,
        max_tokens=40,
        max_steps=STEPS,
        lm_warmup_steps=2,
        temperature=0.05,
        contrastive_weight=0.5,
        precision="fp32",
        checkpoint_steps=6,
        lora_dropout=0.0,
        lm_lr=1e-2,
        retriever_lr=2e-3,
        revela_weight=1.0,
        self_distillation=0.0,
        **CASES[case],
    )
    return make_plan(chosen, chosen.adapter)


def build(config: RunPlan, world: World, base: str, lm: str, corpus: str) -> tuple[Any, ...]:
    torch.manual_seed(world.rank)  # the first process decides how LoRA starts
    # of unequal length, so that the processes have unequal numbers of tokens
    units = make_units(load_corpus(corpus, deduplicate=False).chunks)[: 40 + len(CASES)]
    dataset = GroupDataset(
        units,
        group_size=config.group_size,
        length=STEPS * GROUPS,
        extra_pairs=8,
    )
    retriever = TrainableRetriever(base, adapter=config.adapter, lora_rank=4, lora_dropout=0.0, max_length=40)
    reader, tokenizer = load_lm(lm)
    cached, passages = None, None
    if config.adapter == "linear":
        vectors = retriever.embed_base(dataset.texts, "document", max_length=40)
        cached = (vectors, vectors, vectors)
    else:
        passages = tokenize_for_retriever(dataset.texts, retriever, "document")
    model = RevelaModel(retriever, reader, config, cached=cached)
    collator = GroupCollator(tokenize_for_lm(dataset.texts, tokenizer, max_tokens=config.max_tokens), passages=passages)
    return model, dataset, collator


def first_gradients(case: str, world: World, sources: list[str]) -> dict[str, torch.Tensor]:
    config = settings(case, world)
    model, dataset, collator = build(config, world, *sources)
    model.retriever_learns = True
    model.train()
    with torch.no_grad():
        for parameter in model.retriever.trainable_parameters():
            parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(0))
    if split := config.shard and world.size > 1:
        shard_lm(model, model.objective.lm, "read")
    first = world.rank * config.groups_per_step
    Step(model, config, world=world, split=split)(collator([dataset[first + i] for i in range(config.groups_per_step)]))
    return {name: full_tensor(p.grad) for name, p in model.named_parameters() if p.grad is not None}


def trained(case: str, world: World, sources: list[str], folder: Path, *, resume: bool = False) -> tuple[Any, Any]:
    config = settings(case, world)
    model, dataset, collator = build(config, world, *sources)
    log = train(model, dataset, collator, config, folder=folder, resume=resume, show_progress=False, world=world)
    return model.state_dict(), [entry for entry in log if "lm_loss" in entry]


def run(case: str, world: World, sources: list[str], out: Path) -> None:
    """Write gradients of the first step, the log and the final weights of a case."""
    gradients = first_gradients(case, world, sources)
    weights, log = trained(case, world, sources, out / f"{case}-checkpoints")
    resumed = None
    if case == "lora-split":
        if world.leads:
            shutil.rmtree(out / f"{case}-checkpoints" / f"checkpoint-{STEPS}")
        world.wait()
        resumed, _ = trained(case, world, sources, out / f"{case}-checkpoints", resume=True)
    if world.leads:
        save_file({n: g.contiguous() for n, g in gradients.items()}, out / f"{case}-gradients.safetensors")
        save_file({n: w.contiguous() for n, w in weights.items()}, out / f"{case}-weights.safetensors")
        (out / f"{case}-log.json").write_text(json.dumps(log))
        if resumed is not None:
            save_file({n: w.contiguous() for n, w in resumed.items()}, out / f"{case}-resumed.safetensors")
    world.wait()


if __name__ == "__main__":
    out, *sources = sys.argv[1:]
    world = start_world()
    for case in CASES:
        run(case, world, sources, Path(out))
    torch.distributed.destroy_process_group()
