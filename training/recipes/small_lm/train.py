r"""Train the small language model; the same script in small on a CPU and at full size on a GPU.

    torchrun --nproc-per-node 2 train.py --data data --output run/plain --minutes 40
    torchrun --nproc-per-node 2 train.py --data data --output run/neighbours \
        --init run/plain --phase neighbours --groups groups --minutes 20

Phase ``plain`` is next-token prediction on rows of 160 tokens. Phase ``neighbours`` goes on with in-batch
attention: groups of related texts (groups.py) under weights from a frozen retriever, so that the model learns
to read its neighbours, with the plain loss beside it. Run again with the same ``--output`` and it continues
from the last checkpoint. Without ``torchrun`` one process does it all.

A plain loop instead of transformers' Trainer for two reasons: the learning rate follows the clock
(``--minutes``) and reaches its floor on time on a machine shared with others, and the optimiser's state is
kept as safetensors, so that resuming unpickles nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

log = logging.getLogger("train")


def build_model(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Fresh model, its residual outputs scaled down with depth; or the one in ``--init``."""
    if args.init:
        return LlamaForCausalLM.from_pretrained(args.init, dtype=torch.float32)
    torch.manual_seed(args.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden,
        intermediate_size=args.intermediate or round(args.hidden * 8 / 3 / 16) * 16,
        num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // args.head_dim,
        num_key_value_heads=args.kv_heads,
        head_dim=args.head_dim,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.mul_(1 / math.sqrt(2 * args.layers))
    return model


class Optimizers:
    """Muon for the matrices of the layers, AdamW for embeddings and norms, one schedule for both."""

    def __init__(self, model: nn.Module, *, lr: float, matrix_lr: float) -> None:
        layers = [(n, p) for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
        rest = [(n, p) for n, p in model.named_parameters() if not (p.ndim == 2 and "embed" not in n)]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW([p for _, p in rest], lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        if matrix_lr > 0:
            matrices = [p for _, p in layers]
            self.parts.append(
                torch.optim.Muon(matrices, lr=matrix_lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
            )
        else:
            self.parts.append(torch.optim.AdamW([p for _, p in layers], lr=lr, betas=(0.9, 0.95), weight_decay=0.1))
        self.base = [part.param_groups[0]["lr"] for part in self.parts]

    def step(self, factor: float) -> None:
        """One update with both learning rates scaled by ``factor``."""
        for part, base in zip(self.parts, self.base, strict=True):
            part.param_groups[0]["lr"] = base * factor
            part.step()
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """All state tensors under flat names."""
        return {
            f"{i}.{j}.{key}": torch.as_tensor(value).contiguous()
            for i, part in enumerate(self.parts)
            for j, entry in part.state_dict()["state"].items()
            for key, value in entry.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what ``state`` returned."""
        for i, part in enumerate(self.parts):
            state = part.state_dict()
            for name, tensor in tensors.items():
                which, index, key = name.split(".", 2)
                if int(which) == i:
                    state["state"].setdefault(int(index), {})[key] = tensor
            part.load_state_dict(state)


class Team:
    """The processes that ``torchrun`` started, each with batches of its own; a single process is a team of one."""

    def __init__(self) -> None:
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.device = f"cuda:{self.rank}" if torch.cuda.is_available() else "cpu"
        if self.size > 1:
            distributed.init_process_group("gloo" if self.device == "cpu" else "nccl")

    def first_says(self, value: float) -> float:
        """The first process's value, so that all follow one clock."""
        if self.size == 1:
            return value
        box = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(box, 0)
        return box.item()

    def average_gradients(self, model: nn.Module) -> None:
        """Replace each gradient by its mean over the team, in one transfer."""
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.size
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


class PlainRows:
    """Rows of BOS and the next ``length - 1`` tokens of the shuffled documents; row order is seeded per epoch."""

    def __init__(self, tokens: np.ndarray, *, bos: int, length: int, batch: int, seed: int) -> None:
        self.rows = tokens[: len(tokens) // (length - 1) * (length - 1)].reshape(-1, length - 1)
        self.bos, self.batch, self.seed = bos, batch, seed

    def __call__(self, step: int) -> Tensor:
        """Batch number ``step``, (batch, length) int64: a function of the step alone, so that resuming is exact."""
        per_epoch = max(1, len(self.rows) // self.batch)
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))
        rows = self.rows[order[place * self.batch : (place + 1) * self.batch]].astype(np.int64)
        return torch.from_numpy(np.concatenate([np.full((len(rows), 1), self.bos), rows], axis=1))


def schedule(progress: float, step: int, *, warmup: int, floor: float) -> float:
    """Warm-up, then a linear descent to ``floor`` at progress 1."""
    return min((step + 1) / warmup, 1 - (1 - floor) * min(progress, 1.0))


def save_checkpoint(output: Path, model: LlamaForCausalLM, optimizers: Optimizers, state: dict[str, float]) -> None:
    """Write model, optimiser state and progress; the state file comes last and names what is complete."""
    model.save_pretrained(output)
    save_file(optimizers.state(), output / f"optimizer-{state['step']}.safetensors")
    (output / "state.json").write_text(json.dumps(state), encoding="utf-8")
    for old in output.glob("optimizer-*.safetensors"):
        if old.name != f"optimizer-{state['step']}.safetensors":
            old.unlink()


def plain_loss(model: LlamaForCausalLM, rows: Tensor) -> Tensor:
    """Mean next-token cross-entropy of rows without padding."""
    hidden = model.model(input_ids=rows, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[:, :-1].reshape(-1, hidden.shape[-1]))
    return nn.functional.cross_entropy(logits.float(), rows[:, 1:].reshape(-1))


@torch.no_grad()
def rescale_values(model: LlamaForCausalLM, input_ids: Tensor, *, norm: float) -> None:
    """Give the values of every head a mean norm of ``norm`` and undo it in the output projection.

    The model computes what it did before, but V-normalised reads have norm one whatever the values' norm, which
    pre-training drives to 10 and more: without this, what a text reads from its neighbours is a tenth of what it
    reads from itself, and training hardly finds out that it is worth reading.
    """
    size, norms, hooks = model.config.head_dim, {}, []
    for layer in model.model.layers:
        hooks.append(
            layer.self_attn.v_proj.register_forward_hook(
                lambda module, _, out: norms.update({module: out.unflatten(-1, (-1, size)).norm(dim=-1).mean((0, 1))})
            )
        )
    model.model(input_ids=input_ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    shared = model.config.num_attention_heads // model.config.num_key_value_heads
    for layer in model.model.layers:
        attention = layer.self_attn
        scale = norms[attention.v_proj] / norm
        attention.v_proj.weight.div_(scale.repeat_interleave(size)[:, None])
        attention.o_proj.weight.mul_(scale.repeat_interleave(size * shared)[None, :])


def losses(args: argparse.Namespace, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, device: str):
    """Function from the step to (loss to train on, values to log, tokens read)."""
    if args.phase == "plain":
        tokens = np.load(args.data / "train.npy", mmap_mode="r")
        rows = PlainRows(tokens, bos=tokenizer.bos_token_id, length=args.length, batch=args.batch, seed=args.seed)

        def plain(step: int) -> tuple[Tensor, dict[str, float], int]:
            batch = rows(step).to(device)
            loss = plain_loss(model, batch)
            return loss, {"loss": loss.item()}, batch.numel()

        return plain

    from groups import Groups

    from revela_training.objective import RevelaObjective

    groups = Groups(
        args.groups,
        tokenizer,
        length=args.length,
        temperature=args.temperature,
        seed=args.seed,
        copy_steps=args.copy_steps,
    )
    if args.value_norm > 0 and not (args.output / "state.json").is_file():
        rescale_values(model, groups(0, shuffle=False)[0]["input_ids"].to(device), norm=args.value_norm)
    objective = RevelaObjective(model, read="published", v_norm=True, dual=True, min_weight=args.min_weight)

    def neighbours(step: int) -> tuple[Tensor, dict[str, float], int]:
        batch, weights = groups(step)
        mask = batch["attention_mask"].to(device)
        out = objective(batch["input_ids"].to(device), mask, weights=weights.to(device))
        values = {"loss": out.cross_loss.item(), "baseline": out.baseline_loss.item(), "pairs": out.pairs}
        return out.loss, values, int(mask.sum())

    return neighbours


def run(args: argparse.Namespace) -> dict[str, float]:
    """Train until ``--minutes`` or ``--max-steps`` are spent and return the final state."""
    team = Team()
    device = team.device
    tokenizer = AutoTokenizer.from_pretrained(args.data / "tokenizer")
    args.output.mkdir(parents=True, exist_ok=True)
    state: dict[str, float] = {"step": 0, "tokens": 0, "seconds": 0.0}
    resume = (args.output / "state.json").is_file()
    if resume:
        args.init = args.output
        state = json.loads((args.output / "state.json").read_text(encoding="utf-8"))
        log.info("resuming at step %d", state["step"])
    model = build_model(args, tokenizer).to(device).train()
    optimizers = Optimizers(model, lr=args.lr, matrix_lr=args.matrix_lr)
    if resume:
        optimizers.load(load_file(args.output / f"optimizer-{state['step']}.safetensors"))
    tokenizer.save_pretrained(args.output)
    compute = losses(args, model, tokenizer, device)
    log.info("%.2fM parameters on %s", sum(p.numel() for p in model.parameters()) / 1e6, device)
    before, began, saved = state["seconds"], time.monotonic(), time.monotonic()
    history = (args.output / f"history{team.rank or ''}.jsonl").open("a", encoding="utf-8")
    with history:
        for step in range(int(state["step"]), args.max_steps):
            clock = (before + time.monotonic() - began) / (60 * args.minutes)
            progress = team.first_says(max(step / args.max_steps, clock))
            if progress >= 1:
                break
            with torch.autocast(device.split(":")[0], dtype=torch.bfloat16, enabled=not args.fp32):
                loss, values, tokens = compute(step * team.size + team.rank)
            if not math.isfinite(loss.item()):
                raise SystemExit(f"the loss became {loss.item()} at step {step}; lower --lr and --matrix-lr")
            loss.backward()
            team.average_gradients(model)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizers.step(schedule(progress, step, warmup=args.warmup, floor=args.floor))
            state = {
                "step": step + 1,
                "tokens": state["tokens"] + tokens * team.size,
                "seconds": before + time.monotonic() - began,
            }
            if team.rank:
                continue
            history.write(json.dumps({**state, **values}) + "\n")
            if step % args.log_every == 0:
                log.info("step %d, %.0f tokens, %.0f s, %s", step, state["tokens"], state["seconds"], values)
                history.flush()
            if time.monotonic() - saved > 60 * args.save_minutes:
                save_checkpoint(args.output, model, optimizers, state)
                saved = time.monotonic()
    if not team.rank:
        save_checkpoint(args.output, model, optimizers, state)
    return state


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder written by prepare.py")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--phase", choices=["plain", "neighbours"], default="plain")
    parser.add_argument("--groups", type=Path, help="folder written by groups.py, for phase neighbours")
    parser.add_argument("--init", type=Path, help="model to go on from")
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--max-steps", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=16, help="rows of a plain batch, per process")
    parser.add_argument("--length", type=int, default=160, help="tokens of a row, BOS included")
    parser.add_argument("--lr", type=float, default=3e-3, help="embeddings and norms (AdamW)")
    parser.add_argument("--matrix-lr", type=float, default=5e-3, help="layer matrices (Muon); 0 for AdamW throughout")
    parser.add_argument("--floor", type=float, default=0.1, help="final share of the learning rate")
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--temperature", type=float, default=0.03, help="of the neighbours' weights")
    parser.add_argument("--min-weight", type=float, default=0.01, help="neighbours below this weight are not read")
    parser.add_argument("--value-norm", type=float, default=2, help="of the values when neighbours starts; 0: as is")
    parser.add_argument("--copy-steps", type=int, default=0, help="groups until the last copies (groups.py)")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--intermediate", type=int, default=0, help="0: about 8/3 of --hidden")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fp32", action="store_true", help="no bfloat16 autocast")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--log-every", type=int, default=10)
    parser.add_argument("--save-minutes", type=float, default=3)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.threads:
        torch.set_num_threads(args.threads)
    state = run(args)
    log.info("done: %d steps, %.0f tokens, %.0f s", state["step"], state["tokens"], state["seconds"])


if __name__ == "__main__":
    main()
