"""Measure systems on backbones, sets and seeds, with equal budgets. What they are: README.md.

    python benchmarks/quality/run.py --data scifact --data cosqa --output out --systems base,contrastive,default
    python benchmarks/quality/run.py --data cosqa --stdlib 3000 --output out --smoke

Every (system, backbone, set, seed) is one file below OUTPUT/results. What is there is not run again; a killed run goes
on where it stopped. Summary, table and plots are made from the files at the end (alone with --report).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import time
import tomllib
from pathlib import Path
from typing import Any

import baselines
import plots
import summary
import table
from backbones import resolve_backbone
from cache import VectorCache
from sets import BeirSet, StdlibSet
from systems import SYSTEMS, UNTRAINED, Bench, identity
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from revela_rag.errors import RevelaError
from revela_rag.model.fingerprint import fingerprint
from revela_training.objective.lm import bundled_lm_path

SMOKE: dict[str, Any] = {
    "max_steps": 8,
    "lm_warmup_steps": 3,
    "max_tokens": 32,
    "contrastive_pairs": 32,
    "max_training_texts": 300,
    "max_eval_queries": 40,
    "max_eval_documents": 150,
}
ALL = (*SYSTEMS, "hybrid")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", default=[], metavar="DIR", help="folder in BEIR layout")
    parser.add_argument("--split", help="file in qrels/ (default: all but train, together)")
    parser.add_argument("--stdlib", type=int, metavar="N", help="docstrings of N standard library functions")
    parser.add_argument("--systems", default=",".join(ALL), help=f"of {', '.join(ALL)}; NAME/lora or NAME/linear")
    parser.add_argument("--backbone", action="append", help="model, or small-lm (default all-MiniLM-L6-v2)")
    parser.add_argument("--adapter", choices=("auto", "linear", "lora"), default="auto", help="where none is named")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="base embeddings (default: OUT/cache)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a field of AdaptConfig")
    parser.add_argument("--limit-queries", type=int, metavar="N")
    parser.add_argument("--limit-documents", type=int, metavar="N")
    parser.add_argument("--smoke", action="store_true", help="a few minutes: small parts of the sets, 8 steps, seed 0")
    parser.add_argument("--keep-models", action="store_true", help="keep what adapt writes, in OUT/models")
    parser.add_argument("--curves", action="store_true", help="score every strength of the adapter: strengths.py")
    parser.add_argument("--report", action="store_true", help="run nothing, only summarise OUT")
    args = parser.parse_args(arguments)
    args.backbone = args.backbone or ["all-MiniLM-L6-v2"]
    args.cache = args.cache or args.output / "cache"
    args.seeds = [int(seed) for seed in args.seeds.split(",")]
    args.systems = [_system(parser, entry, args.adapter) for entry in args.systems.split(",")]
    if any(system == "hybrid" for system, _ in args.systems):  # hybrids are scored beside what they are made of
        args.systems += [entry for entry in (("base", ""), ("default", args.adapter)) if entry not in args.systems]
    args.settings = {name: _value(value) for name, _, value in (entry.partition("=") for entry in args.set)}
    if args.smoke:
        args.settings = {**SMOKE, **args.settings}
        args.limit_queries, args.limit_documents = args.limit_queries or 20, args.limit_documents or 60
        args.stdlib = args.stdlib and min(args.stdlib, 200)
        args.seeds = args.seeds[:1]
    if not args.data and not args.stdlib and not args.report:
        parser.error("nothing to measure on: give --data DIR or --stdlib N")
    return args


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing, then summarise."""
    args = parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    set_verbosity_error()
    disable_progress_bar()
    if not args.report:
        cache = VectorCache(args.cache, show_progress=True)
        for backbone in args.backbone:
            _run_backbone(backbone, args, cache)
    found = summary.summarise(summary.read(args.output / "results"))
    _write(args.output / "summary.json", found)
    (args.output / "table.md").write_text(table.markdown(found), encoding="utf-8")
    plots.draw(found, args.output)
    print((args.output / "table.md").read_text(encoding="utf-8"))


def _run_backbone(name: str, args: argparse.Namespace, cache: VectorCache) -> None:
    base = resolve_backbone(name, args.cache)
    model = fingerprint(base) if Path(base).is_dir() else base
    sets: list[Any] = [
        BeirSet(folder, split=args.split, queries=args.limit_queries, documents=args.limit_documents)
        for folder in args.data
    ]
    if args.stdlib:
        sets.append(StdlibSet(args.stdlib, queries=args.limit_queries))
    for each in sets:
        bench = None
        for seed in args.seeds:
            task = each.task(seed)
            if bench is None or bench.task is not task:
                work = args.output / "models" / Path(name).name / each.name
                bench = Bench(base, task, args.settings, work, args.keep_models, args.curves, cache)
            for system, adapter in args.systems:
                if system == "hybrid":
                    continue
                once = system in UNTRAINED and not each.seeded
                what = {
                    "system": system,
                    "adapter": adapter,
                    "backbone": Path(name).name,
                    "set": each.name,
                    "seed": None if once else seed,
                }
                decided = {"task": task.digest, "model": model, **identity(system, args.settings), **_lm(system, args)}
                decided |= {"curves": True} if args.curves and system not in UNTRAINED else {}
                _run_one(bench, what, _digest({**what, **decided}), args.output / "results", seed)


def _run_one(bench: Bench, what: dict[str, Any], digest: str, folder: Path, seed: int) -> None:
    """Run one system and write its file, unless it is there and was made of the same things."""
    name = "-".join(str(what[part]) for part in ("system", "adapter", "seed") if what[part] not in ("", None))
    path = folder / what["backbone"] / what["set"] / f"{name}.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8"))["digest"] == digest:
        return
    print(f"{what['backbone']}  {what['set']}  {name} ...", end=" ", flush=True)
    started = time.monotonic()
    try:
        outcome: dict[str, Any] = {"status": "done", **bench.run(what["system"], what["adapter"], seed)}
    except baselines.NotRunError as reason:
        outcome = {"status": "not run", "reason": str(reason), "scores": {}}
    except RevelaError as error:
        outcome = {"status": "failed", "reason": str(error), "scores": {}}
    _write(path, {**what, "digest": digest, **outcome})
    shown = {variant: round(summary.mean(scores["nDCG@10"]), 4) for variant, scores in outcome["scores"].items()}
    print(f"{outcome.get('reason') or shown} {time.monotonic() - started:.0f} s")


def _system(parser: argparse.ArgumentParser, entry: str, adapter: str) -> tuple[str, str]:
    name, _, own = entry.strip().partition("/")
    if name not in ALL or own not in ("", "auto", "linear", "lora"):
        parser.error(f"unknown system {entry!r}: choose of {', '.join(ALL)}, with /linear or /lora behind the trained")
    return name, "" if name in (*UNTRAINED, "hybrid") else own or adapter


def _lm(system: str, args: argparse.Namespace) -> dict[str, Any]:
    """The LM that a system of `adapt` reads with."""
    if system in (*UNTRAINED, *baselines.METHODS) or args.settings.get("lm") is not None:
        return {}
    return {"lm": fingerprint(bundled_lm_path())}


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def _value(text: str) -> Any:
    """A value as a settings file writes it; what is none of those is a string."""
    plain = text.lower() if text.lower() in ("true", "false", "none") else text
    try:
        return None if plain == "none" else tomllib.loads(f"value = {plain}")["value"]
    except tomllib.TOMLDecodeError:
        return text


if __name__ == "__main__":
    main()
