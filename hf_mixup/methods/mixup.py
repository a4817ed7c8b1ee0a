"""Mixup: a method at work on a model of a certain depth. It draws the plan of each batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_mixup.methods.method import Method
from hf_mixup.mixing.partners import PARTNERS
from hf_mixup.mixing.plan import PairPlan, StepKey
from hf_mixup.mixing.schedules import coin


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
        method = self.method
        ratio = {} if method.ratio is None else asdict(method.ratio)
        return {
            "method": method.name,
            "site": method.site,
            "layers": list(self.layers),
            "ratio": {name: value for name, value in ratio.items() if value is not None},
            "partner": method.partner,
            "per_sample": method.per_sample,
            "prob": method.prob,
            "attention_mask": method.attention_mask,
        }

    def plan(self, batch: Mapping[str, Any], labels: Tensor, key: StepKey) -> PairPlan | None:
        """The plan of one micro-batch, on the CPU; None when nothing would be mixed, so that the step is a plain one.

        Nothing is mixed by the method `none`, when the coin of `prob` says so, when every row is its own partner (as
        in a batch of one), or when every drawn ratio is 1 in float32.

        Args:
            batch: the model's inputs.
            labels: `[batch, ...]`.
            key: names the micro-batch; all randomness follows from it.
        """
        method, rows = self.method, len(labels)
        if method.site is None:
            return None
        generator = key.generator()
        mixed = coin(generator, method.prob)
        partner = PARTNERS[method.partner](generator, rows)
        ratio = method.ratio.draw(generator, rows if method.per_sample else 1)
        if not mixed or (partner == np.arange(rows)).all() or (ratio == 1).all():
            return None
        weight = torch.from_numpy(ratio)
        return PairPlan(
            partner=torch.from_numpy(partner),
            weight=weight.reshape(-1, 1, 1) if method.per_sample else weight[0],
            site=method.site,
            layers=self.layers,
            attention_mask=method.attention_mask,
        )
