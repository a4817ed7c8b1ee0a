"""Mixup: a method at work on a model of a certain depth. It draws the plan of each batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_mixup.methods.method import Method
from hf_mixup.mixing.partners import PARTNERS
from hf_mixup.mixing.plan import PairPlan, StepKey
from hf_mixup.mixing.schedules import coin, within
from hf_mixup.mixing.targets import compounded_share


class Mixup:
    """Draws what each batch mixes; holds no state, so that the same key always gives the same plan.

    Args:
        method: what to do.
        num_layers: the number of blocks of the model.

    Raises:
        ValueError: the method names a block that the model does not have.

    Example:
        >>> from hf_mixup.methods import METHODS
        >>> mixup = Mixup(METHODS["amplify"].with_options(ratio="constant", lam=0.8), num_layers=12)
        >>> plan = mixup.plan({}, torch.tensor([0, 1, 1, 0]), StepKey(seed=42))
        >>> plan.site, plan.layers[:3], plan.label_weight[0]
        ('attention', (1, 2, 3), tensor(0.8000))
    """

    def __init__(self, method: Method, num_layers: int) -> None:
        self.method = method
        self.layers = method.resolve_layers(num_layers)

    def settings(self) -> dict[str, Any]:
        """How this mixes, as plain data for a config or a model card."""
        described = ("name", "summary", "paper")
        values = {field.name: getattr(self.method, field.name) for field in fields(Method)}
        settings = {"method": self.method.name}
        settings |= {name: value for name, value in values.items() if name not in described}
        settings["layers"] = list(self.layers)
        ratio = {} if self.method.ratio is None else asdict(self.method.ratio)
        settings["ratio"] = {name: value for name, value in ratio.items() if value is not None}
        return settings

    def plan(self, batch: Mapping[str, Any], labels: Tensor, key: StepKey, progress: float = 0.0) -> PairPlan | None:
        """The plan of one micro-batch, on the device of the labels; None when the step is a plain one.

        Nothing is mixed by the method `none`, outside `start` and `stop`, when the coin of `prob` says so, when every
        row is its own partner (as in a batch of one), or when every drawn ratio is 1 in float32.

        Args:
            batch: the model's inputs; `skip` reads their `attention_mask`.
            labels: `[batch, ...]`.
            key: names the micro-batch; all randomness follows from it.
            progress: the finished fraction of the training, in [0, 1].
        """
        method, rows = self.method, len(labels)
        if method.site is None or not within(progress, method.start, method.stop):
            return None
        generator = key.generator()
        mixed = coin(generator, method.prob)
        partner = PARTNERS[method.partner](generator, rows)
        ratio = method.ratio.draw(generator, rows if method.per_sample else 1)
        if not mixed or (partner == np.arange(rows)).all() or (ratio == 1).all():
            return None
        site, layers = self._place(generator)
        weight = torch.from_numpy(ratio)
        label_weight = weight.expand(rows)
        if method.label_weight == "compounded":
            label_weight = compounded_share(label_weight, len(layers))
        plan = PairPlan(
            partner=torch.from_numpy(partner),
            weight=weight.reshape(-1, 1, 1) if method.per_sample else weight[0],
            site=site,
            layers=layers,
            label_weight=label_weight,
            attention_mask="own" if method.attention_mask == "skip" or site == "pooled" else method.attention_mask,
            clean_weight=method.clean_weight if method.clean == "average" else None,
        ).to(labels.device)
        if method.attention_mask == "skip" and batch.get("attention_mask") is not None and site != "pooled":
            return plan.skip_padding(batch["attention_mask"])
        return plan

    def _place(self, generator: np.random.Generator) -> tuple[str, tuple[int, ...]]:
        """The site and the layers of one batch."""
        if not self.method.one_layer:
            return self.method.site, self.layers
        layer = self.layers[generator.integers(len(self.layers))]
        return ("pooled", ()) if layer == "pooled" else (self.method.site, (layer,))
