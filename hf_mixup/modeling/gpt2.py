"""GPT-2 with mixup in the graph."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import GPT2ForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention, GPT2Block
from transformers.utils import can_return_tuple

from hf_mixup.mixing.plan import Plan
from hf_mixup.modeling.decoder import DecoderMixup, causal
from hf_mixup.modeling.layers import SelfAttentionMixup


class MixupGPT2Attention(SelfAttentionMixup, GPT2Attention):
    """Multi-head self-attention whose output, after its dense layer and dropout, is mixed."""


class MixupGPT2Block(GPT2Block):
    """A block whose residual stream is mixed after attention (site `attention_block`) or at its end (`hidden`)."""

    mixup_layer: int

    def forward(
        self,
        hidden_states: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        *args: Any,
        mixup: Plan | None = None,
        **kwargs: Any,
    ) -> Tensor:
        if mixup is None:
            return super().forward(hidden_states, past_key_values, attention_mask, *args, **kwargs)
        hidden_states, attention_mask = mixup.enter_block(hidden_states, attention_mask, self.mixup_layer)
        # Written out because no module ends after the first residual sum.
        attn_output, _ = self.attn(self.ln_1(hidden_states), attention_mask=attention_mask, mixup=mixup)
        hidden_states = mixup.mix(hidden_states + attn_output, "attention_block", self.mixup_layer)
        hidden_states = hidden_states + self.mlp(self.ln_2(hidden_states))
        return mixup.mix(hidden_states, "hidden", self.mixup_layer)


class MixupGPT2ForSequenceClassification(DecoderMixup, GPT2ForSequenceClassification):
    """`GPT2ForSequenceClassification` that mixes in its own forward pass when it is given a plan.

    Example:
        >>> model = MixupGPT2ForSequenceClassification.from_pretrained("FOLDER", num_labels=3)  # doctest: +SKIP
        >>> model(**inputs, mixup=plan).logits.shape  # doctest: +SKIP
        torch.Size([8, 3])
    """

    parent_class = GPT2ForSequenceClassification
    mixup_modules = {GPT2Attention: MixupGPT2Attention, GPT2Block: MixupGPT2Block}
    scores_need_arguments = False

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        mixup: Plan | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """As `DecoderMixup.forward`, with token types."""
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        if mixup is None:
            return self.parent_class.forward(
                self, **inputs, past_key_values=past_key_values, labels=labels, use_cache=use_cache, **kwargs
            )
        return self._mixed_forward(inputs, labels, mixup, **kwargs)

    def _blocks(self) -> nn.ModuleList:
        return self.transformer.h

    def _embed(self, inputs: dict[str, Tensor | None]) -> Tensor:
        words = super()._embed(inputs)
        embeddings = words + self.transformer.wpe(self._positions(inputs, words))
        if inputs["token_type_ids"] is not None:
            embeddings = embeddings + self.transformer.wte(inputs["token_type_ids"])
        return self.transformer.drop(embeddings)

    def _block_arguments(self, inputs: dict[str, Tensor | None], hidden_states: Tensor) -> list[dict[str, Any]]:
        return [{"attention_mask": self._causal_mask(inputs, hidden_states)}] * len(self._blocks())

    def _attention_scores(
        self, number: int, hidden_states: Tensor, arguments: dict[str, Any], head: int | None
    ) -> Tensor:
        block = self._blocks()[number - 1]
        query, key, _ = block.attn.c_attn(block.ln_1(hidden_states)).chunk(3, dim=-1)
        query, key = (part.unflatten(-1, (-1, block.attn.head_dim)).transpose(1, 2) for part in (query, key))
        scores = query @ key.mT * block.attn.scaling
        return causal(scores if head is None else scores[:, head : head + 1])
