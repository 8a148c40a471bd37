"""What a model embeds for an evaluation, and a cache of the result on disk."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from revela_rag.corpus.text import about_tokens
from revela_rag.corpus.types import titled
from revela_rag.corpus.window import Window
from revela_rag.errors import DiskError

if TYPE_CHECKING:
    from revela_rag.model.encoder import Encoder

__all__ = ["cached_vectors", "passages"]

logger = logging.getLogger(__name__)


def passages(corpus: Mapping[str, tuple[str, str]], *, window: Window | int | None) -> tuple[list[str], list[str]]:
    """Texts to embed and the document each belongs to.

    Args:
        corpus: document id to (title, text).
        window: what the model reads at once, or about how many tokens where its tokenizer cannot be used; longer
            documents become several chunks. None keeps all whole.

    Returns:
        N texts and their N document ids, the chunks of one document adjacent and in order.
    """
    texts: list[str] = []
    document_ids: list[str] = []
    for document_id, (title, text) in corpus.items():
        whole = titled(title, text)
        pieces = [whole]
        if not _holds(window, whole):
            pieces = _chunks(document_id, title, text, window if isinstance(window, Window) else None) or pieces
        texts += pieces
        document_ids += [document_id] * len(pieces)
    return texts, document_ids


def _holds(window: Window | int | None, text: str) -> bool:
    if isinstance(window, Window):
        return window.surely_holds(text) or window.count(text) <= window.room
    return window is None or about_tokens(text) <= window


def _chunks(document_id: str, title: str, text: str, window: Window | None) -> list[str]:
    from revela_rag.corpus import Document, chunk_document
    from revela_rag.corpus.code.detect import detect_format

    document = Document(document_id, text, title, detect_format(text, (title, document_id)))
    return [chunk.embedding_text for chunk in chunk_document(document, window=window)]


def cached_vectors(
    encoder: Encoder,
    role: Literal["query", "document"],
    texts: Sequence[str],
    *,
    cache_dir: str | Path | None = None,
    show_progress: bool = False,
) -> np.ndarray:
    """Embed texts, or take their vectors from the cache.

    Args:
        encoder: the model.
        role: which prompt applies.
        texts: N texts.
        cache_dir: directory of ``.npy`` files named by a hash of model, role, window and texts; None does not
            cache. A file that cannot be read is computed again.
        show_progress: show a progress bar on stderr.

    Returns:
        Unit vectors, shape (N, d).

    Raises:
        DiskError: the cache cannot be written.
    """
    encode = encoder.encode_queries if role == "query" else encoder.encode_documents
    if cache_dir is None:
        return encode(texts, show_progress=show_progress)
    file = Path(cache_dir) / f"{_key(encoder, role, texts)}.npy"
    if file.is_file():
        try:
            vectors = np.load(file, allow_pickle=False)
            if vectors.shape == (len(texts), encoder.dimension):
                return vectors
        except (OSError, ValueError, EOFError) as error:
            logger.warning("%s cannot be read (%s), embedding again", file, error)
    vectors = encode(texts, show_progress=show_progress)
    _write(file, vectors)
    return vectors


def _key(encoder: Encoder, role: str, texts: Sequence[str]) -> str:
    prompt = encoder.query_prompt if role == "query" else encoder.document_prompt
    digest = hashlib.sha256()
    for field in (encoder.fingerprint, str(encoder.max_length), role, prompt, *texts):
        data = field.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def _write(file: Path, vectors: np.ndarray) -> None:
    """Write beside the file and rename: a reader never sees half of one."""
    temporary = ""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".tmp", delete=False) as stream:
            temporary = stream.name
            np.save(stream, vectors, allow_pickle=False)
        Path(temporary).replace(file)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise DiskError(f"cannot write embeddings to {file.parent} ({error}). Free space or choose another") from error
