"""Requests to embeddings behind an API: of the right size and pace, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import numpy as np

from revela_rag.api.answers import checked
from revela_rag.api.calls import Pace, call, status_of
from revela_rag.api.embeddings import ApiEmbeddings
from revela_rag.corpus.text import about_tokens
from revela_rag.errors import EmbeddingError, RevelaError
from revela_rag.model.st_format import Role

__all__ = ["Requests"]

Item = TypeVar("Item")


class Requests:
    """What is sent, and how fast; shared by threads.

    Args:
        embeddings: what is asked.
    """

    def __init__(self, embeddings: ApiEmbeddings) -> None:
        self.embeddings = embeddings
        self._requests, self._tokens = Pace(embeddings.requests_per_minute), Pace(embeddings.tokens_per_minute)

    def at_once(self, role: Role) -> int:
        """Texts in one request."""
        settings = self.embeddings
        return settings.query_batch_size or settings.batch_size if role == "query" else settings.batch_size

    def batches(self, items: Sequence[Item], role: Role) -> list[Sequence[Item]]:
        """Items that go together."""
        size = self.at_once(role)
        return [items[start : start + size] for start in range(0, len(items), size)]

    def embed(self, texts: Sequence[str], role: Role, dimension: int | None) -> np.ndarray:
        """One request, repeated where that may help.

        Args:
            texts: n texts, at most `at_once`, behind their prompts.
            role: "query" or "document".
            dimension: length d that the vectors must have; None takes any.

        Returns:
            (n, d) float32 unit rows.

        Raises:
            EmbeddingError: it failed for good, or the answer cannot be used.
        """
        settings = self.embeddings
        tokens = sum(map(about_tokens, texts))

        def before() -> None:
            self._requests.wait(1)
            self._tokens.wait(tokens)

        try:
            answer = call(
                lambda: settings(list(texts), role), retries=settings.retries, timeout=settings.timeout, before=before
            )
        except RevelaError:
            raise
        except Exception as error:
            status = status_of(error)
            what, longest = "queries" if role == "query" else "documents", max(map(len, texts))
            raise EmbeddingError(
                f"{settings.name!r} did not embed {len(texts)} {what}, the longest of {longest:,} characters: "
                f"{type(error).__name__}{f' {status}' if status else ''}: {error}. {_remedy(error, status)}"
            ) from error
        return checked(answer, texts, settings.name, dimension)

    def each(self, ask: Callable[[Sequence[Item]], int], batches: Sequence[Sequence[Item]]) -> Iterator[int]:
        """What ``ask`` gives for each batch, several at a time; after an error those under way are waited for."""
        if self.embeddings.workers == 1 or len(batches) == 1:
            yield from map(ask, batches)
            return
        with ThreadPoolExecutor(self.embeddings.workers, thread_name_prefix="revela-embed") as pool:
            futures = [pool.submit(ask, batch) for batch in batches]
            try:
                for future in as_completed(futures):
                    yield future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _remedy(error: BaseException, status: int | None) -> str:
    if status in (401, 403):
        return "Check the key and its rights."
    if status == 429:
        return "Set requests_per_minute and tokens_per_minute to what you are allowed, or raise retries."
    if status in (400, 413, 422):
        return "If a text is too long for it, set max_tokens; if there are too many, batch_size."
    if isinstance(error, TimeoutError) or "timeout" in type(error).__name__.lower():
        return "See whether it is up; else raise timeout or lower batch_size."
    return "See whether it is up."
