"""BERT retrievers straight from their files, for serving.

Importing transformers and sentence-transformers takes seconds, computing one query takes milliseconds. Most retrievers
are BERT with a pooling, so this module reads just that from a sentence-transformers directory, with torch, tokenizers
and safetensors alone. :meth:`BertModel.read` declines whatever it does not know in full, and
:class:`revela_rag.model.encoder.Encoder` then goes through sentence-transformers, which gives the same vectors.

Source: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", NAACL 2019.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from revela_rag.model.safety import listed_modules
from revela_rag.model.safety.files import json_object
from revela_rag.model.safety.tokenizer import stored_tokenizer
from revela_rag.model.st_format import Role, read_pooling, read_settings, read_stored
from revela_rag.model.tokenizing import normalizer_settings
from revela_rag.model.unknown_tokens import warn_of_unknown_tokens

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

__all__ = ["BertModel"]

_SMALL = 512  # tokens; smaller batches (queries) run beside each other, larger ones one by one, which bounds memory
_PREFIX = "sentence_transformers"
_TRANSFORMER = {
    "max_seq_length": None,  # any value
    "do_lower_case": (False,),
    "transformer_task": ("feature-extraction",),
    "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
    "module_output_name": ("token_embeddings",),
}
_CONFIG = {  # what must be so, where it is said at all
    "model_type": ("bert",),
    "position_embedding_type": ("absolute",),
    "hidden_act": ("gelu",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
}
_TOKENIZER = {
    "tokenizer_class": ("BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"),
    "padding_side": ("right",),
    "truncation_side": ("right",),
}
_DENSE = {
    "in_features": None,
    "out_features": None,
    "bias": None,
    "activation_function": (
        "torch.nn.modules.linear.Identity",
        "torch.nn.modules.activation.Tanh",
    ),
    "use_residual": (False,),
    "module_input_name": ("sentence_embedding",),
    "module_output_name": ("sentence_embedding",),
}


class BertModel:
    """Tokenizer, encoder, pooling and the layers after it. Any number of threads may use one.

    Attributes:
        prompts: texts that are put before an input, by role.
        max_length: tokens kept of a text, special tokens included.
        dimension: length of the vectors.
        device: where it computes.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        weights: Mapping[str, torch.Tensor],
        config: Mapping[str, Any],
        after: Sequence[Callable[[torch.Tensor], torch.Tensor]],
        mean: bool,
        dimension: int,
        max_length: int,
        prompts: Mapping[Role, str],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.prompts = dict(prompts)
        self.max_length = max_length
        self.dimension = dimension
        self.device = device
        self._tokenizer = tokenizer
        self._after = after
        self._mean = mean
        self._heads = int(config["num_attention_heads"])
        self._epsilon = float(config.get("layer_norm_eps", 1e-12))
        self._lock = threading.Lock()
        self._arrange(weights, int(config["num_hidden_layers"]), dtype)

    @classmethod
    def read(cls, path: Path, *, device: str | None, max_length: int | None, dtype: str) -> BertModel | None:
        """Load the model in a directory that :func:`revela_rag.model.safety.check_model` has passed.

        Args:
            path: the directory.
            device: as torch names it; None picks the best there is.
            max_length: tokens kept of a text; None keeps the model's own setting.
            dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"`` of the matrix products. The sums between them stay
                in float32.

        Returns:
            None when anything about the model is out of the ordinary.
        """
        from safetensors import SafetensorError

        try:
            return cls._read(path, device=device, max_length=max_length, dtype=dtype)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, SafetensorError):
            return None  # sentence-transformers reads it, or says what is wrong with it

    @classmethod
    def _read(cls, path: Path, *, device: str | None, max_length: int | None, dtype: str) -> BertModel | None:
        parts = [(class_.rpartition("."), folder) for folder, class_, _ in listed_modules(path)]
        kinds, folders = [name[2] for name, _ in parts], [folder for _, folder in parts]
        trusted = all(name[0].startswith(_PREFIX) for name, _ in parts)
        if not trusted or kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - {"Dense", "Normalize"}:
            return None
        root = folders[0]
        config, settings = json_object(root / "config.json"), read_settings(root)
        words, stored = json_object(root / "tokenizer_config.json"), read_stored(path)
        known = _fits(settings, _TRANSFORMER, only=True) and _fits(config, _CONFIG) and _fits(words, _TOKENIZER)
        modes, said = read_pooling(folders[1])
        usual = said.pop("include_prompt", True) is True and not said and modes in (["mean"], ["cls"])
        if (
            not known
            or config["model_type"] != "bert"
            or not usual
            or stored.kind != "SentenceTransformer"
            or stored.truncate_dim
            or (root / "adapter_config.json").exists()
        ):
            return None
        tokenizer, longest = _tokenizer(root, words, settings, config, max_length)
        if tokenizer is None:
            return None

        import torch
        from safetensors.torch import load_file

        place = torch.device(device) if device else torch.accelerator.current_accelerator() or torch.device("cpu")
        weights = load_file(root / "model.safetensors")
        if any("embeddings.word_embeddings" in name and name.startswith("bert.") for name in weights):
            weights = {name.removeprefix("bert."): tensor for name, tensor in weights.items()}
        after: list[Callable[[torch.Tensor], torch.Tensor]] = []
        dimension = int(config["hidden_size"])
        for kind, folder in zip(kinds[2:], folders[2:], strict=True):
            if kind == "Normalize":
                after.append(partial(torch.nn.functional.normalize, dim=-1))
                continue
            dense = _dense(folder, place)
            if dense is None:
                return None
            after.append(dense)
            dimension = int(json_object(folder / "config.json")["out_features"])
        return cls(
            tokenizer=tokenizer,
            weights={name: tensor.to(place) for name, tensor in weights.items()},
            config=config,
            after=after,
            mean=modes == ["mean"],
            dimension=dimension,
            max_length=longest,
            prompts=stored.prompts,
            device=place,
            dtype=getattr(torch, dtype),
        )

    def _arrange(self, weights: Mapping[str, torch.Tensor], layers: int, dtype: torch.dtype) -> None:
        import torch

        def norm(name: str) -> tuple[torch.Tensor, torch.Tensor]:
            return weights[f"{name}.weight"].float(), weights[f"{name}.bias"].float()

        def product(*names: str) -> tuple[torch.Tensor, torch.Tensor]:
            """One matrix product in place of several."""
            parts = [(weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in names]
            return torch.cat([w for w, _ in parts]).to(dtype), torch.cat([b for _, b in parts]).to(dtype)

        self._dtype = dtype
        self._words = weights["embeddings.word_embeddings.weight"].float()
        types = weights["embeddings.token_type_embeddings.weight"][0].float()
        self._positions = weights["embeddings.position_embeddings.weight"].float() + types
        self._first = norm("embeddings.LayerNorm")
        self._layers = []
        for number in range(layers):
            name = f"encoder.layer.{number}"
            attention = f"{name}.attention.self"
            self._layers.append(
                (
                    product(f"{attention}.query", f"{attention}.key", f"{attention}.value"),
                    product(f"{name}.attention.output.dense"),
                    norm(f"{name}.attention.output.LayerNorm"),
                    product(f"{name}.intermediate.dense"),
                    product(f"{name}.output.dense"),
                    norm(f"{name}.output.LayerNorm"),
                )
            )

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Token numbers of each text behind its prompt, special tokens included, cut to ``max_length``."""
        return self._tokens(texts, self.prompts[role])

    def _tokens(self, texts: Sequence[str], prompt: str) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast([prompt + text for text in texts])]

    def look_for_unknown_tokens(self, texts: Sequence[str], name: str) -> bool:
        """See :class:`revela_rag.model.backends.Backend`."""
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        number = None if unknown is None else self._tokenizer.token_to_id(unknown)
        return warn_of_unknown_tokens(self._tokens(texts, ""), number, name)

    @property
    def on_cpu(self) -> bool:
        """Whether it computes on the CPU."""
        return self.device.type == "cpu"

    def embed(self, items: Sequence[list[int]], role: Role) -> np.ndarray:
        """Vectors of tokenised texts from one forward pass, (n, d) float32, as the model gives them."""
        return self._computed(items, self._pooled)

    def embed_tokens(self, items: Sequence[list[int]], role: Role) -> list[np.ndarray]:
        """The (t, d) float32 vectors of each text's t tokens, special ones too, from one forward pass.

        Whatever comes after the pooling is done to each of them.
        """
        states = self._computed(items, lambda states, _: self._finished(states))
        return [of[: len(item)] for of, item in zip(states, items, strict=True)]

    def _computed(
        self, items: Sequence[list[int]], finish: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> np.ndarray:
        import torch

        width = max(map(len, items))
        tokens = np.zeros((len(items), width), dtype=np.int64)
        lengths = np.array([len(item) for item in items])
        for row, item in zip(tokens, items, strict=True):
            row[: len(item)] = item
        with torch.inference_mode(), nullcontext() if tokens.size < _SMALL else self._lock:
            vectors = finish(*self._forward(torch.from_numpy(tokens), torch.from_numpy(lengths)))
            return np.asarray(vectors.float().cpu().numpy())

    def _forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """States of the last layer, (n, t, h), and which of them are of tokens, (n, t)."""
        from torch.nn import functional

        rows, width = tokens.shape
        kept = (tokens.new_tensor(range(width)) < lengths[:, None]).to(self.device)
        # without padding there is nothing to mask
        mask = None if bool((lengths == width).all()) else kept[:, None, None, :]
        size = self._words.shape[1]
        states = functional.embedding(tokens.to(self.device), self._words) + self._positions[:width]
        states = functional.layer_norm(states, (size,), *self._first, self._epsilon)
        for project, attend, after_attention, widen, narrow, after in self._layers:
            packed = functional.linear(states.to(self._dtype), *project).view(rows, width, 3, self._heads, -1)
            query, key, value = packed.permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            mixed = functional.linear(mixed.transpose(1, 2).reshape(rows, width, size), *attend)
            states = functional.layer_norm(states + mixed, (size,), *after_attention, self._epsilon)
            inner = functional.gelu(functional.linear(states.to(self._dtype), *widen))
            states = functional.layer_norm(states + functional.linear(inner, *narrow), (size,), *after, self._epsilon)
        return states, kept

    def _pooled(self, states: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        if self._mean:
            return self._finished((states * kept[:, :, None]).sum(1) / kept.sum(1, keepdim=True).clamp(min=1))
        return self._finished(states[:, 0])

    def _finished(self, vectors: torch.Tensor) -> torch.Tensor:
        for layer in self._after:
            vectors = layer(vectors)
        return vectors


def _fits(settings: Mapping[str, Any], expected: Mapping[str, tuple[Any, ...] | None], *, only: bool = False) -> bool:
    """Whether every setting has a value that is understood; with ``only``, whether all settings are known."""
    for key, allowed in expected.items():
        if key in settings and allowed is not None and settings[key] not in allowed:
            return False
    return not only or not set(settings) - set(expected)


def _tokenizer(
    root: Path, words: Mapping[str, Any], settings: Mapping[str, Any], config: Mapping[str, Any], max_length: int | None
) -> tuple[Any, int]:
    """The tokenizer, cutting but not padding, and where it cuts."""
    from tokenizers import Tokenizer

    if normalizer_settings(words, stored_tokenizer(root / "tokenizer.json")):
        return None, 0  # transformers would make BERT's normalizer anew from them
    tokenizer = Tokenizer.from_file(str(root / "tokenizer.json"))
    positions = int(config["max_position_embeddings"])
    own = settings.get("max_seq_length") or min(int(words.get("model_max_length") or positions), positions)
    longest = min(int(max_length or own), positions)
    tokenizer.enable_truncation(longest)
    tokenizer.no_padding()
    return tokenizer, longest


def _dense(folder: Path, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor] | None:
    import torch
    from safetensors.torch import load_file

    config = json_object(folder / "config.json")
    if not _fits(config, _DENSE, only=True):
        return None
    state = load_file(folder / "model.safetensors")
    if set(state) - {"linear.weight", "linear.bias"}:
        return None
    weight = state["linear.weight"].float().to(device)
    bias = state["linear.bias"].float().to(device) if "linear.bias" in state else None
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]

    def layer(vectors: torch.Tensor) -> torch.Tensor:
        out = torch.nn.functional.linear(vectors, weight, bias)
        return torch.tanh(out) if activation == "Tanh" else out

    return layer
