"""Models of an attacker, made of a sound one."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

TYPES = "sentence_transformers.models"
ATTACK = """
from pathlib import Path
Path({canary!r}).write_text("ran")
import torch
class Evil(torch.nn.Module):
    def forward(self, features):
        return features
    @classmethod
    def load(cls, *args, **kwargs):
        return cls()
    def tokenize(self, texts, **kwargs):
        return {{}}
def evil():
    return Evil()
"""


def change(file: Path, **values) -> None:
    """Set entries of a JSON object; those of None are taken out."""
    said = json.loads(file.read_text()) if file.exists() else {}
    said.update(values)
    file.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))


def modules(path: Path, *entries: tuple[str, str]) -> None:
    listing = [{"idx": i, "name": str(i), "path": place, "type": type_} for i, (place, type_) in enumerate(entries)]
    (path / "modules.json").write_text(json.dumps(listing))


def routed(path: Path, *, types: dict[str, str], file: str = "router_config.json", place: str = "0_Router") -> None:
    """Make the model a router whose modules have these classes."""
    (path / place).mkdir(exist_ok=True)
    kind = "Router" if file == "router_config.json" else "Asym"
    modules(path, (place, f"{TYPES}.{kind}"))
    structure = {"query": list(types), "document": list(types)}
    parameters = {"default_route": "query", "allow_empty_key": True}
    (path / place / file).write_text(json.dumps({"types": types, "structure": structure, "parameters": parameters}))


def transformer_in(path: Path, place: str) -> None:
    (path / place).mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(path / name, path / place / name)


def dense(path: Path, **config) -> Path:
    folder = path / "3_Dense"
    folder.mkdir()
    values = {
        "in_features": 24,
        "out_features": 8,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    (folder / "config.json").write_text(json.dumps({**values, **config}))
    save_file({"linear.weight": torch.zeros(8, 24), "linear.bias": torch.zeros(8)}, folder / "model.safetensors")
    modules(path, ("", f"{TYPES}.Transformer"), ("1_Pooling", f"{TYPES}.Pooling"), ("3_Dense", f"{TYPES}.Dense"))
    return folder
