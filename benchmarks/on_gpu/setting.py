"""What a check is told, what it returns, and the little that several of them need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch


class Skip(Exception):
    """What this machine, or what was given, does not allow to check."""


class Number(NamedTuple):
    """A measured number, and the most that it may be; None where it is only told."""

    value: float
    most: float | None = None


Check = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class Setting:
    """What a part is told.

    Args:
        device: `cuda` or `cpu`, where the sizes are small ones.
        scratch: a folder for files that nobody needs afterwards.
        out: the folder of the results.
        threads: how many threads this process may take.
        until: the time of `time.monotonic()` by which the part is stopped.
        model, data: the folders of a model and of data sets, for the evidence.
        jobs: how many runs are made at once there.
    """

    device: str
    scratch: Path
    out: Path
    threads: int = 1
    until: float = float("inf")
    model: str | None = None
    data: str | None = None
    jobs: int = 1

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    @property
    def training(self) -> dict[str, Any]:
        """The options that let a training run on the device."""
        return {"use_cpu": not self.cuda}

    def folder(self, name: str) -> Path:
        """A new folder among the scratch files."""
        path = self.scratch / name.replace(" ", "_")
        path.mkdir(parents=True, exist_ok=True)
        return path

    def needs_cuda(self) -> None:
        """Raise `Skip` on a CPU."""
        if not self.cuda:
            raise Skip("needs CUDA")


def error_of(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The norm of the difference over that of what is expected, both in float64 on the CPU."""
    found, expected = (each.detach().double().cpu() for each in (found, expected))
    return (torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected)).item()


def gradient_of(model: torch.nn.Module) -> torch.Tensor:
    """All gradients in one vector, in float64 on the CPU; 0 where a parameter has none."""
    parts = (torch.zeros_like(each) if each.grad is None else each.grad for each in model.parameters())
    return torch.cat([part.detach().double().cpu().flatten() for part in parts])


def weights_of(model: torch.nn.Module) -> torch.Tensor:
    """A copy of all weights in one vector, in float64 on the CPU."""
    return torch.cat([each.detach().double().cpu().flatten() for each in model.parameters()])


@contextmanager
def deterministic(warn_only: bool = False) -> AbstractContextManager[None]:
    """Allow only deterministic algorithms inside: torch raises for any other, or warns with `warn_only`."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
