"""Embedding on many machines: an encoder whose documents are computed by workers of Ray Data.

It stands in for an :class:`~revela_rag.model.encoder.Encoder` when an index is built or synced, so chunking, comparing
and writing stay in one process and the index is the same. A worker that dies is replaced and its texts are computed
again; a writer that dies leaves the index as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from revela_rag.errors import IndexMismatchError, MissingExtraError, ModelError
from revela_rag.model.encoder import Encoder

__all__ = ["RayEncoder"]

_BLOCK = 2048  # texts per task: what an encoder sorts together


class RayEncoder:
    """Embeds documents on a Ray cluster, queries here.

    Uses the cluster that ``ray.init`` or the variable ``RAY_ADDRESS`` names, or starts one on this machine.

    Args:
        model: a directory that every worker can read at the same path, a hub id or ``"all-MiniLM-L6-v2"``.
        workers: how many there are; None means one per CPU of the cluster, or per GPU share of ``gpus_per_worker``.
        gpus_per_worker: GPUs that one worker takes; a share such as 0.5 is possible.
        options: further keyword arguments of :class:`~revela_rag.model.encoder.Encoder`.

    Raises:
        MissingExtraError: ray is not installed.
        ModelError: the model does not exist, or ``workers`` is out of range.
    """

    #: Chunks that a writer should hand over at a time.
    window = 65_536

    def __init__(
        self, model: str | Path, *, workers: int | None = None, gpus_per_worker: float = 0, **options: Any
    ) -> None:
        if workers is not None and workers < 1:
            raise ModelError(f"workers={workers} must be at least 1, or None for as many as the cluster has room for.")
        self._ray = _import()
        self._local = Encoder(model, **options)
        self._model = str(model)
        self._options = options
        self._workers = workers
        self._gpus = gpus_per_worker

    def __getattr__(self, name: str) -> Any:
        """Everything else is the local encoder's."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._local, name)

    def encode_documents(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Encode documents on the cluster; see :meth:`revela_rag.Encoder.encode_documents`.

        Raises:
            IndexMismatchError: a worker found another model under the same name.
        """
        vectors = np.empty((len(texts), self._local.dimension), dtype=np.float32)
        if not len(texts):
            return vectors
        ray = self._ray
        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = show_progress
        blocks = -(-len(texts) // _BLOCK)
        items = [{"place": place, "text": text} for place, text in enumerate(texts)]
        embedded = ray.data.from_items(items, override_num_blocks=blocks).map_batches(
            _Worker,
            fn_constructor_kwargs={
                "model": self._model,
                "options": self._options,
                "fingerprint": self._local.fingerprint,
            },
            batch_size=_BLOCK,
            compute=ray.data.ActorPoolStrategy(size=min(self._workers or self._room(), blocks)),
            num_gpus=self._gpus or None,
        )
        for batch in embedded.iter_batches(batch_size=None, batch_format="numpy"):
            vectors[batch["place"]] = np.stack(list(batch["vector"]))
        return vectors

    def _room(self) -> int:
        held = self._ray.cluster_resources()
        return max(1, int(held.get("GPU", 0) / self._gpus if self._gpus else held.get("CPU", 1)))

    def __repr__(self) -> str:
        return f"RayEncoder({self._model!r})"


class _Worker:
    """One process with the model in memory."""

    def __init__(self, model: str, options: dict[str, Any], fingerprint: str) -> None:
        self._encoder = Encoder(model, **options)
        if self._encoder.fingerprint != fingerprint:
            raise IndexMismatchError(
                f"A worker has another model under {model!r} (fingerprint {self._encoder.fingerprint[:12]}) than the "
                f"writer ({fingerprint[:12]}); put the same files on all machines."
            )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Texts in, vectors out, under their places."""
        return {"place": batch["place"], "vector": self._encoder.encode_documents(list(map(str, batch["text"])))}


def _import() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "embedding on a cluster") from error
    return ray
