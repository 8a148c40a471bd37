"""Nodes and documents of LlamaIndex: what they are called, and what they have that a chunk has no place for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["RANDOM_ID", "is_cut", "node_origin"]

#: An id of ``uuid4()``, which LlamaIndex gives whatever has none, another one at each reading.
RANDOM_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def is_cut(node: Any) -> bool:
    """Whether it is a node, which was cut from a document, and not such a document."""
    return not hasattr(node, "doc_id")


def node_origin(node: Any) -> dict[str, Any]:
    """What a node gives back beside its text and metadata, as plain JSON.

    Returns:
        ``id``, of nodes that were cut, and ``node``: its ``relationships`` (kind to related node or nodes), the keys of
        its metadata (``keys``), and those it hides (``excluded_llm_metadata_keys``, ``excluded_embed_metadata_keys``).
    """
    relationships = {
        str(getattr(kind, "value", kind)): [_related(one) for one in info] if isinstance(info, list) else _related(info)
        for kind, info in (getattr(node, "relationships", None) or {}).items()
    }
    kept = {"keys": [str(key) for key in node.metadata or {}], "relationships": relationships}
    for name in ("excluded_llm_metadata_keys", "excluded_embed_metadata_keys"):
        kept[name] = [str(key) for key in getattr(node, name, None) or ()]
    origin: dict[str, Any] = {"node": {name: value for name, value in kept.items() if value}}
    if is_cut(node) and (id_ := str(getattr(node, "node_id", None) or "")):
        origin["id"] = id_
    return origin


def _related(info: Any) -> Mapping[str, Any]:
    """A related node by its fields; of its metadata what is no JSON becomes text."""
    kind = getattr(info, "node_type", None)
    fields = {"node_id": info.node_id, "node_type": getattr(kind, "value", kind), "hash": info.hash}
    fields["metadata"] = json.loads(json.dumps(dict(info.metadata or {}), default=str))
    return {name: value for name, value in fields.items() if value}
