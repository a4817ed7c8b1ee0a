"""The mean over the batches of one optimizer step, where the weights of mixed rows are known only after them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class LateWeights:
    r"""Corrects the losses and gradients of one optimizer step that were divided by an assumed weight.

    Where the model finds the label weights (`attentionmix`, `ssmix`, a learned gate), the weight $W$ of the mixed rows
    is known after their forward passes, but every backward pass needs a divisor before. All of them take the assumed
    weight $A$, and in the end losses and gradients are multiplied by $A / W$: both are linear in that factor.

    Args:
        assumed: `[]`, the same on all processes.

    Example:
        >>> late = LateWeights(torch.tensor(4.0))
        >>> late.add(torch.tensor([0.75, 0.25]))
        >>> late.factor(gather=lambda total: total)
        tensor(4.)
    """

    def __init__(self, assumed: Tensor) -> None:
        self.assumed = assumed
        self.weight = torch.zeros_like(assumed)
        self.losses = torch.zeros_like(assumed)

    def add(self, weights: Tensor) -> None:
        """Count the rows of one pass, `[batch]`."""
        self.weight = self.weight + weights.detach().sum()

    def add_loss(self, loss: Tensor) -> None:
        """Remember what one pass reported."""
        self.losses = self.losses + loss

    def factor(self, gather: Callable[[Tensor], Tensor]) -> Tensor:
        """$A / W$ over all processes, `[]`; 0 where no row has a weight."""
        weight = gather(self.weight).sum()
        return torch.where(weight > 0, self.assumed / torch.where(weight > 0, weight, 1.0), 0.0)


def scale_gradients(module: nn.Module, factor: Tensor) -> None:
    """Multiply the gradients of a module by a number, `[]`, in place; those that are sharded too."""
    for parameter in module.parameters():
        gradient = parameter.grad
        if gradient is not None:
            (gradient.to_local() if isinstance(gradient, DTensor) else gradient).mul_(factor)
