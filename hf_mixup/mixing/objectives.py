"""What is minimised: per-row losses and weights of a plain or a mixed batch, and their reduction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_mixup.mixing.checks import can_read, check_choice, check_type, check_whole, is_number
from hf_mixup.mixing.plan import BatchPlan, PairPlan, Plan, SpanPlan
from hf_mixup.mixing.targets import mix_targets

MULTI_LABEL = "multi_label_classification"
PROBLEM_TYPES = ("single_label_classification", MULTI_LABEL, "regression")
IGNORE_INDEX = -100
# Soft labels in half precision sum to 1 with an error of this size.
SOFT_LABEL_TOLERANCE = 1e-2


def infer_problem_type(num_labels: int, labels: Tensor) -> str:
    """The problem type that transformers' heads infer from their first labelled batch.

    Of rows with several whole numbers or bools, which the heads cannot take, it is `multi_label_classification`.

    Raises:
        ValueError: a number of labels below 1.

    Example:
        >>> infer_problem_type(3, torch.tensor([0, 2]))
        'single_label_classification'
    """
    check_whole("num_labels", num_labels)
    check_type("labels", labels, Tensor, "a tensor [batch, ...]")
    if num_labels == 1:
        return "regression"
    return MULTI_LABEL if labels.is_floating_point() or has_several(labels) else "single_label_classification"


def has_several(labels: Tensor) -> bool:
    """Whether each row has several numbers, so that they are no class ids; the heads take `[batch, 1]` for ids."""
    return labels.ndim > 1 and labels.shape[1] > 1


@dataclass(frozen=True, eq=False)
class Objective:
    r"""The training loss of a (mixed) batch, row by row, in at least float32.

    With own labels $y_i$, partner labels $y'_i = y_{partner(i)}$ and label weight $\lambda_i$:

    - single-label classification: $\lambda_i CE(z_i, y_i) + (1 - \lambda_i) CE(z_i, y'_i)$; labels are class ids
      `[batch]`, -100 meaning no label, or soft labels `[batch, classes]`. With label smoothing both terms are the
      smoothed cross-entropy.
    - multi-label classification: the same two terms with the binary cross-entropy, averaged over the classes.
    - regression: the squared error to $\lambda_i y_i + (1 - \lambda_i) y'_i$; every number is a target, also -100.

    With row weights $r_i$, each term is multiplied by the weight of the row that its label comes from, as it is by the
    weight of its class: $\lambda_i r_i CE(z_i, y_i) + (1 - \lambda_i) r_{partner(i)} CE(z_i, y'_i)$. The one squared
    error of a regression is multiplied by $\lambda_i r_i + (1 - \lambda_i) r_{partner(i)}$.

    The mean of a batch is $\sum_i l_i / \sum_i w_i$ over what `__call__` returns, and that of several batches divides
    the sum of all their $l_i$ by the sum of all their $w_i$. A term without a label adds 0 to both sums.

    Args:
        problem_type: `single_label_classification`, `multi_label_classification` or `regression`.
        class_weights: `[classes]` floats of at least 0, for single-label classification: every term is multiplied by
            the weight of its label, and the mean is taken over these weights, as in `torch.nn.CrossEntropyLoss`. A
            row of weight 0 keeps the smoothing terms of the other classes.
        label_smoothing: in [0, 1), for single-label classification.

    Raises:
        ValueError: an unknown problem type, class weights or label smoothing out of range or where they have no
            meaning; when called, logits, labels and plan that do not fit each other, or labels that are none. The
            values of labels are looked at on the CPU only: elsewhere that would wait for the device.

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
        check_choice("problem_type", self.problem_type, PROBLEM_TYPES)
        if not is_number(self.label_smoothing) or not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing={self.label_smoothing!r} is not allowed: give a number from 0 and below 1."
            )
        if self.class_weights is not None:
            _check_class_weights(self.class_weights)
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
        self,
        logits: Tensor,
        labels: Tensor,
        plan: Plan | None = None,
        label_weight: Tensor | None = None,
        row_weights: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The weighted loss and the weight of each row; the batch's loss is `losses.sum() / weights.sum()`.

        Args:
            logits: `[rows, classes]`, of the plain batch or of the model's mixed forward pass; for regression
                `[rows, 1]` or `[rows, targets]`.
            labels: `[batch]` class ids or floats, or `[batch, classes]` floats.
            plan: how the batch was mixed; None for a plain batch.
            label_weight: `[batch]`, the own label's share where only the model knew it (its output's `label_weight`);
                default: the plan's.
            row_weights: `[batch]` floats of at least 0, how much each row of the data counts; default: 1 each. Of
                several classes and of mixed rows see above; a point of a whole batch counts with the mean of its rows,
                also for the dot-product loss.

        Returns:
            Two tensors `[batch]`, for a `BatchPlan` `[points]`. A row one of whose labels is missing counts with the
            other's weight.
        """
        self._check(logits, labels, plan, label_weight, row_weights)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        rows = labels, None if row_weights is None else row_weights.to(logits)
        if plan is None:
            return self._plain(logits, *rows)
        if isinstance(plan, BatchPlan):
            return self._batch(logits, *rows, plan)
        if isinstance(plan, SpanPlan):
            return self._span(logits, *rows, plan)
        share = (plan.label_weight if label_weight is None else label_weight).to(logits.dtype)
        if plan.clean_weight is None:
            return self._pairs(logits, *rows, plan.partner, share)
        clean_logits, mixed_logits = logits.chunk(2)
        clean, mixed = self._plain(clean_logits, *rows), self._pairs(mixed_logits, *rows, plan.partner, share)
        return _average(clean[0], mixed[0], plan.clean_weight), _average(clean[1], mixed[1], plan.clean_weight)

    def weights(self, labels: Tensor, plan: Plan | None = None, row_weights: Tensor | None = None) -> Tensor:
        """The weights that `__call__` returns, known before there are logits.

        Where only the model will know the label weights, each row counts with the weight of its own label: the same,
        if all rows have a label, and all rows and all classes the same weight. Otherwise divide by the sum of the
        weights that `__call__` returns, as `weighted_mean` does without `total_weight`.
        """
        if self.class_weights is not None:
            check_labels(labels, self.problem_type, len(self.class_weights))
        own = self._label_weights(labels)
        if row_weights is not None:
            check_row_weights(row_weights, labels.shape[0])
            own = own * row_weights.to(own.device)
        if plan is None:
            return own
        if isinstance(plan, BatchPlan):
            return _per_row(plan).to(own.dtype) @ own
        if plan.label_weight is None:
            return own
        share = plan.label_weight.to(own.dtype)
        mixed = share * own + (1 - share) * own.index_select(0, plan.partner)
        return mixed if plan.clean_weight is None else _average(own, mixed, plan.clean_weight)

    def _check(
        self,
        logits: Tensor,
        labels: Tensor,
        plan: Plan | None,
        label_weight: Tensor | None,
        row_weights: Tensor | None,
    ) -> None:
        """What fits together, from shapes and types; the values of the labels where they can be read for free."""
        check_type("logits", logits, Tensor, "the logits of the model's output, floats [rows, classes]")
        check_type("labels", labels, Tensor, "a tensor [batch, ...]")
        check_type("plan", plan, Plan | None, "the plan of the batch, or None for a plain one")
        check_type("label_weight", label_weight, Tensor | None, "the label_weight of the model's output, or None")
        if isinstance(plan, BatchPlan):
            check_whole_batches(self.problem_type, plan.dot_product, self.label_smoothing)
        rows = labels.shape[0] if labels.ndim else 0
        if plan is not None and plan.rows != rows:
            raise ValueError(f"The plan is for {plan.rows} rows, but there are {rows} labels: give its batch's.")
        shape = [rows]
        if isinstance(plan, BatchPlan):
            shape = [plan.weights.shape[0], rows] if plan.dot_product else [plan.weights.shape[0]]
        elif isinstance(plan, PairPlan) and plan.clean_weight is not None:
            shape = [2 * rows]
        if not rows or not logits.is_floating_point() or list(logits.shape[:-1]) != shape:
            raise ValueError(
                f"logits of {logits.dtype} and shape {list(logits.shape)} do not fit {rows} labels"
                f"{'' if plan is None else ' and the plan'}: give floats [{', '.join(map(str, [*shape, 'classes']))}]."
            )
        if isinstance(plan, PairPlan) and plan.label_weight is None and label_weight is None:
            raise ValueError(
                "The label weights of this plan are known to the model alone: give the label_weight of its output."
            )
        if label_weight is not None and list(label_weight.shape) != [rows]:
            raise ValueError(
                f"label_weight of shape {list(label_weight.shape)} does not fit {rows} labels: give one number each."
            )
        if row_weights is not None:
            check_row_weights(row_weights, rows)
        if self.class_weights is not None and len(self.class_weights) != logits.shape[-1]:
            raise ValueError(
                f"class_weights has {len(self.class_weights)} numbers, but the logits have {logits.shape[-1]} "
                "classes: give one each."
            )
        check_labels(labels, self.problem_type, logits.shape[-1])

    def _span(
        self, logits: Tensor, labels: Tensor, row_weights: Tensor | None, plan: SpanPlan
    ) -> tuple[Tensor, Tensor]:
        """The part that one of the two passes has in the loss."""
        if plan.label_weight is None:
            losses, weights = self._plain(logits, labels, row_weights)
        else:
            share = plan.label_weight.to(logits.dtype)
            losses, weights = self._pairs(logits, labels, row_weights, plan.partner, share)
        return plan.loss_weight * losses, plan.loss_weight * weights

    def _plain(self, logits: Tensor, labels: Tensor, row_weights: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.problem_type == "regression":
            return self._squared_error(logits, labels.to(logits.dtype).reshape(logits.shape), row_weights)
        if self.problem_type == MULTI_LABEL:
            return _weighed(*self._binary_cross_entropy(logits, labels), row_weights)
        return _weighed(*self._cross_entropy(logits, labels), row_weights)

    def _pairs(
        self, logits: Tensor, labels: Tensor, row_weights: Tensor | None, partner: Tensor, share: Tensor
    ) -> tuple[Tensor, Tensor]:
        their_row_weights = None if row_weights is None else row_weights.index_select(0, partner)
        if self.problem_type == "regression":
            targets = mix_targets(labels.to(logits.dtype).reshape(logits.shape), partner, share)
            if row_weights is not None:
                # A learned share gains nothing by moving the weight to rows that count little.
                fixed = share.detach()
                row_weights = fixed * row_weights + (1 - fixed) * their_row_weights
            return self._squared_error(logits, targets, row_weights)
        own_loss, own_weight = self._plain(logits, labels, row_weights)
        their_loss, their_weight = self._plain(logits, labels.index_select(0, partner), their_row_weights)
        return share * own_loss + (1 - share) * their_loss, share * own_weight + (1 - share) * their_weight

    def _batch(
        self, logits: Tensor, labels: Tensor, row_weights: Tensor | None, plan: BatchPlan
    ) -> tuple[Tensor, Tensor]:
        r"""$\sum_b w_{i,b} r_b CE(z_i, y_b)$, or $-\log \sigma(\langle \hat x_i, \hat y_i \rangle)$."""
        weights = _per_row(plan).to(logits.dtype)
        label_weights = self._label_weights(labels).to(logits.dtype)
        if row_weights is not None:
            label_weights = label_weights * row_weights
        class_weights = logits.new_ones(logits.shape[-1]) if self.class_weights is None else self.class_weights
        class_weights = class_weights.to(logits)
        valid = _has_label(labels).to(logits.dtype)
        if labels.ndim > 1:
            targets = labels.to(logits.dtype) * valid.unsqueeze(-1)
        else:
            targets = F.one_hot(labels.clamp(min=0), logits.shape[-1]) * valid.unsqueeze(-1)
        if plan.dot_product:
            point_weights = weights @ label_weights
            return point_weights * F.softplus(-(logits * targets).sum(dim=(1, 2))), point_weights
        smooth = self.label_smoothing
        targets = (1 - smooth) * targets + smooth / len(class_weights) * valid.unsqueeze(-1)
        if row_weights is not None:
            targets = targets * row_weights.unsqueeze(-1)
        # The cross-entropy is linear in its target, so the targets are mixed instead of the losses.
        losses = -((weights @ (targets * class_weights)) * logits.log_softmax(dim=-1)).sum(dim=-1)
        return losses, weights @ label_weights

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
        valid = _has_label(labels)
        if labels.ndim > 1:
            labels = labels.to(logits.dtype) * valid.unsqueeze(-1)
        losses = F.cross_entropy(
            logits,
            labels,
            weight=class_weights,
            ignore_index=IGNORE_INDEX,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        # Without a soft label there would still be a smoothing term. A class of weight 0 keeps its own.
        return torch.where(valid, losses, 0.0), weights

    def _binary_cross_entropy(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        weights = self._label_weights(labels).to(logits.dtype)
        targets = labels.to(logits.dtype).clamp(min=0.0)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=-1)
        return torch.where(weights > 0, losses, 0.0), weights

    def _squared_error(self, logits: Tensor, targets: Tensor, row_weights: Tensor | None) -> tuple[Tensor, Tensor]:
        losses = F.mse_loss(logits, targets, reduction="none").flatten(1).mean(dim=-1)
        return _weighed(losses, torch.ones_like(losses), row_weights)


def check_whole_batches(problem_type: str | None, dot_product: bool, label_smoothing: float) -> None:
    """Raise where the loss of mixed batches has no meaning.

    Args:
        problem_type: as for `Objective`; None while it is not known.
        dot_product: whether the loss is that of dot products with the rows of the classifier.
        label_smoothing: as for `Objective`.

    Raises:
        ValueError: another problem than single labels, or smoothed labels in dot products.
    """
    if problem_type not in (None, "single_label_classification"):
        raise ValueError(
            f"Mixing whole batches has no meaning for {problem_type}: it is for single_label_classification; choose a "
            "method that mixes pairs."
        )
    if dot_product and label_smoothing:
        raise ValueError("Label smoothing has no meaning for the dot-product loss of batchmixup: set it to 0.")


def _per_row(plan: BatchPlan) -> Tensor:
    """The weight of each row in each point, `[points, batch]`: of its features, the mean."""
    return plan.weights if plan.weights.ndim == 2 else plan.weights.mean(dim=-1)


def _weighed(losses: Tensor, weights: Tensor, row_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Losses and weights of the rows, each times the row's own weight; a row of weight 0 costs nothing at all."""
    if row_weights is None:
        return losses, weights
    return torch.where(row_weights > 0, losses * row_weights, 0.0), weights * row_weights


def _average(clean: Tensor, mixed: Tensor, clean_weight: float) -> Tensor:
    return clean_weight * clean + (1 - clean_weight) * mixed


def _has_label(labels: Tensor) -> Tensor:
    valid = labels != IGNORE_INDEX
    return valid.all(dim=-1) if labels.ndim > 1 else valid


def check_labels(labels: Tensor, problem_type: str, num_labels: int) -> None:
    """Raise for labels that no loss of this problem type can be computed from.

    Args:
        labels: the labels of a batch, or of a whole data set. Their shape and type are checked always, their values
            on the CPU only.
        problem_type: as for `Objective`.
        num_labels: the number of the model's outputs.

    Raises:
        ValueError: in one sentence that names the first row that is wrong.

    Example:
        >>> check_labels(torch.tensor([0, 2, -100]), "single_label_classification", num_labels=3)
    """
    check = {
        "single_label_classification": _check_single_labels,
        MULTI_LABEL: _check_multi_labels,
        "regression": _check_scores,
    }[problem_type]
    check(labels, num_labels)


def _check_single_labels(labels: Tensor, num_labels: int) -> None:
    soft = labels.is_floating_point() and list(labels.shape[1:]) == [num_labels]
    if not soft and (labels.ndim != 1 or labels.dtype != torch.int64):
        raise ValueError(
            f"labels of {labels.dtype} and shape {list(labels.shape)} do not fit single_label_classification with "
            f"{num_labels} classes: give class ids as int64 [rows], or soft labels as floats [rows, {num_labels}]."
        )
    if not can_read(labels):
        return
    if soft:
        missing = (labels == IGNORE_INDEX).any(dim=-1)
        right = missing | ((labels >= 0).all(dim=-1) & ((labels.sum(dim=-1) - 1).abs() < SOFT_LABEL_TOLERANCE))
        allowed = "give numbers from 0 on that sum to 1"
    else:
        right = (labels == IGNORE_INDEX) | ((labels >= 0) & (labels < num_labels))
        allowed = f"give class ids from 0 to {num_labels - 1}"
    several = f"; for several classes a row set problem_type={MULTI_LABEL!r}" if soft else ""
    _check_rows(labels, right, f"{allowed}, or {IGNORE_INDEX} for a row without label{several}")


def _check_multi_labels(labels: Tensor, num_labels: int) -> None:
    if list(labels.shape[1:]) != [num_labels]:
        raise ValueError(
            f"labels of shape {list(labels.shape)} do not fit multi_label_classification with {num_labels} classes: "
            f"give 0 or 1 for each class, as floats [rows, {num_labels}]"
            f"{', or class ids as whole numbers' if labels.ndim == 1 else ''}."
        )
    if can_read(labels):
        right = (labels == IGNORE_INDEX) | ((labels >= 0) & (labels <= 1))
        allowed = f"give numbers from 0 to 1, or {IGNORE_INDEX} for a row without label"
        _check_rows(labels, right.all(dim=-1), allowed)


def _check_scores(labels: Tensor, num_labels: int) -> None:
    if labels.numel() != labels.shape[0] * num_labels:
        raise ValueError(
            f"labels of shape {list(labels.shape)} do not fit regression with {num_labels} outputs: give [rows] "
            "numbers for one, [rows, outputs] for several."
        )
    if can_read(labels):
        _check_rows(labels, torch.isfinite(labels).reshape(len(labels), -1).all(dim=-1), "give finite numbers")


def _check_rows(labels: Tensor, right: Tensor, allowed: str) -> None:
    if not right.all():
        row = int(right.int().argmin())
        raise ValueError(f"label {labels[row].tolist()} of row {row} is not allowed: {allowed}.")


def check_row_weights(weights: Tensor, rows: int) -> None:
    """Raise for weights of rows that are not floats `[rows]` of at least 0; their values are read on the CPU only.

    Raises:
        TypeError: something that is not a tensor.
        ValueError: in one sentence that names the first row that is wrong.

    Example:
        >>> check_row_weights(torch.tensor([1.0, 0.25, 0.0]), rows=3)
    """
    check_type("row_weights", weights, Tensor, "a float tensor [batch], or None")
    if not weights.is_floating_point() or list(weights.shape) != [rows]:
        raise ValueError(
            f"row_weights of {weights.dtype} and shape {list(weights.shape)} do not fit {rows} labels: give one float "
            "for each."
        )
    if can_read(weights):
        right = (weights >= 0) & (weights < torch.inf)
        if not right.all():
            row = int(right.int().argmin())
            raise ValueError(f"weight {weights[row].item()} of row {row} is not allowed: give finite numbers from 0.")


def _check_class_weights(weights: Tensor) -> None:
    fits = isinstance(weights, Tensor) and weights.ndim == 1 and weights.is_floating_point()
    if not fits or (can_read(weights) and not ((weights >= 0) & (weights < torch.inf)).all()):
        raise ValueError(f"class_weights={weights!r} is not allowed: give a float tensor [classes] of weights from 0.")


def weighted_mean(losses: Tensor, weights: Tensor, total_weight: Tensor | None = None) -> Tensor:
    """`losses.sum() / total_weight`: the mean over the rows that have a label; 0 if the total weight is 0.

    The divisor is a constant for the gradient, so that a learned label weight gains nothing by making it large.

    Args:
        losses: `[batch]`, each already multiplied by its weight.
        weights: `[batch]`.
        total_weight: the weight of the whole accumulated group of batches on all processes; default: of this batch.

    Raises:
        ValueError: losses and weights of different shapes.
    """
    check_type("losses", losses, Tensor, "the losses that Objective gives, [batch]")
    check_type("weights", weights, Tensor, "the weights that Objective gives, [batch]")
    check_type("total_weight", total_weight, Tensor | None, "a tensor [], or None for the weight of this batch")
    if losses.shape != weights.shape:
        raise ValueError(
            f"losses {list(losses.shape)} and weights {list(weights.shape)} do not fit each other: give one of each "
            "for a row, as Objective does."
        )
    total = weights.detach().sum() if total_weight is None else total_weight.to(losses)
    return torch.where(total > 0, losses.sum() / torch.where(total > 0, total, 1.0), 0.0)
