"""Who is mixed with whom: functions from a generator and a batch size to a permutation of the rows.

Each raises a ValueError for a batch size below 1.
"""

import numpy as np

from hf_mixup.mixing.checks import check_whole


def random_partner(generator: np.random.Generator, batch_size: int) -> np.ndarray:
    """A uniformly random permutation, `[batch]` int64; a row may be its own partner (mixup, Zhang et al. 2018).

    Example:
        >>> random_partner(np.random.default_rng(0), 4).tolist()
        [2, 0, 1, 3]
    """
    check_whole("batch_size", batch_size)
    return generator.permutation(batch_size)


def flip_partner(generator: np.random.Generator, batch_size: int) -> np.ndarray:
    """The rows in reverse order; partners are each other's partners (timm, TransMix).

    Example:
        >>> flip_partner(np.random.default_rng(0), 4).tolist()
        [3, 2, 1, 0]
    """
    check_whole("batch_size", batch_size)
    return np.arange(batch_size)[::-1].copy()


def roll_partner(generator: np.random.Generator, batch_size: int) -> np.ndarray:
    """Each row's partner is the row before it; with two rows or more none is its own partner (torchvision).

    Example:
        >>> roll_partner(np.random.default_rng(0), 4).tolist()
        [3, 0, 1, 2]
    """
    check_whole("batch_size", batch_size)
    return np.roll(np.arange(batch_size), 1)


def neighbour_partner(generator: np.random.Generator, batch_size: int) -> np.ndarray:
    """Rows 0 and 1 are each other's partners, rows 2 and 3, and so on; the last of an odd number is its own.

    The order of the rows then says who is mixed with whom: `hf_mixup.trainer.LengthGroupedPairSampler` draws it.

    Example:
        >>> neighbour_partner(np.random.default_rng(0), 5).tolist()
        [1, 0, 3, 2, 4]
    """
    check_whole("batch_size", batch_size)
    return np.minimum(np.arange(batch_size) ^ 1, batch_size - 1)


PARTNERS = {"random": random_partner, "flip": flip_partner, "roll": roll_partner, "neighbour": neighbour_partner}
