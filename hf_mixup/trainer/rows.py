"""Whether a training set is one of the package `datasets`, which need not be installed."""

from __future__ import annotations

import sys
from typing import Any


def is_dataset(rows: Any) -> bool:
    """Whether it is a `datasets.Dataset`: where that package is not imported, nothing is one.

    Example:
        >>> is_dataset([{"input_ids": [2, 3], "label": 0}])
        False
    """
    package = sys.modules.get("datasets")
    return package is not None and isinstance(rows, package.Dataset)
