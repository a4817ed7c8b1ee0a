"""When to mix."""

import numpy as np


def coin(generator: np.random.Generator, probability: float) -> bool:
    """True with the given probability in [0, 1]; always draws one number, so that later draws do not depend on it.

    Example:
        >>> coin(np.random.default_rng(0), 1.0)
        True
    """
    return bool(generator.random() < probability)
