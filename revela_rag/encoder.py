"""Texts in, unit vectors out: the one place where queries and documents become embeddings."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from revela_rag.errors import ModelError
from revela_rag.models import fingerprint, load_sentence_transformer, resolve_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["Dtype", "Encoder"]

logger = logging.getLogger(__name__)

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")  # sentence-transformers looks for them in this order
_BLOCK = 64  # batches per turn: long jobs let other threads in between turns


class Encoder:
    """A retriever model that turns texts into unit vectors.

    The query and document prompts stored with the model are always applied, and newlines are kept. The
    model is loaded on first use. One encoder may be used by many threads at once.

    Args:
        model: a directory, a hub id, ``"all-MiniLM-L6-v2"``, or a loaded ``SentenceTransformer``.
        device: as torch names it; None picks the best there is. Ignored for a loaded model.
        max_length: tokens kept of a text; None keeps the model's own setting.
        batch_size: texts per forward pass; halved for good when memory runs out.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"``: bfloat16 on a GPU that has it,
            else float32. Ignored for a loaded model.
        trust_remote_code: let the model bring Python code of its own.

    Raises:
        ModelError: the model does not exist, is unsafe to load, or an argument is out of range.
    """

    def __init__(
        self,
        model: str | Path | SentenceTransformer,
        *,
        device: str | None = None,
        max_length: int | None = None,
        batch_size: int = 32,
        dtype: Dtype = "float32",
        trust_remote_code: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ModelError(f"batch_size={batch_size} must be at least 1.")
        if max_length is not None and max_length < 1:
            raise ModelError(f"max_length={max_length} must be at least 1, or None for the model's own.")
        if dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ModelError(f"dtype={dtype!r} is not one of 'auto', 'float32', 'bfloat16', 'float16'.")
        self._given = None if isinstance(model, str | Path) else model
        if isinstance(model, str | Path):
            self._name = resolve_model(model, trust_remote_code=trust_remote_code)
        else:
            self._name = _name_of(model)
        self._recorded = _recorded(model, self._name)
        self._options: dict[str, Any] = {
            "device": device,
            "dtype": dtype,
            "trust_remote_code": trust_remote_code,
        }
        self._max_length = max_length
        self._batch_size = batch_size
        self._model: SentenceTransformer | None = None
        self._fingerprint: str | None = None
        self._load_lock = threading.RLock()
        self._encode_lock = threading.Lock()

    @property
    def model_path(self) -> str:
        """Directory or hub id the model comes from; ``""`` for a loaded model that was never saved."""
        return self._name

    @property
    def name(self) -> str:
        """What loads this model again from anywhere: an absolute directory, a hub id or an alias; may be ``""``."""
        return self._recorded

    @property
    def chosen_max_length(self) -> int | None:
        """The ``max_length`` given to the constructor."""
        return self._max_length

    @property
    def model(self) -> SentenceTransformer:
        """The loaded model; loads it on first use."""
        with self._load_lock:
            if self._model is None:
                if self._given is not None:
                    self._model = self._given.eval()
                    if self._max_length is not None:
                        self._model.max_seq_length = self._max_length
                else:
                    self._model = load_sentence_transformer(self._name, max_length=self._max_length, **self._options)
            return self._model

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._model is not None

    @property
    def dimension(self) -> int:
        """Length d of the vectors."""
        model = self.model
        read = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
        dimension = model.truncate_dim or read()
        return int(dimension) if dimension else int(self._run(["a"], "query").shape[1])

    @property
    def max_length(self) -> int:
        """Tokens kept of a text, special tokens and prompt included."""
        return int(self._max_length or self.model.max_seq_length or 0)

    @property
    def query_prompt(self) -> str:
        """What is put before every query."""
        return self._prompt("query")

    @property
    def document_prompt(self) -> str:
        """What is put before every document."""
        return self._prompt("document")

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the vectors, see :func:`revela_rag.models.fingerprint`.

        Needs no loaded model when the model is a directory. A ``SentenceTransformer`` that was handed over is
        hashed as it is in memory, so it never equals the hash of a directory.
        """
        with self._load_lock:
            if self._fingerprint is None:
                self._fingerprint = self._compute_fingerprint()
            return self._fingerprint

    def encode_queries(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Encode queries, each behind the query prompt.

        Args:
            texts: n queries; may be empty.
            show_progress: draw a progress bar.

        Returns:
            (n, d) float32, unit rows, C-contiguous. (A row is zero where the model gives the zero vector.)

        Raises:
            ModelError: the model gave a vector that is not finite, or memory ran out at batch size 1.
        """
        return self._encode(texts, "query", show_progress)

    def encode_documents(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Encode documents, each behind the document prompt; otherwise as :meth:`encode_queries`."""
        return self._encode(texts, "document", show_progress)

    def _prompt(self, role: Literal["query", "document"]) -> str:
        prompts = self.model.prompts or {}
        names = ("query",) if role == "query" else _DOCUMENT_PROMPTS
        name = next((name for name in names if name in prompts), self.model.default_prompt_name)
        return str(prompts.get(name) or "") if name else ""

    def _encode(self, texts: Sequence[str], role: Literal["query", "document"], show_progress: bool) -> np.ndarray:
        if isinstance(texts, str):
            raise TypeError("texts is one string; pass a list of strings.")
        prepared = [self._prepare(text, role) for text in texts]
        if not prepared:
            return np.empty((0, self.dimension), dtype=np.float32)
        blocks = []
        step = self._batch_size * _BLOCK
        with _progress(len(prepared), show_progress) as advance:
            for start in range(0, len(prepared), step):
                block = prepared[start : start + step]
                vectors = self._run(block, role)
                self._check(vectors, start)
                blocks.append(vectors)
                advance(len(block))
        return np.ascontiguousarray(blocks[0] if len(blocks) == 1 else np.concatenate(blocks))

    def _prepare(self, text: str, role: Literal["query", "document"]) -> str:
        if not isinstance(text, str):
            raise TypeError(f"texts must be strings, got {type(text).__name__}.")
        try:
            text.encode()
        except UnicodeEncodeError:  # lone surrogates, from files that were not UTF-8; tokenizers refuse them
            text = text.encode("utf-8", "replace").decode()
        if not text.strip() and not self._has_tokens(self._prompt(role) + text):
            return "."  # decoders without special tokens cannot read nothing at all
        return text

    def _has_tokens(self, text: str) -> bool:
        with self._encode_lock:
            tokenizer = getattr(self.model, "tokenizer", None)
            return not callable(tokenizer) or len(tokenizer(text)["input_ids"]) > 0

    def _run(self, texts: list[str], role: Literal["query", "document"]) -> np.ndarray:
        """One block of texts → (n, d); halves the batch when memory runs out."""
        import torch

        model = self.model
        encode = model.encode_query if role == "query" else model.encode_document
        while True:
            size = self._batch_size
            try:
                with self._encode_lock:
                    vectors = encode(
                        texts,
                        batch_size=size,
                        show_progress_bar=False,
                        convert_to_numpy=True,
                        normalize_embeddings=False,
                    )
                return _unit(np.asarray(vectors, dtype=np.float32))
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                if size == 1:
                    raise ModelError(
                        f"Memory ran out while encoding one text at a time with {self._name!r}; "
                        f"lower max_length (now {self.max_length}) or use another device or dtype."
                    ) from error
            self._batch_size = min(self._batch_size, max(1, size // 2))
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            logger.warning("Out of memory at batch size %d; going on with %d.", size, self._batch_size)

    def _check(self, vectors: np.ndarray, start: int) -> None:
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise ModelError(
                f"The model {self._name!r} gave vectors that are not finite for {len(bad)} texts, the first "
                f"at position {start + int(bad[0])}. Its weights are damaged, or "
                f"dtype={self._options['dtype']!r} is too small for it: try dtype='float32'."
            )

    def _compute_fingerprint(self) -> str:
        directory = self._directory()
        value = _hash_model(self.model) if directory is None else fingerprint(directory)
        if self._max_length is not None and self._given is None:
            value = hashlib.sha256(f"{value} max_length={self._max_length}".encode()).hexdigest()
        return value

    def _directory(self) -> Path | None:
        if self._given is not None:
            return None
        if Path(self._name).is_dir():
            return Path(self._name)
        from huggingface_hub import try_to_load_from_cache

        self.model  # noqa: B018  (fetches it)
        found = try_to_load_from_cache(self._name, "config.json")
        return Path(found).parent if isinstance(found, str) else None

    def __repr__(self) -> str:
        return f"Encoder({self._name!r})"


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)


def _out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error).lower()
    return "out of memory" in message or "can't allocate memory" in message


def _name_of(model: Any) -> str:
    if not hasattr(model, "encode"):
        raise ModelError(f"model must be a path, name or SentenceTransformer, got {type(model).__name__}.")
    return str(getattr(getattr(model, "model_card_data", None), "base_model", None) or "")


def _recorded(model: Any, resolved: str) -> str:
    """Aliases and hub ids stay as written, so that an index outlives the virtual environment it was built in."""
    if not isinstance(model, str | Path):
        return ""
    return str(Path(resolved).absolute()) if Path(model).expanduser().is_dir() else str(model).strip()


def _hash_model(model: Any) -> str:
    """Fingerprint of a model in memory: its tensors, its vocabulary, and how it prompts, pools and cuts."""
    import torch

    digest = hashlib.sha256(b"revela-fingerprint-memory-1")
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    tokenizer = getattr(model, "tokenizer", None)
    read = getattr(tokenizer, "get_vocab", dict)
    modules = [(type(part).__name__, getattr(part, "pooling_mode", None)) for part in model]
    rest = (
        modules,
        sorted((model.prompts or {}).items()),
        model.max_seq_length,
        model.truncate_dim,
    )
    digest.update(repr((rest, sorted(read().items()))).encode("utf-8", "replace"))
    return digest.hexdigest()


class _progress:
    """A progress bar over texts that costs nothing when it is off."""

    def __init__(self, total: int, show: bool) -> None:
        self._bar: Any = None
        if show:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, desc="encode", unit="text")

    def __enter__(self) -> Callable[[int], Any]:
        return self._bar.update if self._bar is not None else (lambda count: None)

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.close()
