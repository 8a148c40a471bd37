"""Write a trained checkpoint as the package's bundled model.

    python export.py --model run/neighbours --output training/revela_training/objective/small_lm

Weights are rounded to bfloat16; the training state stays behind.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM


def export(model: Path, output: Path) -> None:
    """Write config, bfloat16 weights and tokenizer of ``model`` into ``output``, which may hold other files."""
    LlamaForCausalLM.from_pretrained(model, dtype=torch.bfloat16).save_pretrained(output)
    (output / "model.safetensors").chmod(0o644)
    AutoTokenizer.from_pretrained(model).save_pretrained(output)
    path = output / "tokenizer_config.json"  # readable by transformers 4 too, and without traces of this machine
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    for key in ("name_or_path", "is_local", "local_files_only"):
        config.pop(key, None)
    path.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(argv)
    export(args.model, args.output)


if __name__ == "__main__":
    main()
