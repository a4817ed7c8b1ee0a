"""Who is mixed with whom: functions from a generator and a batch size to a permutation of the rows."""

import numpy as np


def random_partner(generator: np.random.Generator, batch_size: int) -> np.ndarray:
    """A uniformly random permutation, `[batch]` int64; a row may be its own partner (mixup, Zhang et al. 2018).

    Example:
        >>> random_partner(np.random.default_rng(0), 4).tolist()
        [2, 0, 1, 3]
    """
    return generator.permutation(batch_size)


PARTNERS = {"random": random_partner}
