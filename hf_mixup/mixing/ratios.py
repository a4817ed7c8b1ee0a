"""How much of the own row is kept: the distribution of the mixing ratio lambda."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

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
        alpha: > 0, finite; for the three Beta kinds.
        draws: >= 1; for `max-of-n`.
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
        if self.kind not in RATIOS:
            raise ValueError(f"mixup_ratio={self.kind!r} is unknown: choose one of {', '.join(RATIOS)}.")
        needed = {"constant": {"lam"}, "max-of-n": {"alpha", "draws"}}.get(self.kind, {"alpha"})
        for name, option in (("alpha", "mixup_alpha"), ("draws", "mixup_draws"), ("lam", "mixup_lambda")):
            value = getattr(self, name)
            if value is None and name in needed:
                raise ValueError(f"mixup_ratio={self.kind!r} needs {option}: give it a value.")
            if value is not None and name not in needed:
                raise ValueError(f"{option}={value} is not used by mixup_ratio={self.kind!r}: leave it out.")
        if self.alpha is not None and not (0 < self.alpha < math.inf):
            raise ValueError(f"mixup_alpha={self.alpha} is not allowed: give a finite number above 0.")
        if self.draws is not None and (self.draws != int(self.draws) or self.draws < 1):
            raise ValueError(f"mixup_draws={self.draws} is not allowed: give a whole number of at least 1.")
        if self.lam is not None and not (0 <= self.lam <= 1):
            raise ValueError(f"mixup_lambda={self.lam} is not allowed: give a number from 0 to 1.")

    def draw(self, generator: np.random.Generator, size: int) -> np.ndarray:
        """`size` independent ratios, `[size]` float32 in [0, 1]."""
        if self.kind == "constant":
            ratios = np.full(size, self.lam)
        elif self.kind == "max-of-n":
            ratios = generator.beta(self.alpha, self.alpha, (size, self.draws)).max(axis=1)
        else:
            ratios = generator.beta(self.alpha, self.alpha, size)
            if self.kind == "beta-max":
                ratios = np.maximum(ratios, 1 - ratios)
        return ratios.astype(np.float32)
