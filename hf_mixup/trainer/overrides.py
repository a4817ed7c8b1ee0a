"""What a subclass may override of the trainer, and the sentences for what would leave out a part of mixing."""

from __future__ import annotations

from transformers import Trainer

_BOTH_LABELS = "give your loss as compute_loss_func, which is called for the own and for the partners' labels"


def overrider(trainer_class: type, mixin: type, method: str) -> str:
    """The name of the class whose method replaces the mixin's; that of the trainer if no class replaces it."""
    before = trainer_class.__mro__[: trainer_class.__mro__.index(mixin)]
    return next((each.__name__ for each in before if method in vars(each)), trainer_class.__name__)


def loss_behind(trainer_class: type, mixin: type) -> str | None:
    """The name of the class after the mixin that has a `compute_loss` of its own; None if that is `Trainer`'s."""
    after = trainer_class.__mro__[trainer_class.__mro__.index(mixin) + 1 :]
    owner = next(each for each in after if "compute_loss" in vars(each))
    return None if owner is Trainer else owner.__name__


def loss_behind_error(owner: str, method: str) -> ValueError:
    """A class after the mixin has a loss of its own, and a method mixes."""
    return ValueError(
        f"{owner}.compute_loss would not get the batches that mixup_method={method!r} mixes: {_BOTH_LABELS}, override "
        "compute_loss in the class with mixup, where super().compute_loss gives the loss to add to, or choose "
        "mixup_method='none'."
    )


def unread_weights_error(loss: str) -> ValueError:
    """The train data have a column of weights, and the loss is not the mixin's."""
    return ValueError(
        f"The column 'weight' of the train_dataset, which says how much each row counts, has no effect on {loss}: "
        "rename it or remove it."
    )


def loss_error(owner: str, mixed: bool, weighted: bool) -> ValueError:
    """An override of `compute_loss` did not pass a batch on that has another loss than a plain one.

    Args:
        owner: the name of the class.
        mixed: whether the batch was mixed.
        weighted: whether its rows have weights.
    """
    call_super = "call super().compute_loss(model, inputs, return_outputs, num_items_in_batch) in it"
    if mixed:
        return ValueError(
            f"{owner}.compute_loss leaves out the partners' labels of a mixed batch: {_BOTH_LABELS}, {call_super} and "
            "add to the loss that it returns, or choose mixup_method='none'."
        )
    if weighted:
        return ValueError(
            f"{owner}.compute_loss leaves out the weights of the rows, the column 'weight' of the train_dataset: "
            f"{call_super}, or rename the column or remove it."
        )
    return ValueError(
        f"{owner}.compute_loss leaves out the class_weights: {call_super}, or leave class_weights out and weigh the "
        "classes there."
    )


def step_error(owner: str) -> ValueError:
    """An override of `training_step` does by itself a step that mixes, or in which classes or rows have weights."""
    return ValueError(
        f"{owner}.training_step computes the loss by itself, without mixing and class_weights, or weights of rows: "
        "call super().training_step(model, inputs, num_items_in_batch) in it, or choose mixup_method='none' and leave "
        "class_weights and the column 'weight' out."
    )


def late_error(owner: str, overridden: str, method: str) -> ValueError:
    """An override may add gradients, and the step corrects all gradients at its end."""
    return ValueError(
        f"{owner}.{overridden} may add to losses whose divisor mixup_method={method!r} knows only after the last "
        "accumulated batch: set gradient_accumulation_steps=1, or leave class_weights and the column 'weight' out and "
        "give every row of a datasets.Dataset a label."
    )


def plan_error(owner: str, method: str) -> ValueError:
    """An override of `get_batch_samples`, or a loop of the user's own, gives batches without plans."""
    return ValueError(
        f"The batch has no plan for mixup_method={method!r}: {owner}.get_batch_samples, or what else makes the "
        "batches, must take them from super().get_batch_samples(epoch_iterator, num_batches, device)."
    )


def gate_error(owner: str) -> ValueError:
    """An override of `create_optimizer` leaves out the gate of a learned label weight."""
    return ValueError(
        "mixup_label_weight='learned' trains a gate beside the model, and the optimizer does not know it: call "
        f"super().create_optimizer() in {owner}.create_optimizer, or choose another mixup_label_weight."
    )
