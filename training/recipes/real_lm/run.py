"""Ten minutes of one GPU: check the kernels, time a step, and train a real language model on several corpora.

    python run.py --model smollm2-135m --data scifact --data cosqa --minutes 10 --output out

``--model`` is what `revela adapt --base` takes, or a folder with a file in parts (``model.gguf.00``, ``.01``, ...; as
``split -b 60M`` cuts it), which are put together in a temporary folder. The same command runs on a CPU, where it shows
that everything works: short texts, small groups, a few steps. Left in OUT, eight files of at most 16 MiB:
``figures.json``, ``curve.png``, ``kernels.txt``, ``attention.md`` and the adapter of the best corpus in bf16, in parts.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from curve import SIGNALS, part
from safetensors.torch import save

from revela_rag.corpus import load_corpus
from revela_rag.corpus.types import titled
from revela_rag.evaluation import lexical_run, load_beir, score_run
from revela_training.config import RAW_DECODER, AdaptConfig
from revela_training.curve import Curve

log = logging.getLogger("run")

ROOT = Path(__file__).resolve().parents[3]
LARGEST_FILE = 15 * 2**20
ON_GPU = {"group_size": 32, "max_tokens": 160, "retriever_max_tokens": 160, "max_steps": 2000}
ON_CPU = {"group_size": 8, "max_tokens": 32, "retriever_max_tokens": 32, "max_steps": 4}


def together(folder: Path, target: Path) -> Path:
    """The file whose parts lie in a folder, written to another."""
    parts = sorted(file for file in folder.iterdir() if file.suffix[1:].isdigit())
    whole = target / parts[0].stem
    with whole.open("wb") as opened:
        for file in parts:
            with file.open("rb") as source:
                shutil.copyfileobj(source, opened)
    return whole


def checks(output: Path, device: str, seconds: float) -> None:
    """Kernels on the GPU they were written for, and the attention benchmark."""
    tests = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/objective/test_fused.py",
    ]
    speed = [sys.executable, "benchmarks/speed/attention.py", "--device", device, "--sizes", "", "--rounds", "1"]
    speed += ["--size", "1b", "--dtype", "bfloat16"] if device == "cuda" else ["--steps", "1"]
    for name, command in (("kernels.txt", tests), ("attention.md", [*speed, "--output", str(output / "attention")])):
        try:
            done = subprocess.run(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds
            )
            text = done.stdout
        except subprocess.TimeoutExpired as error:
            text = f"stopped after {seconds:.0f} s\n{(error.stdout or b'').decode(errors='replace')}"
        (output / name).write_text(text[-(2**20) :], encoding="utf-8")
        log.info("%s: %s", name, text.strip().splitlines()[-1] if text.strip() else "nothing was printed")
    shutil.rmtree(output / "attention", ignore_errors=True)


def train(
    folder: Path, model: str, signal: str, minutes: float, every: int, args: argparse.Namespace
) -> dict[str, Any]:
    """The curve on one corpus, BM25 beside it, and the adapter."""
    data = part(load_beir(folder), queries=args.queries, documents=args.documents)
    texts = [titled(title, text) for title, text in data.corpus.values()]
    bm25 = score_run(lexical_run(list(data.queries.values()), texts, list(data.queries), list(data.corpus)), data.qrels)
    chunks = load_corpus([{"_id": i, "title": t, "text": x} for i, (t, x) in data.corpus.items()]).chunks
    sizes = ON_GPU if torch.cuda.is_available() else ON_CPU
    alone = {"contrastive_pairs": 0, "contrastive_negatives": 0}  # but for the pairs of the groups
    settings = {**alone, **RAW_DECODER, **sizes, **SIGNALS[signal], "base": model, "lm": model, "batching": "related"}
    curve = Curve(chunks, data, AdaptConfig(**settings), args.output / "work")
    points = []
    for point in curve.points(every=every, minutes=minutes, at_start=True):
        points.append(point.as_dict())
        rest = [entry for entry in points[-1]["training"].items() if "loss" in entry[0]]
        print(f"{folder.name} {signal}: step {point.step}, {point.seconds:.0f} s, {point.quality} {rest}", flush=True)
    assert curve.retriever is not None
    adapter = {
        name: p.detach().to("cpu", torch.bfloat16) for name, p in curve.retriever.named_parameters() if p.requires_grad
    }
    return {"data": folder.name, "signal": signal, "bm25": bm25.mean(), "points": points, "adapter": adapter}


def keep(adapter: dict[str, torch.Tensor], output: Path) -> None:
    """The adapter as safetensors files of at most 15 MiB."""
    pieces: list[dict[str, torch.Tensor]] = [{}]
    for name, value in adapter.items():
        if sum(v.nbytes for v in pieces[-1].values()) + value.nbytes > LARGEST_FILE:
            pieces.append({})
        pieces[-1][name] = value.contiguous()
    for number, piece in enumerate(pieces):
        (output / f"adapter-{number}.safetensors").write_bytes(save(piece))


def plot(curves: list[dict[str, Any]], file: Path) -> None:
    """nDCG@10 over the minutes of training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    for number, curve in enumerate(curves):
        minutes = [point["seconds"] / 60 for point in curve["points"]]
        values = [point["quality"]["nDCG@10"] for point in curve["points"]]
        axis.plot(minutes, values, marker=".", color=f"C{number}", label=f"{curve['data']}, {curve['signal']}")
        axis.axhline(curve["bm25"], color=f"C{number}", linestyle=":")
    axis.set(
        xlabel="minutes of training", ylabel="nDCG@10", title="A raw language model learns to retrieve (dotted: BM25)"
    )
    axis.legend(frameon=False)
    figure.savefig(file, dpi=120)


def main() -> None:
    """Check, time, train, and leave what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, action="append", required=True, metavar="DIR", help="BEIR layout")
    parser.add_argument("--signal", choices=SIGNALS, action="append", help="default: objective")
    parser.add_argument("--minutes", type=float, default=10, help="of everything")
    parser.add_argument("--every", type=int, default=50, help="steps between evaluations")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--documents", type=int, default=1500)
    parser.add_argument("--skip-checks", action="store_true", help="train alone")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    end = time.monotonic() + 60 * args.minutes
    args.output.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not args.skip_checks:
        checks(args.output, device, seconds=60 * args.minutes / 6)
    with tempfile.TemporaryDirectory() as folder:
        split = Path(args.model).is_dir() and not (Path(args.model) / "config.json").is_file()
        model = str(together(Path(args.model), Path(folder))) if split else args.model
        runs = [(data, signal) for data in args.data for signal in args.signal or ["objective"]]
        curves = []
        for number, (data, signal) in enumerate(runs):
            minutes = 0.8 * max(0.1, (end - time.monotonic()) / 60) / (len(runs) - number)  # evaluations take the rest
            curves.append(train(data, model, signal, minutes, args.every, args))
            best = max(curves, key=lambda curve: curve["points"][-1]["quality"]["nDCG@10"] - curve["bm25"])
            keep(best["adapter"], args.output)
            plain = [{name: value for name, value in curve.items() if name != "adapter"} for curve in curves]
            (args.output / "figures.json").write_text(json.dumps(plain, indent=1), encoding="utf-8")
            plot(plain, args.output / "curve.png")


if __name__ == "__main__":
    main()
