"""What decoders share: a causal mask, a residual stream without a LayerNorm at its sites, the last token as summary.

Positions look only at those before them. The classifier reads the last token of the row, after mixing the last that
the policy of the attention mask shows: with `own` that of the row itself, with `union` that of the longer row. So with
`own` nothing of a longer partner beyond the row's own end reaches the classifier.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import ModelOutput, SequenceClassifierOutput
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.utils import can_return_tuple

from hf_mixup.mixing.plan import Plan
from hf_mixup.modeling.layers import for_rows
from hf_mixup.modeling.sequence_classification import MixupModel


class DecoderBlockMixup:
    """A block whose residual stream is mixed after attention (site `attention_block`) or at its end (`hidden`)."""

    mixup_layer: int

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        *args: Any,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        mixup: Plan | None = None,
        **kwargs: Any,
    ) -> Tensor:
        if mixup is None:
            return super().forward(
                hidden_states, attention_mask, *args, position_embeddings=position_embeddings, **kwargs
            )
        hidden_states, attention_mask = mixup.enter_block(hidden_states, attention_mask, self.mixup_layer)
        # Written out because no module ends after the first residual sum.
        attn_output, _ = self.self_attn(
            hidden_states=self.input_layernorm(hidden_states),
            attention_mask=attention_mask,
            position_embeddings=tuple(for_rows(part, len(hidden_states)) for part in position_embeddings),
            mixup=mixup,
            **kwargs,
        )
        hidden_states = mixup.mix(hidden_states + attn_output, "attention_block", self.mixup_layer)
        hidden_states = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
        return mixup.mix(hidden_states, "hidden", self.mixup_layer)


class DecoderMixup(MixupModel):
    """Base of the decoders' mixup classes."""

    scores_need_arguments = True

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        mixup: Plan | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """As `MixupModel.forward`; a mixed pass neither reads nor fills `past_key_values`."""
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        if mixup is None:
            return self.parent_class.forward(
                self, **inputs, past_key_values=past_key_values, labels=labels, use_cache=use_cache, **kwargs
            )
        return self._mixed_forward(inputs, labels, mixup, **kwargs)

    def _blocks(self) -> nn.ModuleList:
        return self.model.layers

    def _classifier(self) -> nn.Linear:
        return self.score

    def _embed(self, inputs: dict[str, Tensor | None]) -> Tensor:
        given = inputs["inputs_embeds"]
        return self.get_input_embeddings()(inputs["input_ids"]) if given is None else given

    def _encode(self, inputs: dict[str, Tensor | None], mixup: Plan, **kwargs: Any) -> ModelOutput:
        return self.base_model(**inputs, use_cache=False, mixup=mixup, **kwargs)

    def _pooled(self, outputs: ModelOutput, inputs: dict[str, Tensor | None], mixup: Plan) -> Tensor:
        states = outputs.last_hidden_state
        # As in the parent: what is padding is told by the ids, where there are any.
        if inputs["input_ids"] is not None:
            if self.config.pad_token_id is None:
                raise ValueError("The model has no padding token: set model.config.pad_token_id, to find last tokens.")
            tokens = (inputs["input_ids"] != self.config.pad_token_id).long()
        elif inputs["attention_mask"] is not None:
            tokens = (inputs["attention_mask"] != 0).long()
        else:
            return states[:, -1]
        tokens = mixup.mask_after(tokens, self.config.num_hidden_layers)
        last = (tokens * torch.arange(tokens.shape[1], device=tokens.device)).argmax(dim=-1)
        return states[torch.arange(len(states), device=states.device), last]

    def _positions(self, inputs: dict[str, Tensor | None], hidden_states: Tensor) -> Tensor:
        if inputs["position_ids"] is not None:
            return inputs["position_ids"]
        return torch.arange(hidden_states.shape[1], device=hidden_states.device).unsqueeze(0)

    def _causal_mask(self, inputs: dict[str, Tensor | None], hidden_states: Tensor) -> Tensor | None:
        return create_causal_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=inputs["attention_mask"],
            past_key_values=None,
            position_ids=self._positions(inputs, hidden_states),
        )

    def _block_arguments(self, inputs: dict[str, Tensor | None], hidden_states: Tensor) -> list[dict[str, Any]]:
        arguments = {
            "attention_mask": self._causal_mask(inputs, hidden_states),
            "position_embeddings": self.model.rotary_emb(hidden_states, self._positions(inputs, hidden_states)),
        }
        return [arguments] * len(self._blocks())

    def _attention_scores(
        self, number: int, hidden_states: Tensor, arguments: dict[str, Any], head: int | None
    ) -> Tensor:
        block = self._blocks()[number - 1]
        attention, hidden_states = block.self_attn, block.input_layernorm(hidden_states)
        query = attention.q_proj(hidden_states).unflatten(-1, (-1, attention.head_dim))
        key = attention.k_proj(hidden_states).unflatten(-1, (-1, attention.head_dim))
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        query, key = apply_rotary_pos_emb(
            query.transpose(1, 2), key.transpose(1, 2), *arguments["position_embeddings"]
        )
        # Several query heads read one key head.
        key = key.repeat_interleave(attention.num_key_value_groups, dim=1)
        scores = query @ key.mT * attention.scaling
        return causal(scores if head is None else scores[:, head : head + 1])


def causal(scores: Tensor) -> Tensor:
    """The scores, -inf where a position would look at one after it."""
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(future, -torch.inf)
