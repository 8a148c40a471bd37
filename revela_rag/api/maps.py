"""What an adaptation of embeddings behind an API is: a linear map in a small folder, and how to know its base again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from revela_rag.api.known import Known
from revela_rag.errors import ModelError
from revela_rag.model.find import MAP_FILE, is_map
from revela_rag.model.safety.files import check_folder, json_object
from revela_rag.model.st_format import Role, write_json
from revela_rag.unit import unit_rows

__all__ = ["EmbeddingMap"]

_TENSORS = "embedding_map.safetensors"
_LONGEST, _HEADER = 16_384, 65_536  # numbers in a vector; bytes before the tensors
_FORMAT, _VERSION = "revela-embedding-map", 1


@dataclass(frozen=True)
class EmbeddingMap:
    """A linear map on unit vectors, for documents and queries alike, and the base that it was learned on.

    Attributes:
        base: name of the embeddings.
        known: their length, whether roles differ, and the vectors of the probes.
        prompts: what is put before a text, by role.
        strength: of the adapter in ``weight`` and ``bias``; 0 where the base was kept.
        weight: (d, d) float32; None where the base was kept.
        bias: (d,) float32, or None.
    """

    base: str
    known: Known
    prompts: Mapping[Role, str]
    strength: float
    weight: np.ndarray | None
    bias: np.ndarray | None

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Map (n, d) unit rows to adapted unit rows, float32."""
        if self.weight is None:
            return vectors
        return unit_rows(vectors @ self.weight.T + (0 if self.bias is None else self.bias))

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the vectors: 64 hex digits."""
        digest = hashlib.sha256(json.dumps(self._about(), sort_keys=True).encode())
        for name, tensor in sorted(self._tensors().items()):
            digest.update(f"{name} {tensor.shape}".encode())
            digest.update(np.ascontiguousarray(tensor, dtype="<f4").tobytes())
        return digest.hexdigest()

    def write(self, folder: Path) -> None:
        """Write it into a folder."""
        from safetensors.numpy import save_file

        write_json(folder / MAP_FILE, self._about())
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in self._tensors().items()}, folder / _TENSORS)

    @classmethod
    def read(cls, folder: str | Path) -> EmbeddingMap:
        """Read one; nothing in the folder can run.

        Raises:
            ModelError: the folder holds none, or it is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        root = Path(folder).expanduser()
        if not is_map(root):
            raise ModelError(
                f"{str(folder)!r} holds no {MAP_FILE}: give the folder that "
                "adapt(source, base=EMBEDDINGS, output=...) wrote."
            )
        check_folder(root)
        about = json_object(root / MAP_FILE)
        try:
            if (about.get("format"), about.get("version")) != (_FORMAT, _VERSION):
                raise ValueError(f"it is {about.get('format')!r} in version {about.get('version')!r}")
            dimension, strength = int(about["dimension"]), float(about["strength"])
            size = (root / _TENSORS).stat().st_size
            if not 1 <= dimension <= _LONGEST or size > 4 * dimension * (dimension + 8) + _HEADER:
                raise ValueError(f"its {size:,} bytes are no map of dimension {dimension}")
            tensors = {name: np.asarray(tensor, "f4") for name, tensor in load_file(root / _TENSORS).items()}
            shapes = {"probes": (len(tensors["probes"]), dimension), "weight": (dimension,) * 2, "bias": (dimension,)}
            for name, tensor in tensors.items():
                if tensor.shape != shapes[name] or not np.isfinite(tensor).all():
                    raise ValueError(f"{name} has shape {tensor.shape} or values that are not finite")
            if strength and "weight" not in tensors:
                raise ValueError("weight is missing")
            prompts: dict[Role, str] = {
                "query": str(about["prompts"]["query"]),
                "document": str(about["prompts"]["document"]),
            }
            known = Known(dimension, bool(about["roles_differ"]), tensors["probes"])
            return cls(str(about["base"]), known, prompts, strength, tensors.get("weight"), tensors.get("bias"))
        except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
            raise ModelError(f"The map in {str(folder)!r} cannot be read: {error}. Adapt again.") from error

    def _about(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "base": self.base,
            "dimension": self.known.dimension,
            "roles_differ": self.known.roles_differ,
            "prompts": dict(self.prompts),
            "strength": self.strength,
        }

    def _tensors(self) -> dict[str, np.ndarray]:
        tensors = {"probes": self.known.probes, "weight": self.weight, "bias": self.bias}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}
