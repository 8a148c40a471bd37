"""Encode texts of mixed lengths with the encoder of this project and with ``SentenceTransformer.encode``.

    python benchmarks/speed/encode.py                                  # 100 texts, a minute on one core
    python benchmarks/speed/encode.py --texts 2000 --repeats 5         # more exactly
    python benchmarks/speed/encode.py --device cuda --texts 20000

Same model, same texts, same machine, turns taken; the figure is the ratio of the best times. Texts are pieces of the
standard library whose lengths follow a log-normal law. Floor: multiplications of the weights with the tokens that are
not padding, at the rate that a large matrix product reaches in the same run.
"""

from __future__ import annotations

import argparse
import sysconfig
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import machine, matmul_rate, table, write
from sentence_transformers import SentenceTransformer

from revela_rag.model.encoder import Encoder
from revela_rag.model.find import DEFAULT_BASE, resolve_model


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_BASE)
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--median-words", type=float, default=25.0)
    parser.add_argument("--spread", type=float, default=1.0, help="standard deviation of the logarithm of the length")
    parser.add_argument("--batch-tokens", type=int, nargs="*", default=[], help="further token budgets to try")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    results = run(options)
    write(options.output, "encode", results, shown(results), lambda figure: plot(results, figure))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Time all of them in turns, so that what else the machine does falls on all alike."""
    path, texts = resolve_model(options.model), make(options.texts, options.median_words, options.spread)
    reference = SentenceTransformer(path, device=options.device)
    encoders = {f"ours {dtype}": Encoder(path, device=options.device, dtype=dtype) for dtype in ("float32", "bfloat16")}
    for tokens in options.batch_tokens:
        encoders[f"ours float32, {tokens} tokens"] = Encoder(path, device=options.device, batch_tokens=tokens)
    calls = {"SentenceTransformer.encode": lambda: reference.encode(texts, normalize_embeddings=True)}
    calls |= {name: (lambda encoder=encoder: encoder.encode_documents(texts)) for name, encoder in encoders.items()}
    half = SentenceTransformer(path, device=options.device, model_kwargs={"dtype": torch.bfloat16})
    calls["SentenceTransformer.encode bfloat16"] = lambda: half.encode(
        texts, normalize_embeddings=True, convert_to_tensor=True
    )
    found = {name: np.asarray(torch.as_tensor(call()).float().cpu()) for name, call in calls.items()}
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(options.repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    lengths = np.array([len(ids) for ids in reference.tokenizer(texts, truncation=True)["input_ids"]])
    lengths = lengths.clip(max=reference.max_seq_length)
    weights = sum(
        module.weight.numel() for module in reference[0].auto_model.encoder.modules() if hasattr(module, "in_features")
    )
    wanted = found["SentenceTransformer.encode"]
    floors = {
        dtype: 2 * weights * int(lengths.sum()) / matmul_rate(getattr(torch, dtype), device=options.device)
        for dtype in ("float32", "bfloat16")
    }
    return {
        "machine": machine(options.device),
        "model": options.model,
        "texts": len(texts),
        "tokens": int(lengths.sum()),
        "longest": int(lengths.max()),
        "floor_s": floors,
        "ways": {name: compare(name, found[name], wanted, best, floors, len(texts)) for name in calls},
    }


def compare(
    name: str, found: np.ndarray, wanted: np.ndarray, best: dict[str, float], floors: dict[str, float], count: int
) -> dict[str, float]:
    """Speed and exactness of one way."""
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    floor = floors["bfloat16" if "bfloat16" in name else "float32"]
    return {
        "seconds": best[name],
        "texts_per_second": count / best[name],
        "ratio": best["SentenceTransformer.encode"] / best[name],
        "of_floor": floor / best[name],
        "largest_difference": float(np.abs(unit - wanted).max()),
        "largest_1_minus_cosine": float((1 - (unit * wanted).sum(1)).max()),
        "largest_error_of_a_pair": float(np.abs(unit @ unit.T - wanted @ wanted.T).max()),
    }


def make(count: int, median: float, spread: float) -> list[str]:
    """Pieces of the standard library, 2 to 400 words long."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:80]
    words = " ".join(file.read_text(encoding="utf-8", errors="ignore") for file in files).split(" ")
    random = np.random.default_rng(0)
    texts, place = [], 0
    for length in random.lognormal(np.log(median), spread, count).clip(2, 400).astype(int):
        texts.append(" ".join(words[place : place + length]))
        place = (place + length) % (len(words) - 400)
    return texts


def shown(results: dict[str, Any]) -> str:
    """The table."""
    columns = ["way", "texts/s", "ratio", "share of the floor", "max difference", "max 1 - cos", "max error of a pair"]
    keys = ("texts_per_second", "ratio", "of_floor")
    errors = ("largest_difference", "largest_1_minus_cosine", "largest_error_of_a_pair")
    rows = [
        [name, *(way[key] for key in keys), *(f"{way[key]:.1e}" for key in errors)]
        for name, way in results["ways"].items()
    ]
    head = f"{results['texts']} texts, {results['tokens']} tokens, the longest {results['longest']}\n\n"
    return head + table(columns, rows)


def plot(results: dict[str, Any], figure: Any) -> None:
    """Texts per second of every way."""
    axes = figure.subplots()
    names = list(results["ways"])
    axes.barh(names, [results["ways"][name]["texts_per_second"] for name in names])
    axes.set(xlabel="texts per second", title=f"{results['model']}, {results['tokens']:,} tokens")


if __name__ == "__main__":
    main()
