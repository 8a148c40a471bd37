"""Texts in, unit vectors out: the one place where queries and documents become embeddings."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from revela_rag.errors import ModelError
from revela_rag.forks import survive_forks
from revela_rag.memory import is_out_of_memory
from revela_rag.model.backends import Backend, Wrapped
from revela_rag.model.find import fetch_model, resolve_model
from revela_rag.model.fingerprint import fingerprint, memory_fingerprint
from revela_rag.model.open import Dtype, check_device, input_module, open_model, resolve_dtype, set_length
from revela_rag.model.record import recorded_trust
from revela_rag.model.safety import check_model, model_errors
from revela_rag.model.st_format import Role
from revela_rag.model.unknown_tokens import SAMPLED
from revela_rag.surrogates import encodable
from revela_rag.unit import unit_rows

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from revela_rag.corpus.window import Window

__all__ = ["Dtype", "Encoder"]

logger = logging.getLogger(__name__)

Loaded = TypeVar("Loaded", bound=Backend)

_WINDOW = 2048  # texts that are tokenised and sorted together, and held at a time
_PROBE = "A short text that shows whether a model works."
_MOST_TOKENS = 50  # of one character of it
_CPU_TOKENS, _GPU_TOKENS = 1024, 32_768  # per forward pass: what the caches of a core hold; what keeps a GPU busy


class Encoder:
    """A retriever model that turns texts into unit vectors.

    The query and document prompts stored with the model are always applied, and newlines are kept. The
    model is loaded on first use. One encoder may be used by many threads at once.

    Texts are tokenised together, sorted by their number of tokens and computed in batches of equal numbers of tokens,
    so that little of the work is padding. A plain BERT retriever is computed by
    :class:`revela_rag.model.bert.BertModel`, any other by sentence-transformers.

    Args:
        model: a directory, a hub id, ``"all-MiniLM-L6-v2"``, or a loaded ``SentenceTransformer``.
        device: as torch names it; None picks the best there is. Ignored for a loaded model.
        max_length: tokens kept of a text; None keeps the model's own setting.
        batch_size: at most this many texts per forward pass; None sets no limit.
        batch_tokens: at most this many tokens per forward pass, padding included, unless one text alone has more;
            None means 1024 on a CPU and 32,768 elsewhere. Halved for good when memory runs out.
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
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        dtype: Dtype = "float32",
        trust_remote_code: bool = False,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("batch_tokens", batch_tokens)):
            if value is not None and value < 1:
                raise ModelError(f"{name}={value} must be at least 1, or None.")
        if max_length is not None and max_length < 1:
            raise ModelError(f"max_length={max_length} must be at least 1, or None for the model's own.")
        if dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ModelError(f"dtype={dtype!r} is not one of 'auto', 'float32', 'bfloat16', 'float16'.")
        self._given = None if isinstance(model, str | Path) else model
        if isinstance(model, str | Path):
            name = resolve_model(model, trust_remote_code=trust_remote_code)
            # the working directory may be another one when the model is loaded
            self._name = str(Path(name).absolute()) if Path(name).is_dir() else name
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
        self._batch_tokens = batch_tokens
        self._backend: Backend | None = None
        self._fingerprint: str | None = None
        self._window_read: tuple[Window | None] | None = None
        self._unseen = SAMPLED  # documents yet to be looked at for tokens that the model does not have
        self._load_lock = threading.RLock()

    @classmethod
    def over(
        cls, embeddings: Any, adapted: str | Path | None = None, *, cache: str | Path | bool | None = None
    ) -> Encoder:
        """An encoder over embeddings that live behind an API, as they are or adapted.

        Args:
            embeddings: LangChain ``Embeddings``, a LlamaIndex ``BaseEmbedding``, or a function as
                :class:`revela_rag.ApiEmbeddings`.
            adapted: the folder that ``adapt(source, base=embeddings, output=...)`` wrote; None takes them as they are.
            cache: a file or a directory for vectors, so that no text is paid for twice; None for the user's cache,
                False for none.

        Raises:
            EmbeddingError: the folder was adapted from other embeddings.
            ModelError: the embeddings cannot be called, or the folder holds no map.
        """
        from revela_rag.api.encoder import ApiEncoder

        return ApiEncoder(embeddings, adapted, cache=cache)

    @property
    def model_path(self) -> str:
        """Absolute directory or hub id the model comes from; ``""`` for a loaded model that was never saved."""
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
        """The model as a ``SentenceTransformer``, which encodes from now on; loads it on first use."""
        with self._load_lock:
            if not isinstance(self._backend, Wrapped):
                survive_forks()
                self._backend = self._unchanged(lambda: Wrapped(self._load()))
            return self._backend.model

    def _load(self) -> SentenceTransformer:
        if self._given is None:
            return open_model(self._name, max_length=self._max_length, **self._options)
        model = self._given.eval()
        if self._max_length is not None:
            set_length(model, self._max_length)
        return model

    @property
    def _ready(self) -> Backend:
        """What computes; loads it on first use."""
        with self._load_lock:
            if self._backend is None:
                survive_forks()
                check_device(self._options["device"])
                self._backend = self._unchanged(lambda: self._read() or Wrapped(self._load()))
                try:
                    self._probe(self._backend)
                except BaseException:
                    self._backend = None
                    raise
            return self._backend

    def _probe(self, backend: Backend) -> None:
        """Encode one text before anything relies on the model."""
        with model_errors(self._name, "does not work"):
            tokens = len(backend.tokenize([_PROBE], "query")[0])
        if tokens > _MOST_TOKENS * len(_PROBE):
            raise ModelError(
                f"The tokenizer of {self._name!r} makes {tokens:,} tokens of {len(_PROBE)} characters; do not use it."
            )
        self._window([_PROBE], "query")

    def _unchanged(self, load: Callable[[], Loaded]) -> Loaded:
        """Load weights; refuse them if they are not those of the fingerprint, which an index may rely on already."""
        if self._given is not None or not Path(self._name).is_dir():
            return load()
        known = self.fingerprint
        with model_errors(self._name):
            loaded = load()
        if self._compute_fingerprint() != known:
            raise ModelError(
                f"The model in {self._name!r} was replaced after it was opened; open it, and the index that uses it, "
                "again."
            )
        return loaded

    def _read(self) -> Backend | None:
        """A plain model without the seconds that sentence-transformers takes to import."""
        if self._given is not None or not Path(self._name).is_dir() or self._options["trust_remote_code"]:
            return None
        from revela_rag.model.bert import BertModel

        check_model(self._name)
        device = self._options["device"]
        dtype = resolve_dtype(self._options["dtype"], device)
        return BertModel.read(Path(self._name), device=device, max_length=self._max_length, dtype=dtype)

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._backend is not None

    @property
    def dimension(self) -> int:
        """Length d of the vectors."""
        return self._ready.dimension or int(self._window(["a"], "query").shape[1])

    @property
    def max_length(self) -> int:
        """Tokens kept of a document, special tokens and prompt included; 0 for all."""
        return self._max_length or self._ready.max_length

    @property
    def token_window(self) -> Window | None:
        """What the model reads of a document, to cut chunks for (``load_corpus(source, window=...)``).

        Needs no loaded model when the model is a directory. None where its tokenizer cannot be used alone.
        """
        with self._load_lock:
            if self._window_read is None:
                self._window_read = (self._read_window(),)
            return self._window_read[0]

    def _read_window(self) -> Window | None:
        from revela_rag.model.window import read_window, tokenizer_window

        directory = self._directory()
        if directory is not None:
            trusted = self._options["trust_remote_code"]
            return read_window(directory, max_length=self._max_length, trust_remote_code=trusted)
        from tokenizers import Tokenizer

        module = input_module(self.model, "document")
        tokenizer = getattr(getattr(module, "tokenizer", None), "backend_tokenizer", None)
        if tokenizer is None or not self.max_length:
            return None
        return tokenizer_window(Tokenizer.from_str(tokenizer.to_str()), self.max_length, self.document_prompt)

    @property
    def query_prompt(self) -> str:
        """What is put before every query."""
        return self._ready.prompts["query"]

    @property
    def document_prompt(self) -> str:
        """What is put before every document."""
        return self._ready.prompts["document"]

    @cached_property
    def trust(self) -> float | None:
        """How much cosines count beside BM25, where the model was adapted; None where each corpus says it itself."""
        folder = self._directory()
        return None if folder is None else recorded_trust(folder)

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the vectors, see :func:`revela_rag.model.fingerprint.fingerprint`.

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
            ModelError: the model gave a vector that is not finite, or memory ran out with a single text.
        """
        return self._encode(texts, "query", show_progress)

    def encode_documents(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Encode documents, each behind the document prompt; otherwise as :meth:`encode_queries`."""
        return self._encode(texts, "document", show_progress)

    def encode_tokens(self, texts: Sequence[str], *, role: Role = "document") -> list[np.ndarray]:
        """The vectors of each text's tokens, which its own vector is pooled from.

        Args:
            texts: n texts; may be empty.
            role: whether they stand behind the query or the document prompt, whose tokens are among them.

        Returns:
            n arrays, (t, d) float32 with unit rows, of t tokens each, special ones too.

        Raises:
            ModelError: the model has none, as embeddings behind an API.
        """
        backend, found = self._ready, list[np.ndarray]()
        with model_errors(self._name, "gives no vectors of tokens"):
            items = backend.tokenize([_clean(text) for text in texts], role)
            order = sorted(range(len(items)), key=lambda place: -len(items[place]))
            while len(found) < len(order):
                size = self._fitting(max(1, len(items[order[len(found)]])), backend)
                some = [items[place] for place in order[len(found) : len(found) + size]]
                found += [unit_rows(of) for of in backend.embed_tokens(some, role)]
        return [found[place] for place in np.argsort(order)]

    def encode_stream(
        self, texts: Iterable[str], *, role: Role = "document", show_progress: bool = False
    ) -> Iterator[np.ndarray]:
        """Encode texts one window after the other, so that neither they nor their vectors need to fit in memory.

        Args:
            texts: any number; taken as they are needed, 2048 at a time.
            role: whether they stand behind the query or the document prompt.
            show_progress: draw a progress bar.

        Yields:
            (n, d) float32 unit rows in the order of the texts, n up to 2048; together one row per text.

        Raises:
            ModelError: as :meth:`encode_queries`; a position counts from the start of the stream.
        """
        if isinstance(texts, str):
            raise TypeError("texts is one string; pass a list of strings.")
        iterator, start = iter(texts), 0
        total = len(texts) if isinstance(texts, Sized) else None
        with _progress(total, show_progress) as advance:
            while window := list(islice(iterator, _WINDOW)):
                vectors = self._window(window, role)
                self._check(vectors, start)
                start += len(window)
                advance(len(window))
                yield vectors

    def _encode(self, texts: Sequence[str], role: Role, show_progress: bool) -> np.ndarray:
        blocks = list(self.encode_stream(texts, role=role, show_progress=show_progress))
        if not blocks:
            return np.empty((0, self.dimension), dtype=np.float32)
        return np.ascontiguousarray(blocks[0] if len(blocks) == 1 else np.concatenate(blocks))

    def _window(self, texts: Sequence[str], role: Role) -> np.ndarray:
        """Texts → (n, d)."""
        backend, cleaned = self._ready, [_clean(text) for text in texts]
        with model_errors(self._name, "cannot encode a text"):
            return self._encoded(backend, cleaned, role)

    def _encoded(self, backend: Backend, cleaned: list[str], role: Role) -> np.ndarray:
        """Texts → (n, d), longest first, so that memory runs out at once or not at all."""
        if role == "document" and (some := cleaned[: self._unseen]):
            warned = backend.look_for_unknown_tokens(some, self.name or "The model")
            self._unseen = 0 if warned else self._unseen - len(some)
        items = backend.tokenize(cleaned, role)
        empty = [place for place, item in enumerate(items) if not len(item)]
        for place in empty:  # decoders without special tokens cannot read nothing at all
            items[place] = backend.tokenize(["."], role)[0]
        order = sorted(range(len(items)), key=lambda place: -len(items[place]))
        vectors: np.ndarray | None = None
        start = 0
        while start < len(order):
            places = order[start : start + self._fitting(len(items[order[start]]), backend)]
            found = self._forward(backend, [items[place] for place in places], role)
            if found is None:
                continue  # with smaller batches
            if vectors is None:
                vectors = np.empty((len(items), found.shape[1]), dtype=np.float32)
            vectors[places] = found
            start += len(places)
        assert vectors is not None
        return unit_rows(vectors)

    def _fitting(self, width: int, backend: Backend) -> int:
        """How many texts of so many tokens make a batch."""
        tokens = self._batch_tokens or (_CPU_TOKENS if backend.on_cpu else _GPU_TOKENS)
        return max(1, min(tokens // width, self._batch_size or tokens))

    def _forward(self, backend: Backend, items: list[Any], role: Role) -> np.ndarray | None:
        """One batch → (n, d); None when memory ran out and the next batches will be smaller."""
        import torch

        try:
            return backend.embed(items, role)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(items) == 1:
                raise ModelError(
                    f"Memory ran out while encoding one text at a time with {self._name!r}; "
                    f"lower max_length (now {self.max_length}) or use another device or dtype."
                ) from error
        tokens = max(1, len(items) // 2) * len(items[0])
        self._batch_tokens = min(self._batch_tokens or tokens, tokens)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logger.warning("Out of memory at %d texts; going on with batches of %d tokens.", len(items), tokens)
        return None

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
        value = memory_fingerprint(self.model) if directory is None else fingerprint(directory)
        if self._max_length is not None and self._given is None:
            value = hashlib.sha256(f"{value} max_length={self._max_length}".encode()).hexdigest()
        return value

    def _directory(self) -> Path | None:
        if self._given is not None:
            return None
        return fetch_model(self._name)

    def __repr__(self) -> str:
        return f"Encoder({self._name!r})"

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs to load the model again, from where it is; one that was handed over goes along."""
        left = ("_backend", "_load_lock", "_window_read")
        return {name: value for name, value in self.__dict__.items() if name not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _backend=None, _load_lock=threading.RLock(), _window_read=None)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The same encoder: a copy of what holds one shares the loaded model."""
        return self


def _clean(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"texts must be strings, got {type(text).__name__}.")
    return encodable(text)


def _name_of(model: Any) -> str:
    if not hasattr(model, "encode"):
        raise ModelError(f"model must be a path, name or SentenceTransformer, got {type(model).__name__}.")
    return str(getattr(getattr(model, "model_card_data", None), "base_model", None) or "")


def _recorded(model: Any, resolved: str) -> str:
    """Aliases and hub ids stay as written, so that an index outlives the virtual environment it was built in."""
    if not isinstance(model, str | Path):
        return ""
    return resolved if Path(model).expanduser().is_dir() else str(model).strip()


class _progress:
    """A progress bar over texts that costs nothing when it is off."""

    def __init__(self, total: int | None, show: bool) -> None:
        self._bar: Any = None
        if show:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, desc="encode", unit="text")

    def __enter__(self) -> Callable[[int], Any]:
        return self._bar.update if self._bar is not None else (lambda count: None)

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.close()
