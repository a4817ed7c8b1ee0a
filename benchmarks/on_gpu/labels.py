"""What needs the package `datasets`: its columns are looked at before a training starts."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from on_gpu.setting import Check, Number, Setting, Skip
from tests.tiny import tiny_dataset
from tests.trainer.runs import STRONG, train


def checks(setting: Setting) -> dict[str, Check]:
    """Labels that would end the process inside a kernel of a GPU."""
    return {"wrong labels are refused on the host": partial(wrong_labels, setting)}


def wrong_labels(setting: Setting) -> dict[str, Any]:
    """A label beyond the classes is a sentence before the first batch, and the device stays usable."""
    rows = tiny_dataset(label=[0, 1, 2, 7] * 9 + [0])
    if isinstance(rows, list):
        raise Skip("needs the package datasets, whose columns are looked at: give its wheels by --wheels")
    said = ""
    try:
        train(setting.folder("labels"), dataset=rows, **setting.training, **STRONG)
    except ValueError as error:
        said = str(error)
    usable = torch.ones(2, device=setting.device).sum().item() == 2
    return {"not refused": Number("train_dataset" not in said, 0), "device lost": Number(not usable, 0), "said": said}
