"""When to mix."""

import numpy as np

from hf_mixup.mixing.checks import check_share


def coin(generator: np.random.Generator, probability: float) -> bool:
    """True with the given probability in [0, 1]; always draws one number, so that later draws do not depend on it.

    Raises:
        ValueError: another probability.

    Example:
        >>> coin(np.random.default_rng(0), 1.0)
        True
    """
    check_share("probability", probability)
    return bool(generator.random() < probability)


def within(progress: float, start: float, stop: float) -> bool:
    """Whether the finished fraction of the training lies in `[start, stop)`.

    Raises:
        ValueError: a progress that is no fraction from 0 to 1, such as a number of steps.

    Example:
        >>> [within(progress, 0.5, 1.0) for progress in (0.0, 0.49, 0.5, 0.99)]
        [False, False, True, True]
    """
    check_share("progress", progress)
    return start <= progress < stop
