"""The retriever while it trains: a sentence-transformers model with an adapter on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from revela_rag.errors import ModelError
from revela_rag.model.open import Dtype, open_model, read_dimension, read_length
from revela_rag.model.raw import MAX_LENGTH
from revela_rag.model.safety import model_errors
from revela_rag.model.st_format import Role, role_prompts

from .adapters import (
    LinearAdapter,
    check_strength,
    inject_lora,
    merged,
    set_lora_strength,
)
from .embedding import embed_batches, pool, tokenize

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["TrainableRetriever"]


class TrainableRetriever(nn.Module):
    """A retriever whose adapter trains while its backbone stays as it was.

    Embeddings of the base are unit vectors x, of the retriever unit vectors z; both are float32 (n, d).

    Args:
        base: model directory, alias or hub id, as `revela_rag.model.find.resolve_model` takes it. Both
            sentence-transformers and raw transformers models work, see `revela_rag.model.open`.
        adapter: "linear" trains a map on the embeddings of the frozen backbone, which can be computed once
            and kept; "lora" trains low-rank updates of every linear layer.
        lora_rank: rank of the updates.
        lora_alpha: their scale is ``lora_alpha / lora_rank``.
        lora_dropout: dropout on their input while training. The backbone's own dropout is switched off: its
            noise in a cosine is larger than the differences the objective looks at.
        max_length: tokens per text in `encode`, the training path; never more than the base allows.
        device: torch device; None picks the best one there is.
        dtype: type of the backbone's weights; adapters are always float32.
        trust_remote_code: run Python files that come with the model.

    Attributes:
        model: the `SentenceTransformer`.
        base_name: how the base is called in what is saved: never a path.
        dimension: length d of an embedding.
        prompts: prompt of each role, the base's own unless changed.
        inference_max_length: tokens per text outside training, kept by the exported model.

    Raises:
        ModelError: the model cannot be used, or a value is out of range.
        MissingExtraError: "lora" without peft.
    """

    def __init__(
        self,
        base: str | Path,
        *,
        adapter: Literal["linear", "lora"],
        lora_rank: int = 256,
        lora_alpha: float = 64,
        lora_dropout: float = 0.1,
        max_length: int = 160,
        device: str | None = None,
        dtype: Dtype = "float32",
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        _check(adapter=adapter, lora_rank=lora_rank, lora_dropout=lora_dropout, max_length=max_length)
        self.base_name = Path(base).resolve().name if Path(base).exists() else str(base)
        self.kind = adapter
        self.model = open_model(base, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        kinds = [type(module).__name__ for module in self.model]
        if kinds[0] != "Transformer" or "Router" in kinds:
            raise ModelError(
                f"{base} is made of {', '.join(kinds)}; only one Transformer for both roles can be adapted."
            )
        _truncate_in_a_layer(self.model)
        self.prompts = role_prompts(self.model.prompts)
        self.inference_max_length = read_length(self.model, "document") or MAX_LENGTH
        self.max_length = min(max_length, self.inference_max_length)
        self.model.requires_grad_(False).eval()
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        for module in list(self.model)[1:]:
            module.float()
        with model_errors(base, "does not work"):
            self.dimension = self._pool(["a"], "document", self.max_length).shape[-1]
        self.strength = 1.0
        self._attention = getattr(self.backbone.config, "_attn_implementation", None)
        self.adapter: LinearAdapter | None = None
        if adapter == "linear":
            self.adapter = LinearAdapter(self.dimension).to(self.device)
        else:
            self.lora_config = inject_lora(self.backbone, rank=lora_rank, alpha=lora_alpha, dropout=lora_dropout)
        self.eval()

    @property
    def backbone(self) -> Any:
        """The transformers model inside."""
        return self.model[0].auto_model

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return next(self.model.parameters()).device

    def encode(self, texts: Sequence[str], role: Role) -> Tensor:
        """Embed texts, cut to ``max_length`` tokens, with gradient through the adapter: unit rows (n, d)."""
        if self.adapter is None:
            return self._pool(texts, role, self.max_length)
        with torch.no_grad():
            pooled = self._pool(texts, role, self.max_length)
        return self.adapter(pooled)

    forward = encode

    def embed_base(
        self,
        texts: Sequence[str],
        role: Role,
        show_progress: bool = False,
        *,
        max_length: int | None = None,
        compute_dtype: Literal["float32", "bfloat16"] = "float32",
    ) -> Tensor:
        """Embed texts with the unadapted model: unit rows (n, d) float32, no gradient, on the model's device.

        With the linear adapter, `adapt_embeddings` of these is what the exported model gives.

        Args:
            texts: the texts, without prompt.
            role: "query" or "document", which decides the prompt.
            show_progress: show a progress bar.
            max_length: tokens per text; None is the length of the exported model, not that of training.
            compute_dtype: "bfloat16" runs the backbone under autocast.
        """
        with self._at_strength(0.0):
            return self._embed(texts, role, show_progress, max_length, compute_dtype)

    def embed(
        self,
        texts: Sequence[str],
        role: Role,
        show_progress: bool = False,
        *,
        max_length: int | None = None,
        compute_dtype: Literal["float32", "bfloat16"] = "float32",
    ) -> Tensor:
        """Like `embed_base`, with the adapter at its current strength: what the exported model would give."""
        with torch.no_grad():
            return self.adapt_embeddings(self._embed(texts, role, show_progress, max_length, compute_dtype))

    def adapt_embeddings(self, pooled: Tensor) -> Tensor:
        """Apply the linear adapter to base embeddings (n, d), with gradient: unit rows (n, d).

        With "lora" the adapter is inside the backbone, so the embeddings come back as they are.
        """
        return pooled if self.adapter is None else self.adapter(pooled)

    def set_strength(self, strength: float) -> None:
        """Scale the adapter: 0 is exactly the base model, 1 what was trained; more than 1 goes beyond.

        Raises:
            ModelError: the strength is negative or not finite.
        """
        self.strength = check_strength(strength)
        if self.adapter is not None:
            self.adapter.strength = self.strength
        else:
            set_lora_strength(self.backbone, self.strength)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The adapter's parameters."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def train(self, mode: bool = True) -> TrainableRetriever:
        """Switch training mode of the adapter; the frozen backbone stays in evaluation mode.

        While LoRA trains on a CPU, attention is plain matrix products: the gradient of torch's own attention would
        take over a quarter of a step in bfloat16 there.
        """
        super().train(mode)
        self.model.eval()
        if self.adapter is None and mode:
            for module in self.backbone.modules():
                module.training = isinstance(module, nn.Dropout) and module.p > 0
        if self.adapter is None and self._attention == "sdpa" and self.device.type == "cpu":
            self.backbone.set_attn_implementation("eager" if mode else "sdpa")
        return self

    def _embed(
        self,
        texts: Sequence[str],
        role: Role,
        show_progress: bool,
        max_length: int | None,
        compute_dtype: str,
    ) -> Tensor:
        length = min(max_length or self.inference_max_length, self.inference_max_length)
        out = torch.zeros(len(texts), self.dimension, device=self.device)
        training = self.training
        self.eval()
        try:
            with self._merged(), torch.autocast(self.device.type, torch.bfloat16, enabled=compute_dtype == "bfloat16"):
                return embed_batches(
                    lambda batch: self._features(batch, role, length),
                    lambda features: pool(self.model, features),
                    texts,
                    out,
                    show_progress=show_progress,
                )
        finally:
            self.train(training)

    def _pool(self, texts: Sequence[str], role: Role, length: int) -> Tensor:
        if isinstance(texts, str):
            raise TypeError("texts must be a list of strings, not one string")
        if not texts:
            return torch.zeros(0, self.dimension, device=self.device)
        return pool(self.model, self._features(texts, role, length))

    def _features(self, texts: Sequence[str], role: Role, length: int) -> dict[str, Any]:
        return tokenize(self.model, texts, prompt=self.prompts[role], length=length, device=self.device)

    def _merged(self) -> AbstractContextManager[None]:
        """LoRA folded into the weights, on a CPU; a GPU saves too little time for a second copy of them."""
        return merged(self.backbone) if self.adapter is None and self.device.type == "cpu" else nullcontext()

    @contextmanager
    def unadapted(self) -> Iterator[None]:
        """Inside, every embedding is the base's, without gradient."""
        with torch.no_grad(), self._at_strength(0.0), self._merged():
            yield

    @contextmanager
    def _at_strength(self, strength: float) -> Iterator[None]:
        before = self.strength
        self.set_strength(strength)
        try:
            yield
        finally:
            self.set_strength(before)


def _truncate_in_a_layer(model: SentenceTransformer) -> None:
    """Keep the first ``truncate_dim`` numbers of a vector by a layer, behind which an adapter can stand."""
    from sentence_transformers.models import Dense

    kept, model.truncate_dim = model.truncate_dim, None
    whole = read_dimension(model)
    if kept and whole and kept < whole:
        layer = Dense(whole, kept, bias=False, activation_function=nn.Identity(), init_weight=torch.eye(kept, whole))
        model.add_module(str(len(model)), layer.to(model.device))


def _check(*, adapter: str, lora_rank: int, lora_dropout: float, max_length: int) -> None:
    if adapter not in ("linear", "lora"):
        raise ModelError(f"adapter is {adapter!r}; it must be 'linear' or 'lora'.")
    if lora_rank < 1:
        raise ModelError(f"lora_rank is {lora_rank}; it must be at least 1.")
    if not 0 <= lora_dropout < 1:
        raise ModelError(f"lora_dropout is {lora_dropout}; it must be at least 0 and below 1.")
    if max_length < 8:
        raise ModelError(f"max_length is {max_length} tokens; it must be at least 8.")
