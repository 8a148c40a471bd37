"""How the objective reaches into a transformers causal LM without forking it.

An attention function is registered with ``transformers.AttentionInterface`` for every implementation the LM may
have had (sdpa, eager, flash). It calls that implementation, and only when a reader travels along as the keyword
argument ``revela_reader`` does it add something. An LM that is called normally computes what it always did.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from revela_rag.errors import ModelError

__all__ = ["CausalLM", "Layer", "Layers", "Reader"]

Layers = Mapping[nn.Module, tuple[Tensor, Tensor]]  # keys and values by attention layer

_PREFIX = "revela_"
_UNSUPPORTED = ("s_aux", "position_bias")
_REMEDY = "Use a decoder-only LM such as Llama, Qwen, Mistral, Gemma, SmolLM3, GPT-NeoX or Phi"


@dataclass(frozen=True)
class Layer:
    """One attention layer at work.

    Attributes:
        module: the layer.
        query: (N, H, L, D), after rotary embedding.
        key: (N, K, L, D), after rotary embedding.
        value: (N, K, L, E).
        mask: what the LM made of its attention mask for this layer; None where it leaves that to the function.
        arguments: the layer's other arguments.
        own: computes what the layer would have read without a reader, (N, L, H, E).
    """

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    arguments: Mapping[str, Any]
    own: Callable[[], Tensor]

    @property
    def scaling(self) -> float:
        """Factor of the scores before the softmax."""
        given: float | None = self.arguments.get("scaling")
        return float(self.query.shape[-1] ** -0.5) if given is None else given

    @property
    def softcap(self) -> float | None:
        """Cap of the scores, softcap * tanh(scores / softcap), as Gemma 2 has it."""
        cap: float | None = self.arguments.get("softcap")
        return cap


class Reader(Protocol):
    """What is called in every attention layer, with the layer's own tensors."""

    def attend(self, layer: Layer) -> Tensor:
        """The attention output to hand to the output projection, (N, L, H, E)."""


class _Probe:
    """Notes which attention modules hand over their tensors."""

    def __init__(self) -> None:
        self.modules: list[nn.Module] = []
        self.unsupported: set[str] = set()

    def attend(self, layer: Layer) -> Tensor:
        self.modules.append(layer.module)
        self.unsupported |= {name for name in _UNSUPPORTED if layer.arguments.get(name) is not None}
        return layer.own()


class _Enough(Exception):
    """All that was wanted of a pass is there."""


class _Recorder:
    """Keeps the keys and values of every layer, and ends the pass when those of the last are there."""

    def __init__(self, last: int | None) -> None:
        self.layers: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self._last = last

    def attend(self, layer: Layer) -> Tensor:
        self.layers[layer.module] = layer.key, layer.value
        if len(self.layers) == self._last:
            raise _Enough
        return layer.own()


def _attention(
    original: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    revela_reader: Reader | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    if original == "eager":  # transformers keeps the eager function in each model's own file
        function = sys.modules[type(module).__module__].eager_attention_forward
    else:
        function = AttentionInterface()[original]
    if revela_reader is None:
        output, scores = function(module, query, key, value, attention_mask, **kwargs)
        return output, scores

    def own() -> Tensor:
        output: Tensor = function(module, query, key, value, attention_mask, **kwargs)[0]
        return output

    return revela_reader.attend(Layer(module, query, key, value, attention_mask, kwargs, own)), None


class CausalLM:
    """A causal LM, plain or wrapped by PEFT, cut in two: token ids to hidden states, hidden states to logits.

    Args:
        lm: a ``transformers`` model with a language-model head, or a PEFT model around one.

    Raises:
        ModelError: the attention of some decoder layer cannot be reached, or the model is of another kind.
    """

    def __init__(self, lm: nn.Module) -> None:
        model: nn.Module = getattr(lm, "get_base_model", lambda: lm)()
        name = type(model).__name__
        if not isinstance(model, PreTrainedModel) or model.get_output_embeddings() is None:
            raise ModelError(f"{name} is not a transformers causal LM: load it with AutoModelForCausalLM")
        if getattr(getattr(lm, "active_peft_config", None), "is_prompt_learning", False):
            raise ModelError(f"{name} is wrapped for prompt learning, which adds tokens: use LoRA or the plain model")
        self.model = model
        self.decoder: PreTrainedModel = model.get_decoder()
        self.vocabulary = int(model.get_output_embeddings().weight.shape[0])
        self._output_type: type[ModelOutput] = ModelOutput
        original = str(self.decoder.config._attn_implementation)
        self._register(original)
        try:
            self._probe(name)
        except BaseException:
            self.decoder.set_attn_implementation(original)
            raise

    def _register(self, original: str) -> None:
        if original.startswith(_PREFIX):
            return
        registered = _PREFIX + original
        masks = AttentionMaskInterface()
        if original in masks:
            AttentionMaskInterface.register(registered, masks[original])
        AttentionInterface.register(registered, partial(_attention, original))
        self.decoder.set_attn_implementation(registered)

    def _probe(self, name: str) -> None:
        """Run four tokens and see that every decoder layer calls, and that the two halves make the whole."""
        layers = _attention_layers(self.decoder.config.get_text_config())
        ids = torch.arange(4, device=self.model.device)[None] % self.vocabulary
        probe = _Probe()
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            with torch.no_grad():
                hidden = self.hidden_states(ids, torch.ones_like(ids), ids, probe)
                whole = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
                parts = self.logits(hidden)
        except (TypeError, AttributeError, KeyError, ValueError) as error:
            raise ModelError(
                f"{name} cannot be driven by the objective ({type(error).__name__}: {error}). {_REMEDY}"
            ) from error
        finally:
            for module, training in modes:
                module.training = training
        reached = self._reached = len(probe.modules)
        if reached < layers:
            where = "in none" if reached == 0 else f"only in {reached}"
            raise ModelError(
                f"the attention of {name} can be reached {where} of its {layers} layers: the others have none "
                "(state-space, recurrent or convolutional layers) or do not go through transformers' "
                f"AttentionInterface. {_REMEDY}"
            )
        if any(getattr(module, "is_causal", True) is False for module in probe.modules):
            raise ModelError(f"{name} is not causal: its tokens see what they are to predict. {_REMEDY}")
        if probe.unsupported:
            raise ModelError(
                f"the attention of {name} takes {', '.join(sorted(probe.unsupported))}, which attention between "
                f"texts cannot honour. {_REMEDY}"
            )
        if not torch.allclose(whole.float(), parts.float(), rtol=1e-2, atol=1e-3):
            raise ModelError(f"the logits of {name} do not follow from its decoder's states. {_REMEDY}")

    def hidden_states(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, reader: Reader | None
    ) -> Tensor:
        """Final hidden states, (N, L, hidden), of one call of the decoder with ``reader`` in its attention."""
        output = self.decoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=False,
            return_dict=True,
            revela_reader=reader,
        )
        self._output_type = type(output)
        return output.last_hidden_state

    def recorded(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, *, whole: bool = True
    ) -> tuple[Tensor | None, Layers]:
        """Final hidden states, and what every attention layer had for keys and values.

        Unless ``whole``, the pass ends with those of the last layer, which spares its rest, and there are no states.
        """
        split = hasattr(self.decoder, "unshard")  # FSDP needs every forward to end
        recorder = _Recorder(None if whole or split else self._reached)
        try:
            hidden = self.hidden_states(input_ids, attention_mask, position_ids, recorder)
        except _Enough:
            return None, recorder.layers
        return hidden, recorder.layers

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of final hidden states (..., hidden), by the model's own forward.

        The decoder's forward is replaced for the length of the call, so soft caps, scales, biases and adapters of
        the head are the model's own and not repeated here.
        """
        output = self._output_type(last_hidden_state=hidden.reshape(1, -1, hidden.shape[-1]))
        ids = torch.zeros(1, 1, dtype=torch.long, device=hidden.device)
        with _replaced_forward(self.decoder, lambda *args, **kwargs: output):
            logits = self.model(input_ids=ids, use_cache=False, return_dict=True).logits
        return logits.reshape(*hidden.shape[:-1], logits.shape[-1])

    def head_parameters(self) -> list[nn.Parameter]:
        """Every parameter that `logits` may depend on, without repeats (tied embeddings among them)."""
        decoder = {id(p) for p in self.decoder.parameters()}
        outside = [p for p in self.model.parameters() if id(p) not in decoder]
        head = [*outside, *self.model.get_output_embeddings().parameters()]
        return list({id(p): p for p in head}.values())

    def reentrant_checkpointing(self) -> bool:
        """Whether some layer will be checkpointed in the reentrant way, which hides tensors in keyword arguments."""
        functions = (
            getattr(module, "_gradient_checkpointing_func", None)
            for module in self.decoder.modules()
            if getattr(module, "gradient_checkpointing", False) and module.training
        )
        return any(getattr(f, "keywords", {}).get("use_reentrant", True) for f in functions if f is not None)


def _attention_layers(config: Any) -> int:
    """Layers that must be reached: all but short convolutions (LFM2), which see a text's last few tokens only."""
    kinds = getattr(config, "layer_types", None) or []
    return int(config.num_hidden_layers) - kinds.count("conv")


@contextmanager
def _replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
