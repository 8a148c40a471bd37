"""What a model reads of a chunk, and how much a text takes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from revela_rag.corpus.text import count_words

__all__ = ["Window"]

_FEWEST_PER_TOKEN = 1.5  # characters: of 15 million of code and prose no chunk had fewer than 1.9
_MOST_PER_CHARACTER = 4  # tokens of a character that is no ASCII: its bytes


@dataclass(frozen=True)
class Window:
    """How many tokens a model reads, and how many a text has; see :attr:`revela_rag.Encoder.token_window`.

    Attributes:
        tokens: that the model reads at once, special tokens and prompt included.
        room: of these, for a chunk's title and text.
        count: tokens of a text without the special ones.
    """

    tokens: int
    room: int
    count: Callable[[str], int]

    def surely_holds(self, *texts: str) -> bool:
        """Whether texts fit together, as can be told from their length alone."""
        length = sum(map(len, texts))
        if all(map(str.isascii, texts)):
            return length <= self.room * _FEWEST_PER_TOKEN
        return length * _MOST_PER_CHARACTER <= self.room

    def below(self, title: str) -> int:
        """Tokens that are left below a title; half of the room however long it is."""
        return max(self.room - (self.count(title) if title else 0), self.room // 2, 1)

    def words(self, title: str, max_words: int) -> Callable[[str], int]:
        """A measure of texts of which ``max_words`` fit below a title: their words, or more where tokens are short."""
        room = self.below(title)

        def measure(text: str) -> int:
            words = count_words(text)
            if 2 * len(text) * max_words <= words * room * 3 and text.isascii():
                return words  # even at a token for every 1.5 characters
            return max(words, -(-self.count(text) * max_words // room))

        return measure
