"""From groups of text indices to what the model is handed: slices of stored tokens, padded and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from revela_training.batching import Group
from revela_training.tokens import TokenStore

__all__ = ["GroupCollator"]


class GroupCollator:
    """Stack G groups of B texts into one step's input.

    Args:
        reader: what the LM reads of each text; None where no LM reads.
        passages: what the retriever reads of each text; None where its embeddings are cached.
        queries: the same for the part of a text that asks; None if that is the whole text with the same prompt.
    """

    def __init__(
        self, reader: TokenStore | None, *, passages: TokenStore | None = None, queries: TokenStore | None = None
    ) -> None:
        self._reader = reader
        self._passages = passages
        self._queries = queries

    def __call__(self, groups: Sequence[Group]) -> dict[str, Any]:
        """One step's input.

        Returns:
            ``text_index`` (G, B), ``pair_index`` (P, 2), ``pseudo_index`` (Q, 3), and as far as there are tokens for
            them ``input_ids`` and ``attention_mask`` (G*B, L) for the LM, ``passages`` and ``queries``, features of
            G*B rows each.
        """
        text_index = torch.stack([torch.from_numpy(group.texts) for group in groups])
        rows = text_index.flatten().numpy()
        batch = {
            **(self._reader.batch(rows) if self._reader else {}),
            "text_index": text_index,
            "pair_index": torch.cat([torch.from_numpy(group.pairs) for group in groups]).unique(dim=0),
        }
        batch["pseudo_index"] = torch.cat([torch.from_numpy(group.pseudo) for group in groups]).unique(dim=0)
        for name, store in (("passages", self._passages), ("queries", self._queries)):
            if store is not None:
                batch[name] = store.batch(rows)
        return batch
