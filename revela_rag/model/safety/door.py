"""The door: every module of a model, through every file that may name one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

from revela_rag.errors import ModelError, RevelaError
from revela_rag.memory import is_out_of_memory
from revela_rag.model.safety.files import check_folder, inside, json_object, read_json, walk
from revela_rag.model.safety.tokenizer import check_tokenizer
from revela_rag.model.safety.transformer import MOST_LAYERS, check_settings, check_sizes
from revela_rag.model.safety.weights import check_weights, weight_bytes

__all__ = ["check_model", "listed_modules", "model_errors"]

_TRANSFORMER = "sentence_transformers.models.Transformer"
_PLACES = r"sentence_transformers\.(models|base\.modules|sentence_transformer\.modules)(\.\w+)?\."
_ROUTERS = ("Router", "Asym")
_KNOWN = re.compile(
    _PLACES + "(Transformer|Pooling|Normalize|Dense|Dropout|LayerNorm|WeightedLayerPooling|StaticEmbedding|Router|Asym)"
)
#: Classes of torch that sentence-transformers may make an activation of; nothing else may be imported for one.
_ACTIVATION = re.compile(r"torch\.nn\.(modules\.(activation|linear)\.)?[A-Z]\w*")
_MOST_MODULES, _MOST_PROMPT = 64, 16_384


def check_model(path: str | Path, *, trust_remote_code: bool = False, plain: bool = False) -> None:
    """Refuse a directory that is not a model, or that could run code, unpickle, hang or exhaust memory when loaded.

    Args:
        path: an existing directory.
        trust_remote_code: allow code that the model names. Its files must be regular, its weights safetensors and its
            sizes possible all the same.
        plain: it is read as a transformers model, whatever ``modules.json`` lists.

    Raises:
        ModelError: with the file, the value and what to do.
    """
    root = Path(path)
    check_folder(root)
    _check_general(root / "config_sentence_transformers.json")
    for folder, class_, file in [(root, _TRANSFORMER, root)] if plain else listed_modules(root):
        known = _KNOWN.fullmatch(class_) is not None
        if not known and not trust_remote_code:
            raise ModelError(
                f"The model {str(root)!r} wants to run its own code ({class_}, in {str(file)!r}); "
                "pass trust_remote_code=True if you trust it."
            )
        if folder.exists():  # Normalize needs no folder
            _check_module(folder, class_ if known else "", root, trust_remote_code)


def listed_modules(root: Path) -> Iterator[tuple[Path, str, Path]]:
    """Every module of a model, those inside of others too; a plain Hugging Face directory counts as one transformer.

    Yields:
        Its folder, its class as a dotted path, and the file that names it; what a module holds comes after it.

    Raises:
        ModelError: the directory is no model, a module lies outside of it, or they have no end.
    """
    listing = root / "modules.json"
    if not listing.exists():
        if not (root / "config.json").exists():
            raise ModelError(
                f"{str(root)!r} is not a model: it holds neither modules.json nor config.json. "
                "Give the directory that `revela adapt` or save_pretrained wrote."
            )
        yield root, _TRANSFORMER, listing
        return
    try:
        waiting = [(root / str(entry["path"]), str(entry["type"]), listing) for entry in read_json(listing)]
    except (KeyError, TypeError) as error:
        raise ModelError(f"{str(listing)!r} cannot be read ({error}); export the model again.") from error
    if not waiting:
        raise ModelError(f"{str(listing)!r} lists no modules; export the model again.")
    for count in range(_MOST_MODULES + 1):
        if not waiting:
            return
        folder, class_, file = waiting.pop(0)
        if count == _MOST_MODULES:
            raise ModelError(f"{str(file)!r} leads to more than {_MOST_MODULES} modules; do not load this model.")
        if not inside(folder, root):
            raise ModelError(f"{str(file)!r} names {str(folder)!r}, outside the model; do not load it.")
        yield folder, class_, file
        if class_.rpartition(".")[2] in _ROUTERS:
            waiting += _routed(folder)


@contextmanager
def model_errors(name: str | Path, doing: str = "cannot be loaded") -> Iterator[None]:
    """Turn whatever a library raises while a model is opened or first used into a ModelError, but for want of memory.

    Args:
        name: of the model.
        doing: what cannot be done with it.

    Raises:
        ModelError: naming the model and the library's reason.
    """
    try:
        yield
    except (RevelaError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # the tokenizers' panics are no Exception
        kind = type(error).__name__
        if is_out_of_memory(error) or not (isinstance(error, Exception) or kind == "PanicException"):
            raise
        reason = str(error).strip() or kind
        raise ModelError(
            f"The model {str(name)!r} {doing}: {reason} ({kind}). Check that its files are whole and belong together, "
            "and that the versions installed here know its kind."
        ) from error


def _routed(folder: Path) -> list[tuple[Path, str, Path]]:
    """The modules that a router holds, as the newer file lists them and the older."""
    found = []
    for file in (folder / "router_config.json", folder / "config.json"):
        types = json_object(file).get("types", {})
        if not isinstance(types, dict):
            raise ModelError(f"{str(file)!r} has types={types!r}, which is no object; export the model again.")
        found += [(folder / place, str(class_), file) for place, class_ in types.items()]
    return found


def _check_general(file: Path) -> None:
    """What says which library's model it is, and its prompts."""
    general = json_object(file)
    kind = general.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise ModelError(f"{str(file)!r} has model_type={kind!r}; only a SentenceTransformer gives one dense vector.")
    if any(isinstance(value, str) and len(value) > _MOST_PROMPT for _, value in walk(general)):
        raise ModelError(f"{str(file)!r} has a prompt of more than {_MOST_PROMPT:,} characters; shorten it.")


def _check_module(folder: Path, class_: str, root: Path, trusted: bool) -> None:
    """One module; its class is ``""`` where it is code that the user trusts."""
    kind, names = class_.rpartition(".")[2], check_folder(folder)
    tokenizes = kind in ("Transformer", "StaticEmbedding")
    check_weights(
        folder,
        names,
        needed=kind == "Transformer" and "config.json" in names,
        sharded=kind in ("Transformer", ""),
        any_name=not class_,
    )
    if tokenizes and not trusted:
        check_settings(folder)
    if tokenizes or not class_:
        if (templates := folder / "additional_chat_templates").is_dir():
            check_folder(templates)
        check_tokenizer(folder, root)
        check_sizes(folder, names)
    elif kind not in _ROUTERS:
        _check_layer(folder / "config.json", weight_bytes(folder, names), trusted)


def _check_layer(file: Path, held: int, trusted: bool) -> None:
    """Pooling, Dense and other layers: what ``config.json`` may import, and claim of ``held`` bytes of weights."""
    config = json_object(file)
    activation = config.get("activation_function")
    if activation is not None and not trusted and not _ACTIVATION.fullmatch(str(activation)):
        raise ModelError(
            f"{str(file)!r} imports {activation!r} as its activation_function, which could run code; use a class of "
            "torch.nn, or pass trust_remote_code=True if you trust it."
        )
    sizes = {key: config[key] for key in ("in_features", "out_features", "dimension") if key in config}
    if any(type(value) is not int for value in sizes.values()) or prod(sizes.values()) > max(held, 2**20):
        raise ModelError(f"{str(file)!r} has {sizes}, which the weights beside it do not hold; copy the model again.")
    layers = config.get("num_hidden_layers", 0)
    if type(layers) is not int or layers > MOST_LAYERS:
        raise ModelError(f"{str(file)!r} has num_hidden_layers={layers!r}; do not load this model.")
