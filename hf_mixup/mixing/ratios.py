"""How much of the own row is kept: the distribution of the mixing ratio lambda."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from hf_mixup.mixing.checks import (
    check_choice,
    check_inner_share,
    check_positive,
    check_share,
    check_type,
    check_whole,
    shown,
)

# Of a step: more take longer than the rest of it, or fill the memory.
_MOST_DRAWS = _MOST_POINTS = 1000
RATIOS = ("beta", "beta-max", "max-of-n", "constant")


@dataclass(frozen=True)
class Ratio:
    r"""The distribution of lambda, the own row's share.

    - `beta`: $\lambda \sim Beta(\alpha, \alpha)$ (mixup, Zhang et al. 2018, https://arxiv.org/abs/1710.09412).
    - `beta-max`: $\lambda = \max(\lambda', 1 - \lambda')$, $\lambda' \sim Beta(\alpha, \alpha)$, so that the own row
      leads (MixMatch, Berthelot et al. 2019, https://arxiv.org/abs/1905.02249).
    - `max-of-n`: the largest of `draws` draws from $Beta(\alpha, \alpha)$ (AMPLIFY, Yang et al. 2023,
      https://arxiv.org/abs/2309.12689).
    - `constant`: `lam` in every step.

    Args:
        kind: one of the above.
        alpha: from 1e-6 to 1e6; for the three Beta kinds.
        draws: from 1 to 1000; for `max-of-n`.
        lam: in [0, 1]; for `constant`.

    Raises:
        ValueError: an unknown kind, or a parameter that is missing, not used by the kind, or out of range.

    Example:
        >>> Ratio("constant", lam=0.5).draw(np.random.default_rng(0), 2).tolist()
        [0.5, 0.5]
    """

    kind: str
    alpha: float | None = None
    draws: int | None = None
    lam: float | None = None

    def __post_init__(self) -> None:
        check_choice("mixup_ratio", self.kind, RATIOS)
        needed = {"constant": {"lam"}, "max-of-n": {"alpha", "draws"}}.get(self.kind, {"alpha"})
        for name, option in (("alpha", "mixup_alpha"), ("draws", "mixup_draws"), ("lam", "mixup_lambda")):
            value = getattr(self, name)
            if value is None and name in needed:
                raise ValueError(f"mixup_ratio={self.kind!r} needs {option}: give it a value.")
            if value is not None and name not in needed:
                other = {"draws": "max-of-n", "lam": "constant"}.get(name, "beta")
                raise ValueError(
                    f"{option}={shown(value)} is not used by mixup_ratio={self.kind!r}: add mixup_ratio={other!r} (in "
                    f'with_options ratio="{other}"), or leave it out.'
                )
        if self.alpha is not None:
            check_positive("mixup_alpha", self.alpha)
        if self.draws is not None:
            check_whole("mixup_draws", self.draws, highest=_MOST_DRAWS)
        if self.lam is not None:
            check_share("mixup_lambda", self.lam)

    def draw(self, generator: np.random.Generator, size: int) -> np.ndarray:
        """`size` independent ratios, `[size]` float32 in [0, 1]."""
        check_type("generator", generator, np.random.Generator, "np.random.default_rng(SEED)")
        check_whole("size", size)
        if self.kind == "constant":
            ratios = np.full(size, self.lam)
        elif self.kind == "max-of-n":
            ratios = generator.beta(self.alpha, self.alpha, (size, self.draws)).max(axis=1)
        else:
            ratios = generator.beta(self.alpha, self.alpha, size)
            if self.kind == "beta-max":
                ratios = np.maximum(ratios, 1 - ratios)
        return ratios.astype(np.float32)


@dataclass(frozen=True)
class Spans:
    """Spans of tokens are swapped; what is left of the row follows from their length.

    Args:
        window: the share of a segment that is swapped, in (0, 1).

    Raises:
        ValueError: another window.
    """

    window: float = 0.1

    def __post_init__(self) -> None:
        check_inner_share("window", self.window)


BATCH_WEIGHTS = ("softmax-beta", "softmax-uniform", "pairs")


@dataclass(frozen=True)
class BatchWeights:
    r"""The distribution of the weights with which the whole batch is mixed.

    - `softmax-beta`: for each point and feature the softmax over the batch of draws from $Beta(\alpha, \alpha)$,
      divided by the temperature (BatchMixup, Yin et al.).
    - `softmax-uniform`: for each point the softmax over the batch of uniform draws from [0, 1), divided by the
      temperature (the code of BatchMixup).
    - `pairs`: all ordered pairs of rows, a row with itself among them, each set of pairs with one
      $\lambda \sim Beta(\alpha, \alpha)$ (the standard mixup that BatchMixup is compared with).

    Args:
        kind: one of the above.
        points: how many points are mixed of a batch, from 1 to 1000; for `pairs`, how many ratios are drawn, each for
            all pairs.
        alpha: from 1e-6 to 1e6; for `softmax-beta` and `pairs`.
        temperature: from 1e-6 to 1e6; for the softmax kinds. Low temperatures let single rows lead; at 1, with
            draws from [0, 1], no row has more than e times the weight of another.

    Raises:
        ValueError: an unknown kind, or a parameter that is missing, not used by the kind, or out of range.

    Example:
        >>> weights = BatchWeights("softmax-uniform", points=3).draw(np.random.default_rng(0), rows=4, features=2)
        >>> weights.shape, weights.sum(dim=1)
        (torch.Size([3, 4]), tensor([1., 1., 1.]))
    """

    kind: str
    points: int
    alpha: float | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, BATCH_WEIGHTS)
        check_whole("mixup_points", self.points, highest=_MOST_POINTS)
        unused = {"softmax-uniform": "alpha", "pairs": "temperature"}.get(self.kind)
        for name in ("alpha", "temperature"):
            value = getattr(self, name)
            if name == unused and value is not None:
                raise ValueError(f"mixup_{name}={value!r} is not used by this method: leave it out.")
            if name != unused:
                check_positive(f"mixup_{name}", value)

    def draw(
        self, generator: np.random.Generator, rows: int, features: int, device: torch.device | str = "cpu"
    ) -> torch.Tensor:
        """The weights of one batch: `[points, rows, features]` for `softmax-beta`, `[points, rows]` for
        `softmax-uniform`, `[points * rows * rows, rows]` for `pairs`; float32, each summing to 1 over the rows.
        """
        check_type("generator", generator, np.random.Generator, "np.random.default_rng(SEED)")
        check_whole("rows", rows)
        if self.kind == "softmax-beta":
            check_whole("features", features)
        if self.kind == "pairs":
            own = torch.eye(rows, device=device).repeat_interleave(rows, dim=0)
            theirs = torch.eye(rows, device=device).repeat(rows, 1)
            ratios = _on(device, generator.beta(self.alpha, self.alpha, (self.points, 1, 1)))
            return (ratios * own + (1 - ratios) * theirs).reshape(-1, rows)
        shape = (self.points, rows) if self.kind == "softmax-uniform" else (self.points, rows, features)
        # Beta(1, 1) is uniform, and uniform numbers are drawn much faster, and where they are needed.
        if self.alpha in (None, 1):
            seeded = torch.Generator(device).manual_seed(int(generator.integers(2**62)))
            draws = torch.rand(shape, generator=seeded, device=device)
        else:
            draws = _on(device, generator.beta(self.alpha, self.alpha, shape))
        return torch.softmax(draws / self.temperature, dim=1)


def _on(device: torch.device | str, draws: np.ndarray) -> torch.Tensor:
    """Draws of the host as float32 on a device, for which the host does not wait."""
    values = torch.from_numpy(draws.astype(np.float32))
    if torch.device(device).type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
