"""ELECTRA with mixup in the graph."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import ElectraForSequenceClassification
from transformers.modeling_outputs import ModelOutput
from transformers.models.electra.modeling_electra import ElectraAttention, ElectraLayer, ElectraSelfAttention

from hf_mixup.mixing.plan import Plan
from hf_mixup.modeling.layers import AttentionBlockMixup, BlockMixup, SelfAttentionMixup
from hf_mixup.modeling.sequence_classification import MixupModel


class MixupElectraSelfAttention(SelfAttentionMixup, ElectraSelfAttention):
    """Multi-head self-attention whose output, the concatenated heads, is mixed."""


class MixupElectraAttention(AttentionBlockMixup, ElectraAttention):
    """The attention block whose output is mixed."""


class MixupElectraLayer(BlockMixup, ElectraLayer):
    """The block whose output is mixed."""


class MixupElectraForSequenceClassification(MixupModel, ElectraForSequenceClassification):
    """`ElectraForSequenceClassification` that mixes in its own forward pass when it is given a plan.

    Example:
        >>> model = MixupElectraForSequenceClassification.from_pretrained("FOLDER", num_labels=3)  # doctest: +SKIP
        >>> model(**inputs, mixup=plan).logits.shape  # doctest: +SKIP
        torch.Size([8, 3])
    """

    parent_class = ElectraForSequenceClassification
    mixup_modules = {
        ElectraSelfAttention: MixupElectraSelfAttention,
        ElectraAttention: MixupElectraAttention,
        ElectraLayer: MixupElectraLayer,
    }

    def _embed(self, inputs: dict[str, Tensor | None]) -> Tensor:
        embeddings = super()._embed(inputs)
        # Small models embed into fewer dimensions than the blocks have.
        project = getattr(self.electra, "embeddings_project", None)
        return embeddings if project is None else project(embeddings)

    def _pooled(self, outputs: ModelOutput, inputs: dict[str, Tensor | None], mixup: Plan) -> Tensor:
        head = self.classifier
        return head.dropout(head.activation(head.dense(head.dropout(outputs.last_hidden_state[:, 0]))))

    def _classifier(self) -> nn.Linear:
        return self.classifier.out_proj
