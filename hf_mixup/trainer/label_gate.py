"""A learned label weight, kept beside the model: its weights are in no checkpoint file of the model's own."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FILE = "label_gate.safetensors"


class LabelGate(nn.Linear):
    r"""The own label's share as a function of the mixed vector: $\lambda_i = \sigma(g^T \tilde p_i + c)$.

    It starts at 0.5 for every row, without drawing a random number.

    Args:
        hidden_size: the size of the mixed pooled vector.

    Example:
        >>> LabelGate(4)(torch.ones(2, 4))
        tensor([0.5000, 0.5000], grad_fn=<SqueezeBackward1>)
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size, 1)

    def reset_parameters(self) -> None:
        """Zeros; called by the constructor."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """`[batch, hidden]` mixed pooled vectors as `[batch]` shares in (0, 1)."""
        return torch.sigmoid(super().forward(pooled.to(self.weight.dtype))).squeeze(-1)

    def save(self, folder: str) -> None:
        """Write the gate beside a checkpoint's files."""
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, Path(folder) / FILE)

    def load(self, folder: str) -> None:
        """Read the gate of a checkpoint."""
        self.load_state_dict(load_file(Path(folder) / FILE))
