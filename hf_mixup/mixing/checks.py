"""Checks of what users give; each complaint is one sentence: what was given, what is allowed, how to mend it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from types import UnionType

import numpy as np
import torch
from torch import Tensor

from hf_mixup.errors import nearest

_SMALLEST, _LARGEST = 1e-6, 1e6


def is_number(given: object) -> bool:
    """Whether it is a real number: no string, no tensor and no bool; it may still be NaN or infinite.

    Example:
        >>> is_number(0.5), is_number("0.5"), is_number(True)
        (True, False, False)
    """
    return isinstance(given, Real) and not isinstance(given, bool)


def is_whole(given: object) -> bool:
    """Whether it is a whole number; 3.0 is none, and neither is True."""
    return isinstance(given, Integral) and not isinstance(given, bool)


def check_positive(name: str, given: object) -> None:
    """Raise a ValueError unless it is a number above 0 with which single precision can compute, 1e-6 to 1e6."""
    if not is_number(given) or not _SMALLEST <= given <= _LARGEST:
        raise ValueError(
            f"{name}={shown(given)} is not allowed: give a finite number above 0, from {_SMALLEST} to {_LARGEST:,.0f}."
        )


def check_share(name: str, given: object) -> None:
    """Raise a ValueError unless it is a number from 0 to 1."""
    if not is_number(given) or not 0 <= given <= 1:
        raise ValueError(f"{name}={shown(given)} is not allowed: give a number from 0 to 1.")


def check_inner_share(name: str, given: object) -> None:
    """Raise a ValueError unless it is a number above 0 and below 1."""
    if not is_number(given) or not 0 < given < 1:
        raise ValueError(f"{name}={shown(given)} is not allowed: give a number above 0 and below 1.")


def check_whole(name: str, given: object, lowest: int = 1, highest: float = math.inf) -> None:
    """Raise a ValueError unless it is a whole number from `lowest` to `highest`."""
    if not is_whole(given) or not lowest <= given <= highest:
        upper = "" if highest == math.inf else f" and at most {highest}"
        raise ValueError(f"{name}={shown(given)} is not allowed: give a whole number of at least {lowest}{upper}.")


def check_flag(name: str, given: object) -> None:
    """Raise a ValueError unless it is True or False; the string "false" would count as true."""
    if not isinstance(given, bool | np.bool_):
        raise ValueError(f"{name}={shown(given)} is not allowed: give True or False.")


def check_choice(name: str, given: object, allowed: Iterable[str]) -> None:
    """Raise a ValueError that names the nearest choice unless it is one of the allowed names."""
    allowed = list(allowed)
    if not isinstance(given, str) or given not in allowed:
        raise ValueError(
            f"{name}={shown(given)} is unknown{did_you_mean(given, allowed)}: choose one of {', '.join(allowed)}."
        )


def did_you_mean(given: object, allowed: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"`, or nothing if no allowed name is near.

    Example:
        >>> did_you_mean("Atention", ["attention", "pooled"])
        " (did you mean 'attention'?)"
    """
    guess = nearest(str(given), allowed)
    return f" (did you mean {guess!r}?)" if guess else ""


def check_type(name: str, given: object, wanted: type | UnionType, instead: str) -> None:
    """Raise a TypeError unless it is an object of a class, or of one of several; `instead` says what to give."""
    if not isinstance(given, wanted):
        raise TypeError(f"{name}={shown(given)} is a {type(given).__name__}: give {instead}.")


def plain(given: object) -> object:
    """A number of numpy, an array or a tensor as plain Python; anything else as it is.

    Example:
        >>> plain(np.float32(0.5)), plain(torch.tensor([4, 8]))
        (0.5, [4, 8])
    """
    is_array = isinstance(given, np.generic | np.ndarray) or (isinstance(given, Tensor) and given.ndim)
    return given.tolist() if is_array else given


def plain_in_any_order(given: object) -> object:
    """As `plain`, for numbers whose order has no meaning: a set too becomes a list.

    Example:
        >>> plain_in_any_order({8, 4})
        [4, 8]
    """
    return sorted(given, key=str) if isinstance(given, set | frozenset) else plain(given)


def shown(given: object) -> str:
    """What was given, to be quoted in a sentence: on one line, and a long one cut short.

    Example:
        >>> shown("hidden"), shown(torch.zeros(2, 1))
        ("'hidden'", 'tensor([[0.], [0.]])')
    """
    try:
        text = " ".join(repr(given).split())
    except (ValueError, RecursionError):
        # Python writes no number of more than 4,300 digits, and nothing that is nested without an end.
        text = f"a {type(given).__name__} that is too long to be shown"
    return text if len(text) <= 60 else f"{text[:60]}…"


def can_read(values: Tensor) -> bool:
    """Whether the values can be looked at for free; those on a device would make the host wait for it."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()
