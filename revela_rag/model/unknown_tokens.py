"""Whether a model has tokens for a corpus at all."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

__all__ = ["SAMPLED", "warn_of_unknown_tokens"]

logger = logging.getLogger(__name__)

#: Texts that are enough to look at.
SAMPLED = 300
_MOST_UNKNOWN = 0.05  # share of tokens: below 0.001 with MiniLM in all English text and code tried
_FEWEST = 10  # tokens; some emoji are no other language


def warn_of_unknown_tokens(texts: Iterable[Sequence[int]], unknown: int | None, name: str) -> bool:
    """Say so where a model has no tokens for much of a corpus: it cannot tell such texts apart, adapted or not.

    Args:
        texts: token numbers of some texts.
        unknown: the number that stands for what has no token; None where every text has tokens.
        name: of the model.

    Returns:
        Whether it said so.
    """
    if unknown is None:
        return False
    tokens = [token for ids in texts for token in ids]
    missing = tokens.count(unknown)
    many = missing >= _FEWEST and missing > _MOST_UNKNOWN * len(tokens)
    if many:
        logger.warning(
            "%s has no token for %.0f %% of the corpus, so it cannot tell such texts apart, adapted or not. Choose a "
            "base that reads their language, such as intfloat/multilingual-e5-small.",
            name,
            100 * missing / len(tokens),
        )
    return many
