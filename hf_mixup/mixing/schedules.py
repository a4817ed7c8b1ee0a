"""When to mix."""

import numpy as np


def coin(generator: np.random.Generator, probability: float) -> bool:
    """True with the given probability in [0, 1]; always draws one number, so that later draws do not depend on it.

    Example:
        >>> coin(np.random.default_rng(0), 1.0)
        True
    """
    return bool(generator.random() < probability)


def within(progress: float, start: float, stop: float) -> bool:
    """Whether the finished fraction of the training lies in `[start, stop)`.

    Example:
        >>> [within(progress, 0.5, 1.0) for progress in (0.0, 0.49, 0.5, 0.99)]
        [False, False, True, True]
    """
    return start <= progress < stop
