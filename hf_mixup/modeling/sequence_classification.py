"""What the mixup classes of all families share: the class swap, the mixed head, plain checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import ModelOutput, SequenceClassifierOutput
from transformers.utils import can_return_tuple

from hf_mixup.mixing.attention import attention_relevance
from hf_mixup.mixing.checks import check_type
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
    mixup_modules: Mapping[type[nn.Module], type[nn.Module]]  # what the modules of a block become
    scores_need_arguments = False  # whether `_attention_scores` reads what `_block_arguments` gives

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self._swap_classes()

    @classmethod
    def is_custom_code(cls) -> bool:
        """False: all weights are those of the parent, so that transformers is to treat them as its own.

        It leaves out parts of its initialization for classes from elsewhere, and converts their checkpoints otherwise.
        """
        return False

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        mixup: Plan | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """The parent's forward pass, or a mixed one.

        A family whose parent takes other arguments names these in a `forward` of its own.

        Args:
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds: as in the parent class.
            labels: as in the parent class; not together with a plan.
            mixup: what to mix; None makes this the parent's forward pass.

        Raises:
            TypeError: `mixup` is not a plan but, for example, the name of a method.
            ValueError: labels together with a plan, or a plan that does not fit the batch or the model.
        """
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        if mixup is None:
            return self.parent_class.forward(self, **inputs, labels=labels, **kwargs)
        return self._mixed_forward(inputs, labels, mixup, **kwargs)

    def _mixed_forward(
        self, inputs: dict[str, Tensor | None], labels: Tensor | None, mixup: Plan, **kwargs: Any
    ) -> MixupSequenceClassifierOutput:
        """Encode, mixing on the way; then mix the pooled vector, classify it and mix the logits, as the plan says."""
        check_type("mixup", mixup, Plan, "the plan of a batch, as Mixup.plan(...) returns it")
        if labels is not None:
            raise ValueError(
                "labels were given together with a mixup plan: leave them out of the mixed forward pass and compute "
                "the loss from its logits with hf_mixup.mixing.Objective (MixupTrainer does both, and takes a loss of "
                "your own as compute_loss_func)."
            )
        mixup = self._prepared(inputs, mixup)
        if mixup.site == "word_embeddings":
            outputs = self._encode(*self._mixed_word_embeddings(inputs, mixup), **kwargs)
        else:
            outputs = self._encode(inputs, mixup, **kwargs)
        pooled, classifier = self._pooled(outputs, inputs, mixup), self._classifier()
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

    # ---- Where a family has its parts; BERT's names are the default ----

    def _blocks(self) -> nn.ModuleList:
        """The blocks of the encoder, in order."""
        return self.base_model.encoder.layer

    def _embed(self, inputs: dict[str, Tensor | None]) -> Tensor:
        """The input of the first block, `[batch, length, hidden]`."""
        return self.base_model.embeddings(
            **{name: value for name, value in inputs.items() if name != "attention_mask"}
        )

    def _encode(self, inputs: dict[str, Tensor | None], mixup: Plan, **kwargs: Any) -> ModelOutput:
        """The encoder's output; the plan goes down to the blocks as a keyword argument."""
        return self.base_model(**inputs, return_dict=True, mixup=mixup, **kwargs)

    def _pooled(self, outputs: ModelOutput, inputs: dict[str, Tensor | None], mixup: Plan) -> Tensor:
        """What the last linear layer reads, `[batch, hidden]`, after the last dropout."""
        return self.dropout(outputs.pooler_output)

    def _classifier(self) -> nn.Linear:
        """The last linear layer."""
        return self.classifier

    def _block_arguments(self, inputs: dict[str, Tensor | None], hidden_states: Tensor) -> list[dict[str, Any]]:
        """What each block gets beside its input when there is no plan."""
        mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=inputs["attention_mask"]
        )
        return [{"attention_mask": mask}] * len(self._blocks())

    def _attention_scores(
        self, number: int, hidden_states: Tensor, arguments: dict[str, Any], head: int | None
    ) -> Tensor:
        """The scores before the softmax in block `number`, `[batch, heads, length, length]`, of one head or of all.

        Padding need not be hidden in them.
        """
        attention = self._blocks()[number - 1].attention.self
        return dot_product_scores(attention.query, attention.key, hidden_states, head, self.config.num_attention_heads)

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
            ValueError: the plan is for another number of rows, or names a block or a head that the model does not
                have.
        """
        source = inputs["input_ids"] if inputs["input_ids"] is not None else inputs["inputs_embeds"]
        if mixup.rows != source.shape[0]:
            raise ValueError(f"The plan is for {mixup.rows} rows, but the batch has {source.shape[0]}.")
        deepest, blocks = max(mixup.layers, default=0), len(self._blocks())
        if deepest > blocks:
            raise ValueError(f"The plan names block {deepest}, but the model has {blocks}.")
        if mixup.probe is None:
            return mixup
        layer, head = mixup.probe
        if layer > blocks:
            raise ValueError(f"The plan reads the attention of block {layer}, but the model has blocks 1 to {blocks}.")
        heads = self.config.num_attention_heads
        if head is not None and head >= heads:
            raise ValueError(
                f"The plan reads attention head {head}, but the model has heads 0 to {heads - 1}: give one of these, "
                "or None for their mean."
            )
        tokens = inputs["attention_mask"]
        tokens = torch.ones(source.shape[:2], device=source.device).bool() if tokens is None else tokens.bool()
        return mixup.probed(self._attention_relevance(inputs, tokens, mixup.probe), tokens)

    @torch.no_grad()
    def _attention_relevance(self, inputs: dict[str, Tensor | None], tokens: Tensor, probe: AttentionProbe) -> Tensor:
        """How much attention each token receives, from a pass without dropout that ends at the block it needs."""
        with _evaluating(self):
            hidden_states = self._embed(inputs)
            # Of the first block most families need none, and to make its mask the host would wait for the device.
            needed = probe.layer > 1 or self.scores_need_arguments
            arguments = self._block_arguments(inputs, hidden_states) if needed else [{}]
            for block, given in zip(self._blocks()[: probe.layer - 1], arguments, strict=False):
                outputs = block(hidden_states, **given)
                hidden_states = outputs[0] if isinstance(outputs, tuple) else outputs
            with _unsharded(self._blocks()[probe.layer - 1]):
                scores = self._attention_scores(probe.layer, hidden_states, arguments[probe.layer - 1], probe.head)
        return attention_relevance(scores, tokens)

    def _mixed_word_embeddings(
        self, inputs: dict[str, Tensor | None], mixup: PairPlan
    ) -> tuple[dict[str, Tensor | None], PairPlan]:
        """The inputs with mixed word embeddings in place of tokens and their mask, and what is left to do: no masks.

        Positions and types stay the own row's.
        """
        embeddings, mask = inputs["inputs_embeds"], inputs["attention_mask"]
        if embeddings is None:
            embeddings = self.get_input_embeddings()(inputs["input_ids"])
        if mixup.clean_weight is not None:
            inputs = {name: None if value is None else torch.cat([value, value]) for name, value in inputs.items()}
        mixed = {"input_ids": None, "inputs_embeds": mixup.mix(embeddings, "word_embeddings")}
        if mask is not None:
            mixed["attention_mask"] = mixup.mask_after(mask, 0)
        return {**inputs, **mixed}, replace(mixup, attention_mask="own")

    def _swap_classes(self) -> None:
        """Give the modules of the blocks their mixup classes, in place.

        A module built anew would draw other initial weights, so only the class of the existing one changes. Each
        swapped module learns the number of its block, counted from 1.
        """
        for number, block in enumerate(self._blocks(), start=1):
            for module in block.modules():
                if type(module) in self.mixup_modules:
                    module.__class__ = self.mixup_modules[type(module)]
                    module.mixup_layer = number
        # Sharding and device maps find the modules that must stay whole by the names of their classes.
        renamed = {parent.__name__: swapped.__name__ for parent, swapped in self.mixup_modules.items()}
        for module in self.modules():
            if isinstance(module, PreTrainedModel):
                module._no_split_modules = {renamed.get(name, name) for name in module._no_split_modules or ()}


class PlanOnBlocks(MixupModel):
    """Base for families whose encoders pass no keyword arguments down: their blocks find the plan on themselves."""

    def _encode(self, inputs: dict[str, Tensor | None], mixup: Plan, **kwargs: Any) -> ModelOutput:
        blocks = self._blocks()
        for block in blocks:
            block.mixup_plan = mixup
        try:
            return self.base_model(**inputs, return_dict=True, **kwargs)
        finally:
            for block in blocks:
                block.mixup_plan = None


class WithoutTokenTypes(MixupModel):
    """Base for families without token types."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        mixup: Plan | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """As `MixupModel.forward`, without `token_type_ids`."""
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        if mixup is None:
            return self.parent_class.forward(self, **inputs, labels=labels, **kwargs)
        return self._mixed_forward(inputs, labels, mixup, **kwargs)


def _dot_products(pooled: Tensor, classifier: nn.Linear, mixup: BatchPlan) -> Tensor:
    r"""`[points, batch, classes]`: summed over the batch, at each row's label, $\langle \hat x_i, \hat y_i \rangle$.

    The mixed label vector is $\hat y_i = \sum_b m_{i,b} \circ w_{y_b}$ with the rows $w$ of the classifier, so its dot
    product with $\hat x_i$ is the sum over the batch of $\langle \hat x_i \circ m_{i,b}, w_{y_b} \rangle$: the
    classifier without its bias, applied to $\hat x_i \circ m_{i,b}$. Labels only pick the classes of it.
    """
    mixed = mixup.mix(pooled, "pooled").unsqueeze(1)
    weights = mixup.weights.to(pooled.dtype)
    weights = weights.unsqueeze(-1) if weights.ndim == 2 else weights
    rows = mixed * weights
    if _gathers_in_forward(classifier):
        return classifier(rows) - classifier(torch.zeros_like(rows[:1, :1]))
    scores = nn.functional.linear(rows, classifier.weight)
    # Distributed training waits for a gradient of every parameter, also where it is 0.
    return scores if classifier.bias is None else scores + 0 * classifier.bias


def dot_product_scores(
    query: nn.Linear, key: nn.Linear, hidden_states: Tensor, head: int | None, heads: int
) -> Tensor:
    """Scaled dot products `[batch, heads, length, length]` of one head, or with None of all."""
    queries, keys = (one_head(projection, hidden_states, head, heads) for projection in (query, key))
    return queries @ keys.mT * queries.shape[-1] ** -0.5


def masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """The scores with what an attention mask, bool (True = visible) or to be added, hides."""
    if mask is None:
        return scores
    return scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask


def one_head(projection: nn.Linear, hidden_states: Tensor, head: int | None, heads: int) -> Tensor:
    """`[batch, heads, length, head size]`, of one head without computing the others, or with None of all."""
    size = projection.out_features // heads
    # An adapter's own forward pass (LoRA) adds to the weights: there the output is cut instead.
    if head is None or type(projection) is not nn.Linear or _gathers_in_forward(projection):
        projected = projection(hidden_states).unflatten(-1, (-1, size))
        projected = projected if head is None else projected[..., head : head + 1, :]
    else:
        rows = slice(head * size, (head + 1) * size)
        bias = None if projection.bias is None else projection.bias[rows]
        projected = nn.functional.linear(hidden_states, projection.weight[rows], bias).unflatten(-1, (-1, size))
    return projected.transpose(1, 2)


def _gathers_in_forward(layer: nn.Module) -> bool:
    """Whether the layer has its weights inside its own forward pass alone: at ZeRO-3 of DeepSpeed, which names them.

    Even to look at its `weight` would gather it, and again in each forward pass from then on.
    """
    return any(hasattr(parameter, "ds_id") for parameter in layer.parameters())


@contextmanager
def _unsharded(block: nn.Module) -> Iterator[None]:
    """The block's weights whole inside: it is read there without its own forward pass, which would gather them.

    Raises:
        ValueError: they are sharded together with other modules.
    """
    units = [module for module in block.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.unshard()
    try:
        if any(isinstance(parameter, DTensor) for parameter in block.parameters()):
            raise ValueError(
                f"attentionmix reads the weights of one {type(block).__name__}, which are sharded together with other "
                "modules: let FSDP2 wrap the blocks (fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP), or choose another "
                "method."
            )
        yield
    finally:
        for unit in units:
            unit.reshard()


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
