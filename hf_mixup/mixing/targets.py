"""What the mixed label is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from hf_mixup.mixing.checks import check_type, check_whole


def mix_targets(targets: Tensor, partner: Tensor, label_weight: Tensor) -> Tensor:
    r"""$\tilde y_i = \lambda_i y_i + (1 - \lambda_i) y_{partner(i)}$, for losses that are not linear in the target.

    Args:
        targets: `[batch]` or `[batch, targets]`, floating point.
        partner: `[batch]` int64.
        label_weight: `[batch]`, the own target's share.

    Raises:
        TypeError: something that is not a tensor.
        ValueError: targets that are no floats, or shapes that do not fit each other.

    Example:
        >>> mix_targets(torch.tensor([0.0, 4.0]), torch.tensor([1, 0]), torch.tensor([0.75, 0.75]))
        tensor([1., 3.])
    """
    for name, given in (("targets", targets), ("partner", partner), ("label_weight", label_weight)):
        check_type(name, given, Tensor, "a tensor with one row for each row of the batch")
    if not targets.is_floating_point():
        raise ValueError(f"targets of {targets.dtype} cannot be mixed: give floats, such as targets.float().")
    if targets.ndim < 1 or not partner.shape == label_weight.shape == targets.shape[:1]:
        raise ValueError(
            f"targets {list(targets.shape)}, partner {list(partner.shape)} and label_weight "
            f"{list(label_weight.shape)} do not fit each other: give one partner and one weight for each row."
        )
    share = label_weight.to(targets.dtype).reshape(-1, *[1] * (targets.ndim - 1))
    return share * targets + (1 - share) * targets[partner]


def compounded_share(ratio: Tensor, layers: int) -> Tensor:
    r"""The own row's share after mixing a residual stream in several blocks with a partner that is mixed likewise.

    With partners that are each other's partner, each mix maps the own share $a$ to $\lambda a + (1 - \lambda)(1 - a)$;
    from $a = 1$, $L$ of them leave $(1 + (2 \lambda - 1)^L) / 2$, if what the blocks add is left aside.

    Args:
        ratio: lambda, any shape.
        layers: the number of mixed blocks, >= 1.

    Raises:
        ValueError: another number of blocks.

    Example:
        >>> compounded_share(torch.tensor(0.9), 2)
        tensor(0.8200)
    """
    check_whole("layers", layers)
    return (1 + (2 * ratio - 1) ** layers) / 2


def balanced_class_weights(labels: Sequence[int], num_labels: int) -> list[float]:
    """scikit-learn's "balanced" weights, $n / (C_{present} \\cdot n_c)$; a class without rows gets 1.

    Args:
        labels: class ids of the training rows; -100 (no label) is left out.
        num_labels: the number of classes of the model.

    Raises:
        ValueError: labels that are no class ids of the model, or none at all.

    Example:
        >>> balanced_class_weights([0, 0, 0, 1], num_labels=3)
        [0.6666666666666666, 2.0, 1.0]
    """
    check_whole("num_labels", num_labels)
    labels = np.asarray(labels)
    if labels.size and (labels.ndim != 1 or labels.dtype.kind not in "iu"):
        raise ValueError(
            f"balanced class weights count the rows of each class, but the labels are {labels.dtype} of shape "
            f"{list(labels.shape)}: give one class id a row, as a whole number."
        )
    labels = labels[labels != -100]
    if not len(labels):
        raise ValueError("Balanced class weights need rows with a label, and there are none: give the labels.")
    wrong = labels[(labels < 0) | (labels >= num_labels)]
    if len(wrong):
        raise ValueError(
            f"The label {wrong[0]} is not one of the {num_labels} classes: give class ids from 0 to {num_labels - 1}, "
            "or -100 for a row without a label."
        )
    weights = np.ones(num_labels)
    present = np.unique(labels)
    weights[present] = compute_class_weight("balanced", classes=present, y=labels)
    return weights.tolist()
