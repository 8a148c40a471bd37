"""How many tokens a model reads of a document, from its directory, without its weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from revela_rag.corpus.window import Window
from revela_rag.errors import ModelError
from revela_rag.model.find import fetch_model, resolve_model
from revela_rag.model.safety import check_model, listed_modules
from revela_rag.model.safety.files import json_object
from revela_rag.model.st_format import read_settings, read_stored

__all__ = ["read_window", "tokenizer_window"]

_NO_LIMIT = 1_000_000  # transformers writes 10**30 where a tokenizer does not say
_WORD = re.compile(r"\w+|[^\w\s]")
_MOST_WORDS = 200_000  # whose number of tokens is remembered


def read_window(model: str | Path, *, max_length: int | None = None, trust_remote_code: bool = False) -> Window | None:
    """The window of a model; None where its directory does not say, or has no ``tokenizer.json``.

    Args:
        model: directory, alias or hub id.
        max_length: tokens kept of a text; None means the model's own setting.
        trust_remote_code: allow a model that brings Python code of its own; none of it runs here.

    Raises:
        ModelError: the model does not exist, or is unsafe to load.
    """
    root = fetch_model(resolve_model(model, trust_remote_code=trust_remote_code))
    check_model(root, trust_remote_code=trust_remote_code)
    folder = next((folder for folder, _, _ in listed_modules(root) if (folder / "tokenizer.json").is_file()), None)
    if folder is None:
        return None
    from tokenizers import Tokenizer

    try:
        config, words = json_object(folder / "config.json"), json_object(folder / "tokenizer_config.json")
        said = read_settings(folder).get("max_seq_length")
        known = (said, words.get("model_max_length"), config.get("max_position_embeddings"))
        longest = max_length or next((int(length) for length in known if length and length < _NO_LIMIT), 0)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        prompt = read_stored(root).prompts["document"]
    except (ModelError, OSError, ValueError, TypeError, KeyError):
        return None
    except Exception as error:  # what tokenizers raises has no class of its own
        if type(error) is not Exception:
            raise
        return None
    return tokenizer_window(tokenizer, longest, prompt) if longest else None


def tokenizer_window(tokenizer: Any, longest: int, prompt: str) -> Window:
    """The window of a model that reads so many tokens.

    Args:
        tokenizer: a ``tokenizers.Tokenizer``, whose truncation and padding are switched off.
        longest: tokens that the model reads at once.
        prompt: what is put before a document.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    count = _by_words(tokenizer) if _knows_words(tokenizer) else _whole(tokenizer)
    room = longest - tokenizer.num_special_tokens_to_add(False) - (count(prompt) if prompt else 0)
    return Window(longest, max(room, longest // 2, 1), count)


def _whole(tokenizer: Any) -> Callable[[str], int]:
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _knows_words(tokenizer: Any) -> bool:
    """Whether the tokens of a text are those of its words, as BERT's are."""
    kinds = type(tokenizer.model).__name__, type(tokenizer.pre_tokenizer).__name__
    return kinds == ("WordPiece", "BertPreTokenizer")


def _by_words(tokenizer: Any) -> Callable[[str], int]:
    """Three times as fast as tokenising whole texts of ASCII: most words came before."""
    known: dict[str, int] = {}
    whole = _whole(tokenizer)

    def count(text: str) -> int:
        if not text.isascii():
            return whole(text)
        words = _WORD.findall(text)
        if new := [word for word in dict.fromkeys(words) if word not in known]:
            if len(known) > _MOST_WORDS:
                known.clear()
                new = list(dict.fromkeys(words))
            found = tokenizer.encode_batch_fast(new, add_special_tokens=False)
            known.update(zip(new, (len(one.ids) for one in found), strict=True))
        return sum(map(known.__getitem__, words))

    return count
