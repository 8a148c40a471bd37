"""Fewer dimensions: vectors turned so that the first of their dimensions hold most of them, and the rest left out.

The directions are those of the corpus' own vectors, the principal axes about the origin. (About the mean, as principal
component analysis has it, more of what a search needs is lost.)
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from revela_rag.errors import IndexingError
from revela_rag.unit import unit_rows

__all__ = ["ROTATION_FILE", "Rotation"]

ROTATION_FILE = "rotation.npy"
_ROUND = 1e-3  # how far stored directions may be from orthonormal


class Rotation:
    """Some directions of the space of a model's vectors.

    Attributes:
        matrix: (model's length, d) float32, orthonormal columns, the most important first.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = np.ascontiguousarray(matrix, dtype=np.float32)

    @classmethod
    def fit(cls, batches: Iterable[np.ndarray], dimensions: int) -> Rotation:
        """The ``dimensions`` directions that keep most of some unit vectors.

        Args:
            batches: (b, n) float32 each; read once.
            dimensions: how many; fewer than the vectors are long, and no more than there are vectors.

        Raises:
            IndexingError: ``dimensions`` is out of that range.
        """
        moment, count = np.zeros((0, 0)), 0
        for batch in batches:
            if not count:
                moment = np.zeros((batch.shape[1], batch.shape[1]))
            moment += batch.T @ batch
            count += len(batch)
        if count and dimensions >= len(moment):
            raise IndexingError(
                f"dimensions={dimensions} is not below {len(moment)}, the length of the model's vectors; choose fewer, "
                "or leave it out to keep them whole."
            )
        if count < dimensions:
            raise IndexingError(
                f"dimensions={dimensions} needs at least as many chunks to find the directions that matter; there are "
                f"{count}. Leave it out."
            )
        _, directions = np.linalg.eigh(moment)
        return cls(directions[:, ::-1][:, :dimensions])

    @property
    def length(self) -> int:
        """Of the vectors that it takes."""
        return self.matrix.shape[0]

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """(n, d) float32 unit vectors of (n, length) ones."""
        return unit_rows(np.asarray(vectors, dtype=np.float32) @ self.matrix)

    def write(self, folder: Path) -> None:
        """Write it into a generation."""
        np.save(folder / ROTATION_FILE, self.matrix, allow_pickle=False)

    @classmethod
    def read(cls, folder: Path, shape: tuple[int, int]) -> Rotation:
        """Read that of a generation.

        Raises:
            IndexingError: it is missing, damaged, or of another shape.
        """
        file = folder / ROTATION_FILE
        try:
            mapped = np.load(file, mmap_mode="r", allow_pickle=False)  # claims no memory that the file does not have
            if mapped.shape != shape or mapped.dtype != np.float32:
                raise ValueError(f"it holds {mapped.shape} {mapped.dtype} instead of {shape} float32")
            matrix = np.array(mapped)
            if not np.allclose(matrix.T @ matrix, np.eye(shape[1]), atol=_ROUND):  # NaN is not close, either
                raise ValueError("its columns are not orthonormal")
        except (OSError, ValueError, EOFError) as error:
            raise IndexingError(f"{str(file)!r} is missing or damaged; build the index again. ({error})") from error
        return cls(matrix)
