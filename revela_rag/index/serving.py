"""The generation that searches see, and how a newer one takes its place."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from revela_rag.errors import IndexingError, RevelaError
from revela_rag.index.identity import check_identity
from revela_rag.index.manifest import Manifest, pointer
from revela_rag.index.snapshot import Snapshot

if TYPE_CHECKING:
    from revela_rag.index.facade import Index

__all__ = ["Serving", "reopen"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Serving:
    """One snapshot at a time, replaced while threads search.

    Args:
        path: directory of the index.
        snapshot: what is served first.
        check: raises where a generation is not to be served, by its manifest.
    """

    def __init__(self, path: Path, snapshot: Snapshot, *, check: Callable[[Manifest], None]) -> None:
        self._path = path
        self._snapshot: Snapshot | None = snapshot
        self._check = check
        self._pointer: tuple[int, int, int] | None = None  # of the manifest that was looked at last
        self._lock = threading.RLock()  # held for moments: searches need it, too

    @property
    def closed(self) -> bool:
        """Whether there is nothing to search any more."""
        return self._snapshot is None

    def current(self) -> Snapshot:
        """What is served.

        Raises:
            IndexingError: it was closed.
        """
        snapshot = self._snapshot
        if snapshot is None:
            raise IndexingError(f"The index {str(self._path)!r} is closed; open it again.")
        return snapshot

    def take_up(self, *, warm: bool) -> bool:
        """Serve the newest generation, once it is ``warm`` if so; True where it is another one.

        Raises:
            IndexMismatchError: another index lies there now, or one that ``check`` refuses.
        """
        with self._lock:
            current = self.current()
            self._pointer = pointer(self._path)
            found = Manifest.read(self._path)
            check_identity(self._path, current.manifest, found)
            if found.generation == current.manifest.generation:
                return False
            fresh = Snapshot.open(self._path)
            try:
                check_identity(self._path, current.manifest, fresh.manifest)
                self._check(fresh.manifest)
                if warm:
                    fresh.warm(current)
            except BaseException:
                fresh.close()
                raise
            self._snapshot = fresh  # the old one closes when the last search that uses it ends
            return True

    def followed(self, *, follow: bool) -> Snapshot:
        """What is served, where ``follow`` is true after a look whether there is a newer one."""
        current = self.current()
        if not follow or pointer(self._path) == self._pointer:
            return current
        if self._lock.acquire(blocking=False):  # one thread takes it up, others go on with what there is
            try:
                self.take_up(warm=True)
            except (RevelaError, OSError) as error:
                logger.warning("Searches go on with what was in %r before: %s", str(self._path), error)
            finally:
                self._lock.release()
        return self.current()

    def read(self, search: Callable[[Snapshot], Result], *, follow: bool) -> Result:
        """Search what :meth:`followed` gives; once more if a writer took it away meanwhile."""
        snapshot = self.followed(follow=follow)
        try:
            return search(snapshot)
        except IndexingError:
            if self.closed:
                raise
            self.take_up(warm=False)
            fresh = self.current()
            if fresh is snapshot:
                raise
            return search(fresh)

    def close(self) -> None:
        """Let go of files and memory."""
        with self._lock:
            if self._snapshot is not None:
                self._snapshot.close()
                self._snapshot = None


def reopen(cls: type[Index], path: Path, manifest: Manifest, settings: dict[str, Any]) -> Index:
    """The index that another process had open, which must be the same still."""
    index = cls.open(path, **settings)
    try:
        check_identity(path, manifest, index.manifest)
    except BaseException:
        index.close()
        raise
    return index
