"""Whether an index is the one that was opened, and built by the model at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from revela_rag.errors import IndexMismatchError
from revela_rag.index.manifest import Manifest

__all__ = ["check_identity", "mismatch"]


def check_identity(root: Path, opened: Manifest, found: Manifest | None) -> None:
    """IndexMismatchError unless ``found`` is a later state of the index that was ``opened`` in ``root``."""
    if found is not None and not opened.is_same_index(found):
        raise IndexMismatchError(
            f"{str(root)!r} holds another index (identity {found.identity[:12] or 'unknown'}) than the one that was "
            f"opened (identity {opened.identity[:12]}); open it again if that is the one you mean."
        )


def mismatch(root: Path, manifest: Manifest, encoder: Any) -> IndexMismatchError:
    """The error for an index that another model built; names both."""
    name = getattr(encoder, "name", None) or encoder.model_path
    cut = f", its chunks cut for the {manifest.window} tokens that reads" if manifest.window else ""
    return IndexMismatchError(
        f"The index {str(root)!r} was built by the model {manifest.model.name!r} (fingerprint "
        f"{manifest.model.fingerprint[:12]}){cut}, not by {name!r} (fingerprint {encoder.fingerprint[:12]}). Open it "
        "with the model it was built by, or build it again with this one: "
        f"revela index SOURCE --model {name} --output {root} --overwrite."
    )
