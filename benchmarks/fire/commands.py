"""Commands that are stopped by SIGINT, SIGTERM or SIGKILL, at random moments.

    python benchmarks/fire/commands.py --count 10 --adapt 10

A command that is stopped ends at once, without a traceback; Ctrl-C says how to go on and exits with 130. What was there
before is whole, and the same command then runs to its end. `revela adapt` is killed again and again with ``--resume``;
the model that comes out in the end must be, bit by bit, that of a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")

from harness import in_child, said, show, started

from revela_rag.errors import ModelError
from revela_rag.index.checks.verify import verify_index
from revela_rag.model.encoder import Encoder
from revela_rag.model.fingerprint import fingerprint

for module in ("sentence_transformers", "transformers.models.bert.modeling_bert", "revela_training", "peft"):
    importlib.import_module(module)  # once, here, and not in every child
for module in ("job", "assemble", "loop.trainer", "gate", "retriever.export", "retriever.backbone"):
    importlib.import_module(f"revela_training.{module}")

WORDS = [f"{first}{last}" for first in ("ri", "mo", "ta", "ke", "lu") for last in ("ver", "tor", "ble", "ment", "nel")]
SHORT = ["--max-steps", "30", "--base"]


def tiny_model(folder: Path) -> Path:
    """A random model of one layer."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    vocabulary = {word: number for number, word in enumerate([*special.values(), "#", ".", "the", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
    BertModel(BertConfig(vocab_size=len(vocabulary), hidden_size=32, intermediate_size=32, **sizes)).save_pretrained(
        folder / "bert"
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder / "bert")
    parts = [Transformer(str(folder / "bert"), max_seq_length=64), Pooling(32, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=parts, device="cpu").save(str(folder / "model"))
    return folder / "model"


def corpus(folder: Path) -> Path:
    """Sixty pages of four sections."""
    draw = random.Random(0)
    folder.mkdir()
    for page in range(60):
        bodies = [draw.choices(WORDS, k=40) for _ in range(4)]
        text = "\n".join(f"## The {' '.join(body[:4])}\n\n{' '.join(body[4:])}.\n" for body in bodies)
        (folder / f"page{page}.md").write_text(text, encoding="utf-8")
    return folder


def _command(arguments: list[str], say: Any) -> None:
    """``revela`` as a process of its own; what it writes to stderr is said."""
    from revela_rag.cli import main

    read, write = os.pipe()
    os.dup2(write, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv = ["revela", *arguments]
    code = 0
    say("ready")
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException as error:
        say(f"Traceback {error!r}")
        code = 99
    sys.stderr.flush()
    os.set_blocking(read, False)
    try:
        said_there = os.read(read, 65_536).decode(errors="replace")
    except BlockingIOError:
        said_there = ""
    say("stderr " + said_there.replace("\n", " | "))
    os._exit(code)


def stopped(arguments: list[str], sign: int, after: float) -> tuple[int, str, float]:
    """Send a signal to a command; gives its status, negative for a signal, its words, and the seconds until its end."""
    child, read = started(partial(_command, arguments))
    time.sleep(after)
    os.kill(child, sign)
    sent = time.monotonic()
    lines = said(read)
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status), " ".join(lines), time.monotonic() - sent


def signals(
    name: str, arguments: list[str], count: int, draw: random.Random, index: Path, longest: float
) -> dict[str, Any]:
    """Stop a command so many times with each signal."""
    tally: Counter[str] = Counter()
    slowest = 0.0
    for number in range(2 * count):
        sign = (signal.SIGINT, signal.SIGTERM)[number % 2]
        code, words, seconds = stopped(arguments, sign, draw.uniform(0.05, longest))
        slowest = max(slowest, seconds)
        tally["ended before"] += code == 0
        expected = (0, 130) if sign == signal.SIGINT else (0, -signal.SIGTERM)
        tally["other status"] += code not in expected
        tally["tracebacks"] += "Traceback" in words
        if index.exists():
            tally["broken"] += in_child(lambda: any(check.status == "failed" for check in verify_index(index)))
    tally["failed after"] += in_child(lambda: _whole_run(arguments)) != 0
    names = ("ended before", "other status", "tracebacks", "broken", "failed after")
    return {"command": name, "stops": 2 * count, **{key: tally[key] for key in names}, "slowest s": round(slowest, 1)}


def _whole_run(arguments: list[str]) -> int:
    child, read = started(partial(_command, arguments))
    lines = said(read)
    if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        print(*lines, sep="\n", file=sys.stderr)
    return code


def killed_adapt(docs: Path, model: Path, folder: Path, count: int, draw: random.Random) -> dict[str, Any]:
    """Kill `revela adapt --resume` again and again, then let it end."""
    arguments = ["-q", "adapt", str(docs), *SHORT, str(model), "--output"]
    began = time.monotonic()
    if straight := _whole_run([*arguments, str(folder / "straight")]):
        raise SystemExit(f"revela adapt ends with {straight} when nobody disturbs it")
    length = time.monotonic() - began
    tally: Counter[str] = Counter()
    for _ in range(count):
        stopped([*arguments, str(folder / "cut"), "--resume"], signal.SIGKILL, draw.uniform(0.1, 1.1) * length)
        tally[in_child(partial(_state, folder / "cut"))] += 1
    last = _whole_run([*arguments, str(folder / "cut"), "--resume"])
    same = in_child(lambda: fingerprint(folder / "straight") == fingerprint(folder / "cut"))
    told = {"none yet": tally["none"], "whole model": tally["whole"], "half": tally["half"]}
    return {"command": "adapt", "kills": count, **told, "status": straight or last, "same bits": same}


def _state(folder: Path) -> str:
    try:
        Encoder(folder, device="cpu").encode_queries(["the river"])
    except ModelError:
        return "half" if (folder / "modules.json").exists() else "none"
    return "whole"


def main() -> None:
    """Run as the head of this file says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10, help="stops of each command with each of two signals")
    parser.add_argument("--adapt", type=int, default=10, help="kills of an adaptation")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw, rows = random.Random(arguments.seed), []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model, docs, index = Path(in_child(lambda: str(tiny_model(folder)))), corpus(folder / "docs"), folder / "index"
        if arguments.adapt:
            show([killed_adapt(docs, model, folder, arguments.adapt, draw)], None)
        built = ["index", str(docs), "--model", str(model), "--output", str(index), "--overwrite"]
        made = folder / "model of a command"
        for name, command in (
            ("index", built),
            ("index --sync", ["index", str(docs), "--output", str(index), "--sync"]),
            ("search", ["search", str(index), "the river"]),
            ("adapt", ["adapt", str(docs), *SHORT, str(model), "--output", str(made), "--resume"]),
        ):
            if not arguments.count:
                break
            began = time.monotonic()
            if _whole_run(["-q", *command]):
                raise SystemExit(f"{name} does not run at all")
            length = time.monotonic() - began
            rows.append(signals(name, ["-q", *command], arguments.count, draw, index, length))
            show(rows[-1:], None)
    show(rows, None)


if __name__ == "__main__":
    main()
