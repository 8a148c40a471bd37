"""Writing what was learned on embeddings behind an API: a small folder with the map, and no model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from revela_rag.model.st_format import write_json

from .adapters import check_strength
from .atomic import replace_directory
from .export import as_record
from .vectors import VectorRetriever

__all__ = ["export_map"]


def export_map(
    retriever: VectorRetriever, path: str | Path, *, strength: float = 1.0, revela_json: Mapping[str, Any]
) -> Path:
    """Write the adapter at ``strength`` to the directory ``path``, complete or not at all.

    `revela_rag.Encoder.over(EMBEDDINGS, path)` gives the vectors of `VectorRetriever.embed` at that strength.

    Args:
        retriever: what was trained.
        path: where to write. An existing model or map of this library, or an empty directory, is replaced.
        strength: scale of the adapter; 0 writes no matrix.
        revela_json: what to record in ``revela.json`` beside versions, adapter and fingerprint.

    Raises:
        ModelError: something else is in the way, or ``revela_json`` is not JSON.
        DiskError: writing failed; what was at ``path`` is intact.
    """
    made = retriever.as_map(check_strength(strength))
    record = as_record(revela_json)
    details = {"base": made.base, "adapter": {"kind": "linear", "strength": strength}, "fingerprint": made.fingerprint}
    with replace_directory(path) as directory:
        made.write(directory)
        write_json(directory / "revela.json", {**record, **details})
        (directory / "README.md").write_text(_card(Path(path).name, made.base, strength), encoding="utf-8")
    return Path(path)


def _card(name: str, base: str, strength: float) -> str:
    what = f"adapted to one corpus without labels by revela-rag (a linear map, strength {strength:g})"
    if not strength:
        what = "as they were: revela-rag tried to adapt them to a corpus, and nothing did better"
    return f"""# {name}

The embeddings {base}, {what}. The map works on both sides, documents and queries; the
embeddings themselves stay where they are.

```python
from revela_rag import Encoder

encoder = Encoder.over(EMBEDDINGS, "path/to/this/directory")  # the same embeddings as when it was adapted
```

`embedding_map.safetensors` holds the map and the vectors of three probe texts, by which a model that was changed under
its name is found out. `revela.json` holds the configuration and the evaluation before and after.
"""
