"""From groups of text indices to what the model is handed: slices of stored tokens, padded and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from revela_training.data.batching import Group
from revela_training.data.tokens import TokenStore

__all__ = ["GroupCollator"]


class GroupCollator:
    """Stack G groups of B texts into one step's input.

    Args:
        reader: what the LM reads of each text; None where no LM reads.
        passages: what the retriever reads of each text, pseudo texts included; None where its embeddings are cached.
        queries: the same for the part of a text that asks in the in-batch weights; None if that is the whole text with
            the same prompt.
        asked: the same for a whole text that asks in the contrastive term; None if its prompt is that of passages.
    """

    def __init__(
        self,
        reader: TokenStore | None,
        *,
        passages: TokenStore | None = None,
        queries: TokenStore | None = None,
        asked: TokenStore | None = None,
    ) -> None:
        self._reader = reader
        self._stores = {"passages": passages, "queries": queries, "asked": asked or passages, "answers": passages}

    def __call__(self, groups: Sequence[Group]) -> dict[str, Any]:
        """One step's input.

        Returns:
            ``text_index`` (G, B); ``pair_index`` (P, 2) and ``pseudo_index`` (Q, 3); ``asked_index`` (M,) and
            ``answer_index`` (K,), each text once; and as far as there are tokens for them ``input_ids`` and
            ``attention_mask`` (G*B, L) for the LM, ``passages`` and ``queries``, features of G*B rows each, ``asked``
            and ``answers``, features of M and K rows.
        """
        text_index = torch.stack([torch.from_numpy(group.texts) for group in groups])
        pairs = torch.cat([torch.from_numpy(group.pairs) for group in groups]).unique(dim=0)
        pseudo = torch.cat([torch.from_numpy(group.pseudo) for group in groups]).unique(dim=0)
        rows = torch.cat([pairs, pseudo[:, 1:]])
        asked, answers = rows[rows[:, 0] >= 0, 0].unique(), rows[:, 1].unique()
        batch: dict[str, Any] = {
            "text_index": text_index,
            "pair_index": pairs,
            "pseudo_index": pseudo,
            "asked_index": asked,
            "answer_index": answers,
        }
        needed = {"asked": asked, "answers": answers}
        if self._reader is not None:
            needed |= {"passages": text_index.flatten(), "queries": text_index.flatten()}
            batch |= self._reader.batch(needed["passages"].numpy())
        for name, index in needed.items():
            store = self._stores[name]
            if store is not None and len(index):
                batch[name] = store.batch(index.numpy())
        return batch
