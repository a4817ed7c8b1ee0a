"""What the mixup classes of all families share: the class swap, the mixed head, plain checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import ModelOutput, SequenceClassifierOutput

from hf_mixup.mixing.attention import attention_relevance
from hf_mixup.mixing.plan import AttentionProbe, BatchPlan, PairPlan, Plan


@dataclass
class MixupSequenceClassifierOutput(SequenceClassifierOutput):
    """The output of a mixed forward pass.

    Args:
        logits: `[batch, classes]`, of the mixed rows.
        label_weight: `[batch]`, the share of the own label that goes with them.
        pooled: `[batch, hidden]`, what the last linear layer read.
        hidden_states, attentions: as in `SequenceClassifierOutput`, of the mixed rows.
        loss: always None: the loss of mixed rows is computed from the logits (see `hf_mixup.mixing.Objective`).
    """

    label_weight: Tensor | None = None
    pooled: Tensor | None = None


class MixupModel(PreTrainedModel):
    """Base of the mixup classes: stands before the transformers class in their bases.

    Without a plan such a model is its parent class, bit for bit: initial weights, state-dict keys, logits. With
    `model(**inputs, mixup=plan)` it mixes in its own forward pass. What it saves is a plain checkpoint of the parent.
    """

    parent_class: type[PreTrainedModel]

    # Each family says where its parts are.
    _blocks: Callable[[], nn.ModuleList]  # the blocks of the encoder, in order
    _embed: Callable[[dict[str, Tensor | None]], Tensor]  # the output of the embedding module
    _query_key: Callable[[nn.Module], tuple[nn.Linear, nn.Linear]]  # the projections of a block's self-attention

    def save_pretrained(self, save_directory: str | PathLike[str], **kwargs: Any) -> None:
        """Save a plain checkpoint: the `architectures` of its config name the parent class."""
        mixup_class = self.__class__
        self.__class__ = self.parent_class
        try:
            self.save_pretrained(save_directory, **kwargs)
        finally:
            self.__class__ = mixup_class

    def _prepared(self, inputs: dict[str, Tensor | None], mixup: Plan) -> Plan:
        """The plan, checked against the batch and the model, with the weights that its probe asks for.

        Raises:
            ValueError: the plan is for another number of rows, or names a block that the model does not have.
        """
        source = inputs["input_ids"] if inputs["input_ids"] is not None else inputs["inputs_embeds"]
        if mixup.rows != source.shape[0]:
            raise ValueError(f"The plan is for {mixup.rows} rows, but the batch has {source.shape[0]}.")
        deepest = max([*mixup.layers, 0 if mixup.probe is None else mixup.probe.layer], default=0)
        if deepest > len(self._blocks()):
            raise ValueError(f"The plan names block {deepest}, but the model has {len(self._blocks())}.")
        if mixup.probe is None:
            return mixup
        tokens = inputs["attention_mask"]
        tokens = torch.ones(source.shape[:2], device=source.device).bool() if tokens is None else tokens.bool()
        return mixup.probed(self._attention_relevance(inputs, tokens, mixup.probe), tokens)

    @torch.no_grad()
    def _attention_relevance(self, inputs: dict[str, Tensor | None], tokens: Tensor, probe: AttentionProbe) -> Tensor:
        """How much attention each token receives, from a pass without dropout that ends at the block it needs."""
        blocks, heads = self._blocks(), self.config.num_attention_heads
        with _evaluating(self):
            hidden_states = self._embed(inputs)
            mask = create_bidirectional_mask(
                config=self.config, inputs_embeds=hidden_states, attention_mask=inputs["attention_mask"]
            )
            for block in blocks[: probe.layer - 1]:
                hidden_states = block(hidden_states, mask)
        query, key = (
            _one_head(projection, hidden_states, probe.head, heads)
            for projection in self._query_key(blocks[probe.layer - 1])
        )
        return attention_relevance(query, key, tokens, query.shape[-1] ** -0.5)

    def _mixed_word_embeddings(self, inputs: dict[str, Tensor | None], mixup: PairPlan) -> dict[str, Tensor | None]:
        """The inputs with mixed word embeddings in place of tokens; positions, types and mask stay the own row's."""
        embeddings = inputs["inputs_embeds"]
        if embeddings is None:
            embeddings = self.get_input_embeddings()(inputs["input_ids"])
        if mixup.clean_weight is not None:
            inputs = {name: None if value is None else torch.cat([value, value]) for name, value in inputs.items()}
        return {**inputs, "input_ids": None, "inputs_embeds": mixup.mix(embeddings, "word_embeddings")}

    def _swap_classes(self, blocks: Iterable[nn.Module], classes: Mapping[type, type]) -> None:
        """Give the modules of the blocks their mixup classes, in place.

        A module built anew would draw other initial weights, so only the class of the existing one changes. Each
        swapped module learns the number of its block, counted from 1.
        """
        for number, block in enumerate(blocks, start=1):
            for module in block.modules():
                if type(module) in classes:
                    module.__class__ = classes[type(module)]
                    module.mixup_layer = number
        # Sharding and device maps find the modules that must stay whole by the names of their classes.
        renamed = {parent.__name__: swapped.__name__ for parent, swapped in classes.items()}
        for module in self.modules():
            if isinstance(module, PreTrainedModel):
                module._no_split_modules = {renamed.get(name, name) for name in module._no_split_modules}


def mixed_output(
    outputs: ModelOutput, pooled: Tensor, classifier: nn.Linear, labels: Tensor | None, mixup: Plan
) -> MixupSequenceClassifierOutput:
    """The last lines of a mixed forward pass: mix the pooled vector, classify it, mix the logits, as the plan says.

    Args:
        outputs: what the encoder returned.
        pooled: `[batch, hidden]`, what the last linear layer reads, after the last dropout.
        classifier: that last linear layer.
        labels: must be None.
        mixup: the plan, without an open probe.

    Raises:
        ValueError: labels were given together with a plan.
    """
    if labels is not None:
        raise ValueError(
            "labels were given together with a mixup plan: leave them out of the mixed forward pass and compute the "
            "loss from its logits with hf_mixup.mixing.Objective (MixupTrainer does both)."
        )
    if isinstance(mixup, BatchPlan) and mixup.dot_product:
        logits = _dot_products(pooled, classifier, mixup)
    else:
        pooled = mixup.mix(pooled, "pooled")
        logits = mixup.mix(classifier(pooled), "logits")
    return MixupSequenceClassifierOutput(
        logits=logits,
        hidden_states=outputs.hidden_states,
        attentions=outputs.attentions,
        label_weight=mixup.label_weight,
        pooled=pooled,
    )


def _dot_products(pooled: Tensor, classifier: nn.Linear, mixup: BatchPlan) -> Tensor:
    r"""`[points, batch, classes]`: summed over the batch, at each row's label, $\langle \hat x_i, \hat y_i \rangle$.

    The mixed label vector is $\hat y_i = \sum_b m_{i,b} \circ w_{y_b}$ with the rows $w$ of the classifier, so its dot
    product with $\hat x_i$ is the sum over the batch of $\langle \hat x_i \circ m_{i,b}, w_{y_b} \rangle$: the
    classifier without its bias, applied to $\hat x_i \circ m_{i,b}$. Labels only pick the classes of it.
    """
    mixed = mixup.mix(pooled, "pooled").unsqueeze(1)
    weights = mixup.weights.to(pooled.dtype)
    weights = weights.unsqueeze(-1) if weights.ndim == 2 else weights
    scores = nn.functional.linear(mixed * weights, classifier.weight)
    # Distributed training waits for a gradient of every parameter, also where it is 0.
    return scores if classifier.bias is None else scores + 0 * classifier.bias


def _one_head(projection: nn.Linear, hidden_states: Tensor, head: int | None, heads: int) -> Tensor:
    """`[batch, heads, length, head size]`, of one head or of all, without computing the others."""
    size = projection.out_features // heads
    if isinstance(projection.weight, DTensor):
        raise ValueError(
            "attentionmix reads the query and key weights of a block from outside, where FSDP has them sharded: train "
            "without FSDP, or choose another method."
        )
    if head is None or type(projection) is not nn.Linear:
        # An adapter's own forward pass (LoRA) adds to the weights, so its output is cut instead.
        projected = projection(hidden_states).unflatten(-1, (-1, size))
        projected = projected if head is None else projected[..., head : head + 1, :]
    else:
        rows = slice(head * size, (head + 1) * size)
        bias = None if projection.bias is None else projection.bias[rows]
        projected = nn.functional.linear(hidden_states, projection.weight[rows], bias).unflatten(-1, (-1, size))
    return projected.transpose(1, 2)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off inside, every module as it was afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
