"""What the mixup classes of all families share: the class swap, the mixed head, plain checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput, SequenceClassifierOutput

from hf_mixup.mixing.plan import PairPlan


@dataclass
class MixupSequenceClassifierOutput(SequenceClassifierOutput):
    """The output of a mixed forward pass.

    Args:
        logits: `[batch, classes]`, of the mixed rows.
        label_weight: `[batch]`, the share of the own label that goes with them.
        hidden_states, attentions: as in `SequenceClassifierOutput`, of the mixed rows.
        loss: always None: the loss of mixed rows is computed from the logits (see `hf_mixup.mixing.Objective`).
    """

    label_weight: Tensor | None = None


class MixupModel(PreTrainedModel):
    """Base of the mixup classes: stands before the transformers class in their bases.

    Without a plan such a model is its parent class, bit for bit: initial weights, state-dict keys, logits. With
    `model(**inputs, mixup=plan)` it mixes in its own forward pass. What it saves is a plain checkpoint of the parent.
    """

    parent_class: type[PreTrainedModel]

    def save_pretrained(self, save_directory: str | PathLike[str], **kwargs: Any) -> None:
        """Save a plain checkpoint: the `architectures` of its config name the parent class."""
        mixup_class = self.__class__
        self.__class__ = self.parent_class
        try:
            self.save_pretrained(save_directory, **kwargs)
        finally:
            self.__class__ = mixup_class

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
    outputs: ModelOutput, pooled: Tensor, classifier: nn.Module, labels: Tensor | None, mixup: PairPlan
) -> MixupSequenceClassifierOutput:
    """The last lines of a mixed forward pass: mix the pooled vector, classify it, mix the logits, as the plan says.

    Args:
        outputs: what the encoder returned.
        pooled: `[batch, hidden]`, what the last linear layer reads, after the last dropout.
        classifier: that last linear layer.
        labels: must be None.
        mixup: the plan.

    Raises:
        ValueError: labels were given together with a plan.
    """
    if labels is not None:
        raise ValueError(
            "labels were given together with a mixup plan: leave them out of the mixed forward pass and compute the "
            "loss from its logits with hf_mixup.mixing.Objective (MixupTrainer does both)."
        )
    logits = mixup.mix(classifier(mixup.mix(pooled, "pooled")), "logits")
    return MixupSequenceClassifierOutput(
        logits=logits,
        hidden_states=outputs.hidden_states,
        attentions=outputs.attentions,
        label_weight=mixup.label_weight,
    )
