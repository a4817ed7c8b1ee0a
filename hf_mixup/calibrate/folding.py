"""Dividing the logits of a classifier by a temperature, within the weights of its last linear layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_mixup.errors import UsageError, listed

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def last_linear(model: PreTrainedModel, forward: Callable[[], Any]) -> str:
    """Find the linear layer whose outputs are the logits, whatever the model calls it.

    A decoder applies it at each position and takes one: then the outputs at that position are the logits.

    Args:
        model: a classifier of transformers, in evaluation mode.
        forward: passes rows through it.

    Returns:
        The name of the layer.

    Raises:
        UsageError: the model has no such layer, or its weights are quantized or shared with another layer.

    Example:
        >>> last_linear(model, lambda: model(**batch))  # doctest: +SKIP
        'classifier'
    """
    outputs: dict[str, Tensor] = {}
    logits: list[Tensor] = []

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: outputs.update({name: output})

    layers = {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and module.out_features == model.config.num_labels
    }
    hooks = [module.register_forward_hook(keep(name)) for name, module in layers.items()]
    hooks.append(model.register_forward_hook(lambda module, inputs, output: logits.append(output.logits)))
    try:
        with torch.no_grad():
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    found = [name for name, output in outputs.items() if _holds(output, logits[-1])]
    if not found:
        raise UsageError(
            f"the logits of {type(model).__name__} are not the outputs of a linear layer, so a temperature cannot lie "
            "within its weights; divide the logits by the temperature where you use them"
        )
    _check_own(model, layers[found[-1]])
    return found[-1]


def _holds(output: Tensor, logits: Tensor) -> bool:
    """Whether each row of logits is among the outputs for that row."""
    if output.shape[0] != logits.shape[0]:
        return False
    by_position = output.reshape(len(logits), -1, logits.shape[1])
    return bool((by_position == logits[:, None]).all(dim=-1).any(dim=-1).all())


def _check_own(model: PreTrainedModel, layer: nn.Linear) -> None:
    """Check that weight and bias of a layer are numbers that nothing else uses."""
    own = [parameter for parameter in (layer.weight, layer.bias) if parameter is not None]
    if any(parameter.dtype not in _FLOATS for parameter in own):
        raise UsageError(
            f"the last linear layer has weights of the type {layer.weight.dtype}, which cannot be divided; calibrate "
            "the model before it is quantized"
        )
    storages = {parameter.untyped_storage().data_ptr() for parameter in own}
    using = [
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.untyped_storage().data_ptr() in storages
    ]
    if len(using) > len(own):
        raise UsageError(
            f"the weights of the last linear layer are used elsewhere in the model too ({listed(using)}), so a "
            "temperature cannot lie within them; divide the logits by the temperature where you use them"
        )


@torch.no_grad()
def divide_logits(layer: nn.Linear, temperatures: Sequence[float]) -> None:
    r"""Divide the outputs of a linear layer: $W_c / T_c$ and $b_c / T_c$ in place of $W_c$ and $b_c$.

    The division is made in float64 and rounded once, to the type of the weights.

    Args:
        layer: the last one of a classifier.
        temperatures: one for each output.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> before = layer(torch.ones(2)).item()
        >>> divide_logits(layer, [2.0])
        >>> round(before / layer(torch.ones(2)).item(), 5)
        2.0
    """
    divisors = torch.tensor(temperatures, dtype=torch.float64, device=layer.weight.device)
    layer.weight.copy_(layer.weight.double() / divisors[:, None])
    if layer.bias is not None:
        layer.bias.copy_(layer.bias.double() / divisors)
