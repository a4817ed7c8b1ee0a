"""What is different under DeepSpeed: its engine updates the weights inside the last backward pass of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakSet

import torch
from accelerate import Accelerator
from torch import Tensor, nn


def zero_stage(accelerator: Accelerator) -> int | None:
    """The stage of ZeRO, 0 to 3; None without DeepSpeed."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    return None if plugin is None else plugin.zero_stage


def is_partitioned(model: nn.Module) -> bool:
    """Whether the model was loaded in parts, as `from_pretrained` does at ZeRO-3: no process has its shapes."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


@contextmanager
def without_step(accelerator: Accelerator) -> Iterator[None]:
    """Backward passes inside accumulate gradients and update nothing."""
    due = accelerator.sync_gradients
    accelerator.sync_gradients = False
    try:
        yield
    finally:
        accelerator.sync_gradients = due


def look_before_update(
    accelerator: Accelerator, at_loss: Callable[[Tensor], None], at_gradient: Callable[[Tensor], None]
) -> None:
    """Have the loss looked at before each backward pass, and the norm of the gradient before each update.

    DeepSpeed leaves out the update by itself where it finds the gradient infinite, but not in bfloat16 or at stage 0.

    Args:
        accelerator: whose `backward` is extended.
        at_loss, at_gradient: raise to leave the weights as they are.
    """
    backward, watched = accelerator.backward, WeakSet()

    def backward_after_look(loss: Tensor, **kwargs: object) -> None:
        engine = accelerator.deepspeed_engine_wrapped.engine
        if engine not in watched:
            watched.add(engine)
            engine.basic_optimizer.register_step_pre_hook(lambda *_: at_gradient(_gradient_norm(engine)))
        at_loss(loss)
        backward(loss, **kwargs)

    accelerator.backward = backward_after_look


def _gradient_norm(engine: object) -> Tensor:
    """The norm that the engine is about to step with; at stage 0, where it knows none, that of whole gradients."""
    norm = getattr(engine.optimizer, "_global_grad_norm", None)
    if norm is not None:
        # It writes -1 where the sum is infinite.
        return torch.as_tensor(norm if norm >= 0 else torch.nan)
    return torch.nn.utils.get_total_norm([each.grad for each in engine.module.parameters() if each.grad is not None])
