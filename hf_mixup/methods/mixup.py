"""Mixup: a method at work on a model of a certain depth. It draws the plan of each batch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_mixup.methods.method import Method
from hf_mixup.mixing.checks import check_type, check_whole, is_whole, plain, plain_in_any_order, shown
from hf_mixup.mixing.partners import PARTNERS
from hf_mixup.mixing.plan import AttentionProbe, BatchPlan, PairPlan, Plan, SpanPlan, StepKey
from hf_mixup.mixing.ratios import BatchWeights, Ratio, Spans
from hf_mixup.mixing.schedules import coin, within
from hf_mixup.mixing.targets import compounded_share

logger = logging.getLogger(__name__)


class Mixup:
    """Draws what each batch mixes; nothing that it keeps changes a plan: the same key always gives the same plan.

    Args:
        method: what to do.
        num_layers: the number of blocks of the model.
        hidden_size: the size of its hidden states, for methods that draw a weight for each feature.
        num_heads: the number of its attention heads, for methods that read one.
        special_ids: the ids of the tokens that begin, separate, end and pad texts, for methods that swap tokens.

    Raises:
        TypeError: `method` is not a method.
        ValueError: the method names a block or a head that the model does not have, draws a weight for each feature
            without knowing how many there are, or swaps tokens without knowing which are special.

    Example:
        >>> from hf_mixup.methods import METHODS
        >>> mixup = Mixup(METHODS["amplify"].with_options(ratio="constant", lam=0.8), num_layers=12)
        >>> plan = mixup.plan({}, torch.tensor([0, 1, 1, 0]), StepKey(seed=42))
        >>> plan.site, plan.layers[:3], plan.label_weight[0]
        ('attention', (1, 2, 3), tensor(0.8000))
    """

    def __init__(
        self,
        method: Method,
        num_layers: int,
        hidden_size: int | None = None,
        num_heads: int | None = None,
        special_ids: Iterable[int] = (),
    ) -> None:
        name = method if isinstance(method, str) else "amplify"
        check_type("method", method, Method, f"a Method, such as METHODS[{name!r}]")
        check_whole("num_layers", num_layers, lowest=0)
        for name, size in (("hidden_size", hidden_size), ("num_heads", num_heads)):
            if size is not None:
                check_whole(name, size)
        self._told_of_missing_mask = False
        self.method = method
        self.layers = method.resolve_layers(num_layers)
        self.hidden_size = hidden_size
        self.special_ids = torch.tensor(_ids(special_ids), dtype=torch.int64)
        draws_features = isinstance(method.ratio, BatchWeights) and method.ratio.kind == "softmax-beta"
        if hidden_size is None and (method.per_feature or draws_features):
            raise ValueError(
                f"mixup_method={method.name!r} draws a weight for each feature: give hidden_size, such as "
                "model.config.hidden_size."
            )
        if isinstance(method.ratio, Spans) and not len(self.special_ids):
            raise ValueError(
                f"mixup_method={method.name!r} must know the special tokens: give the trainer the tokenizer as "
                "processing_class, or Mixup the special_ids."
            )
        if isinstance(method.ratio, AttentionProbe):
            layer, head = method.ratio
            if not 1 <= layer <= num_layers:
                raise ValueError(
                    f"mixup_attention_layer={layer} does not fit: the model has blocks 1 to {num_layers}."
                )
            if head is not None and num_heads is not None and head >= num_heads:
                raise ValueError(
                    f"mixup_attention_head={head} does not fit: the model has heads 0 to {num_heads - 1}, or average."
                )

    def settings(self) -> dict[str, Any]:
        """How this mixes, as plain data for a config or a model card: what differs from plain pairs of rows."""
        described = ("name", "summary", "paper", "site", "layers", "ratio")
        settings = {"method": self.method.name, "site": self.method.site, "layers": list(self.layers)}
        settings["ratio"] = _as_dict(self.method.ratio)
        for field in fields(Method):
            value = getattr(self.method, field.name)
            if field.name not in described and value != field.default:
                settings[field.name] = plain(value)
        return settings

    def plan(self, batch: Mapping[str, Any], labels: Tensor, key: StepKey, progress: float = 0.0) -> Plan | None:
        """The plan of one micro-batch, on the device of the labels; None when the step is a plain one.

        Nothing is mixed by the method `none`, outside `start` and `stop`, when the coin of `prob` says so, when every
        row is its own partner (as in a batch of one), or when every drawn ratio is 1 in float32.

        Args:
            batch: the model's inputs; `skip` reads their `attention_mask`.
            labels: `[batch, ...]`.
            key: names the micro-batch; all randomness follows from it.
            progress: the finished fraction of the training, in [0, 1].

        Raises:
            TypeError: batch, labels or key are something else.
            ValueError: labels without rows, a number in the key below 0, or another progress.
        """
        check_type("batch", batch, Mapping, "the model's inputs by name, such as {'input_ids': ...}")
        check_type("labels", labels, Tensor, "a tensor [batch, ...]")
        check_type("key", key, StepKey, "a StepKey, such as StepKey(seed=42, step=0)")
        if not labels.ndim or not len(labels):
            raise ValueError(f"labels of shape {list(labels.shape)} have no rows: give a tensor [batch, ...].")
        method, rows = self.method, len(labels)
        if method.site is None or not within(progress, method.start, method.stop):
            return None
        generator = key.generator()
        if not coin(generator, method.prob * (0.5 if method.clean == "alternate" else 1)):
            return None
        if isinstance(method.ratio, BatchWeights):
            return self._batch_plan(generator, rows, labels.device)
        return self._pair_plan(generator, rows, labels.device, batch.get("attention_mask"))

    def _batch_plan(self, generator: np.random.Generator, rows: int, device: torch.device) -> BatchPlan | None:
        if rows == 1:
            return None
        weights = self.method.ratio.draw(generator, rows, self.hidden_size, device)
        return BatchPlan(weights, self.method.site, self.method.dot_product)

    def _pair_plan(
        self, generator: np.random.Generator, rows: int, device: torch.device, attention_mask: Tensor | None
    ) -> PairPlan | SpanPlan | None:
        method = self.method
        partner = PARTNERS[method.partner](generator, rows)
        if (partner == np.arange(rows)).all():
            return None
        if isinstance(method.ratio, Spans):
            return SpanPlan(torch.from_numpy(partner), self.special_ids, method.ratio.window, method.clean_weight).to(
                device
            )
        weight, label_weight = None, None
        if isinstance(method.ratio, Ratio):
            weight, label_weight = self._draw_weights(generator, rows)
            if (weight == 1).all():
                return None
        site, layers, drawn = self._place(generator)
        skip = method.attention_mask == "skip" and site != "pooled"
        plan = PairPlan(
            partner=torch.from_numpy(partner),
            weight=weight,
            site=site,
            layers=layers,
            drawn=None if drawn is None else torch.tensor(drawn),
            drawn_layer=drawn,
            label_weight=label_weight,
            attention_mask="own" if method.attention_mask == "skip" or site == "pooled" else method.attention_mask,
            clean_weight=method.clean_weight if method.clean == "average" else None,
            probe=method.ratio if isinstance(method.ratio, AttentionProbe) else None,
        ).to(device)
        if skip and attention_mask is None:
            self._tell_of_missing_mask()
        return plan.skip_padding(attention_mask) if skip and attention_mask is not None else plan

    def _tell_of_missing_mask(self) -> None:
        """Warn once that padding cannot be told from tokens."""
        if not self._told_of_missing_mask:
            self._told_of_missing_mask = True
            logger.warning(
                "mixup_attention_mask='skip' leaves padding unmixed, but the batches have no attention_mask, so every "
                "position is mixed: let the tokenizer return one, or choose another mixup_attention_mask."
            )

    def _draw_weights(self, generator: np.random.Generator, rows: int) -> tuple[Tensor, Tensor]:
        """The weight of the features, and `[rows]` that of the labels."""
        method = self.method
        if method.per_feature:
            weight = torch.from_numpy(method.ratio.draw(generator, rows * self.hidden_size)).reshape(rows, 1, -1)
            return weight, weight.mean(dim=(1, 2))
        ratio = torch.from_numpy(method.ratio.draw(generator, rows if method.per_sample else 1))
        label_weight = ratio.expand(rows)
        if method.label_weight == "compounded":
            label_weight = compounded_share(label_weight, len(self.layers))
        return ratio.reshape(-1, 1, 1) if method.per_sample else ratio[0], label_weight

    def _place(self, generator: np.random.Generator) -> tuple[str, tuple[int, ...], int | None]:
        """The site, its layers, and the one of them that is drawn for this batch."""
        if not self.method.one_layer:
            return self.method.site, self.layers, None
        layer = self.layers[generator.integers(len(self.layers))]
        if layer == "pooled":
            return "pooled", (), None
        return self.method.site, tuple(number for number in self.layers if number != "pooled"), layer


def _ids(given: object) -> list[int]:
    """The ids of a sequence, set, array or tensor.

    Raises:
        ValueError: something else.
    """
    ids = plain_in_any_order(given)
    ids = list(ids) if isinstance(ids, Iterable) and not isinstance(ids, Tensor) else [None]
    if not all(is_whole(number) and number >= 0 for number in ids):
        raise ValueError(f"special_ids={shown(given)} is not allowed: give the ids of tokens, such as [0, 2, 3].")
    return [int(number) for number in ids]


def _as_dict(ratio: Ratio | AttentionProbe | BatchWeights | Spans | None) -> dict[str, Any]:
    if isinstance(ratio, AttentionProbe):
        return {"attention_layer": ratio.layer, "attention_head": "average" if ratio.head is None else ratio.head}
    return {} if ratio is None else {name: plain(value) for name, value in asdict(ratio).items() if value is not None}
