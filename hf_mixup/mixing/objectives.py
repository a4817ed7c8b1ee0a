"""What is minimised: per-row losses and weights of a plain or a mixed batch, and their reduction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_mixup.mixing.plan import BatchPlan, Plan, SpanPlan, _check_choice
from hf_mixup.mixing.targets import mix_targets

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
IGNORE_INDEX = -100


def infer_problem_type(num_labels: int, labels: Tensor) -> str:
    """The problem type that transformers' heads infer from their first labelled batch.

    Example:
        >>> infer_problem_type(3, torch.tensor([0, 2]))
        'single_label_classification'
    """
    if num_labels == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


@dataclass(frozen=True, eq=False)
class Objective:
    r"""The training loss of a (mixed) batch, row by row, in at least float32.

    With own labels $y_i$, partner labels $y'_i = y_{partner(i)}$ and label weight $\lambda_i$:

    - single-label classification: $\lambda_i CE(z_i, y_i) + (1 - \lambda_i) CE(z_i, y'_i)$; labels are class ids
      `[batch]`, -100 meaning no label, or soft labels `[batch, classes]`. With label smoothing both terms are the
      smoothed cross-entropy.
    - multi-label classification: the same two terms with the binary cross-entropy, averaged over the classes.
    - regression: the squared error to $\lambda_i y_i + (1 - \lambda_i) y'_i$.

    Args:
        problem_type: `single_label_classification`, `multi_label_classification` or `regression`.
        class_weights: `[classes]`, for single-label classification: every term is multiplied by the weight of its
            label, and the mean is taken over these weights, as in `torch.nn.CrossEntropyLoss`.
        label_smoothing: in [0, 1), for single-label classification.

    Raises:
        ValueError: an unknown problem type, or class weights or label smoothing where they have no meaning.

    Example:
        >>> objective = Objective("regression")
        >>> losses, weights = objective(torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 2.0]))
        >>> weighted_mean(losses, weights)
        tensor(0.5000)
    """

    problem_type: str
    class_weights: Tensor | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check_choice("problem_type", self.problem_type, PROBLEM_TYPES)
        if self.problem_type != "single_label_classification":
            if self.class_weights is not None:
                raise ValueError(
                    f"class_weights have no meaning for {self.problem_type}: they weigh the classes of "
                    "single_label_classification; leave them out."
                )
            if self.label_smoothing:
                raise ValueError(
                    f"label smoothing has no meaning for {self.problem_type}: it smooths the labels of "
                    "single_label_classification; set it to 0."
                )

    def __call__(
        self, logits: Tensor, labels: Tensor, plan: Plan | None = None, label_weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The weighted loss and the weight of each row; the batch's loss is `losses.sum() / weights.sum()`.

        Args:
            logits: `[rows, classes]`, of the plain batch or of the model's mixed forward pass; for regression
                `[rows, 1]` or `[rows, targets]`.
            labels: `[batch]` class ids or floats, or `[batch, classes]` floats.
            plan: how the batch was mixed; None for a plain batch.
            label_weight: `[batch]`, the own label's share where only the model knew it (its output's `label_weight`);
                default: the plan's.

        Returns:
            Two tensors `[batch]`, for a `BatchPlan` `[points]`. A row one of whose labels is missing counts with the
            other's weight.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if plan is None:
            return self._plain(logits, labels)
        if isinstance(plan, BatchPlan):
            return self._batch(logits, labels, plan)
        if isinstance(plan, SpanPlan):
            return self._span(logits, labels, plan)
        share = (plan.label_weight if label_weight is None else label_weight).to(logits.dtype)
        if plan.clean_weight is None:
            return self._pairs(logits, labels, plan.partner, share)
        clean_logits, mixed_logits = logits.chunk(2)
        clean, mixed = self._plain(clean_logits, labels), self._pairs(mixed_logits, labels, plan.partner, share)
        return _average(clean[0], mixed[0], plan.clean_weight), _average(clean[1], mixed[1], plan.clean_weight)

    def weights(self, labels: Tensor, plan: Plan | None = None) -> Tensor:
        """The weights that `__call__` returns, known before there are logits.

        Where only the model will know the label weights, each row counts with the weight of its own label: the same,
        if all rows have a label and all classes the same weight.
        """
        own = self._label_weights(labels)
        if plan is None:
            return own
        if isinstance(plan, BatchPlan):
            return _per_row(plan).to(own.dtype) @ own
        if plan.label_weight is None or self.problem_type == "regression":
            return own
        share = plan.label_weight.to(own.dtype)
        mixed = share * own + (1 - share) * own.index_select(0, plan.partner)
        return mixed if plan.clean_weight is None else _average(own, mixed, plan.clean_weight)

    def _span(self, logits: Tensor, labels: Tensor, plan: SpanPlan) -> tuple[Tensor, Tensor]:
        """The part that one of the two passes has in the loss."""
        if plan.label_weight is None:
            losses, weights = self._plain(logits, labels)
        else:
            losses, weights = self._pairs(logits, labels, plan.partner, plan.label_weight.to(logits.dtype))
        return plan.loss_weight * losses, plan.loss_weight * weights

    def _plain(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.problem_type == "regression":
            return self._squared_error(logits, labels.to(logits.dtype).reshape(logits.shape))
        if self.problem_type == "multi_label_classification":
            return self._binary_cross_entropy(logits, labels)
        return self._cross_entropy(logits, labels)

    def _pairs(self, logits: Tensor, labels: Tensor, partner: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        if self.problem_type == "regression":
            targets = mix_targets(labels.to(logits.dtype).reshape(logits.shape), partner, share)
            return self._squared_error(logits, targets)
        own_loss, own_weight = self._plain(logits, labels)
        their_loss, their_weight = self._plain(logits, labels.index_select(0, partner))
        return share * own_loss + (1 - share) * their_loss, share * own_weight + (1 - share) * their_weight

    def _batch(self, logits: Tensor, labels: Tensor, plan: BatchPlan) -> tuple[Tensor, Tensor]:
        r"""$\sum_b w_{i,b} CE(z_i, y_b)$, or $-\log \sigma(\langle \hat x_i, \hat y_i \rangle)$."""
        if self.problem_type != "single_label_classification":
            raise ValueError(
                f"Mixing whole batches has no meaning for {self.problem_type}: it is for single_label_classification; "
                "choose a method that mixes pairs."
            )
        weights = _per_row(plan).to(logits.dtype)
        row_weights = self._label_weights(labels).to(logits.dtype)
        class_weights = logits.new_ones(logits.shape[-1]) if self.class_weights is None else self.class_weights
        class_weights = class_weights.to(logits)
        valid = _has_label(labels).to(logits.dtype)
        if labels.ndim > 1:
            targets = labels.to(logits.dtype) * valid.unsqueeze(-1)
        else:
            targets = F.one_hot(labels.clamp(min=0), logits.shape[-1]) * valid.unsqueeze(-1)
        if plan.dot_product:
            if self.label_smoothing:
                raise ValueError("Label smoothing has no meaning for the dot-product loss of batchmixup: set it to 0.")
            point_weights = weights @ row_weights
            return point_weights * F.softplus(-(logits * targets).sum(dim=(1, 2))), point_weights
        smooth = self.label_smoothing
        targets = (1 - smooth) * targets + smooth / len(class_weights) * valid.unsqueeze(-1)
        # The cross-entropy is linear in its target, so the targets are mixed instead of the losses.
        losses = -((weights @ (targets * class_weights)) * logits.log_softmax(dim=-1)).sum(dim=-1)
        return losses, weights @ row_weights

    def _label_weights(self, labels: Tensor) -> Tensor:
        if self.problem_type == "regression":
            return torch.ones(labels.shape[0], device=labels.device)
        valid = _has_label(labels)
        if self.class_weights is None:
            return valid.float()
        class_weights = self.class_weights.to(labels.device)
        if labels.ndim > 1:
            return (labels.to(class_weights.dtype) @ class_weights) * valid
        return class_weights[labels * valid] * valid

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        class_weights = None if self.class_weights is None else self.class_weights.to(logits)
        weights = self._label_weights(labels).to(logits.dtype)
        if labels.ndim > 1:
            labels = labels.to(logits.dtype) * _has_label(labels).unsqueeze(-1)
        losses = F.cross_entropy(
            logits,
            labels,
            weight=class_weights,
            ignore_index=IGNORE_INDEX,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        # A row without a soft label still gets a smoothing term, so its loss is switched off by its weight.
        return torch.where(weights > 0, losses, 0.0), weights

    def _binary_cross_entropy(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        weights = self._label_weights(labels).to(logits.dtype)
        targets = labels.to(logits.dtype).clamp(min=0.0)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=-1)
        return losses * weights, weights

    def _squared_error(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        losses = F.mse_loss(logits, targets, reduction="none").flatten(1).mean(dim=-1)
        return losses, torch.ones_like(losses)


def _per_row(plan: BatchPlan) -> Tensor:
    """The weight of each row in each point, `[points, batch]`: of its features, the mean."""
    return plan.weights if plan.weights.ndim == 2 else plan.weights.mean(dim=-1)


def _average(clean: Tensor, mixed: Tensor, clean_weight: float) -> Tensor:
    return clean_weight * clean + (1 - clean_weight) * mixed


def _has_label(labels: Tensor) -> Tensor:
    valid = labels != IGNORE_INDEX
    return valid.all(dim=-1) if labels.ndim > 1 else valid


def weighted_mean(losses: Tensor, weights: Tensor, total_weight: Tensor | None = None) -> Tensor:
    """`losses.sum() / total_weight`: the mean over the rows that have a label; 0 if none has.

    Args:
        losses: `[batch]`, each already multiplied by its weight.
        weights: `[batch]`.
        total_weight: the weight of the whole accumulated group of batches on all processes; default: of this batch.
    """
    total = weights.sum() if total_weight is None else total_weight.to(losses)
    return losses.sum() / torch.where(total > 0, total, torch.ones_like(total))
