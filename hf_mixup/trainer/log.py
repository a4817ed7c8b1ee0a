"""What was mixed since the last log."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class MixupLog:
    """Sums over the batches since the last log, kept on the device until then."""

    def __init__(self) -> None:
        self.batches = 0
        self.mixed = 0
        self.lambdas = 0
        self.lambda_sum: Tensor | float = 0.0
        self.loss_sum: Tensor | float = 0.0
        self.sum_before_group: Tensor | float = 0.0
        self.label_weight: Tensor | None = None

    def add(self, loss: Tensor, mixed: bool, label_weight: Tensor | None) -> None:
        self.batches += 1
        self.label_weight = label_weight
        # Where whole batches are mixed there is no own row, and its share stays out of the mean.
        self.lambdas += not mixed or label_weight is not None
        if label_weight is not None:
            self.lambda_sum = self.lambda_sum + label_weight.detach().float().mean()
        elif not mixed:
            self.lambda_sum = self.lambda_sum + 1.0
        if mixed:
            self.mixed += 1
            self.loss_sum = self.loss_sum + loss.detach()

    def add_clean(self, loss: Tensor) -> None:
        """The part of clean rows that went through the model before the mixed ones of the same batch."""
        self.loss_sum = self.loss_sum + loss.detach()

    def start_group(self) -> None:
        """The batches of one optimizer step begin, whose losses `scale_group` multiplies in the end."""
        self.sum_before_group = self.loss_sum

    def scale_group(self, factor: Tensor) -> None:
        """Multiply the losses since `start_group`."""
        self.loss_sum = self.sum_before_group + factor * (self.loss_sum - self.sum_before_group)

    def last_lambda(self) -> float:
        return 1.0 if self.label_weight is None else self.label_weight.float().mean().item()

    def sums(self, gather: Any, device: torch.device) -> np.ndarray:
        """The sums over the batches of all processes, for `means`."""
        sums = [self.batches, self.mixed, self.lambdas, float(self.lambda_sum), float(self.loss_sum)]
        return np.array(gather(torch.tensor([sums], device=device)).sum(dim=0).tolist())


def means(sums: np.ndarray) -> dict[str, float]:
    """What is logged of the sums of a `MixupLog`, or of several added up."""
    batches, mixed, lambdas, lambda_sum, loss_sum = sums.tolist()
    logged = {"mixup_applied": mixed / batches} if batches else {}
    if lambdas:
        logged["mixup_lambda"] = lambda_sum / lambdas
    if mixed:
        logged["mixup_loss"] = loss_sum / mixed
    return logged
