"""What a method asks of a model and its labels, checked when the trainer is built and not by the first batch."""

from __future__ import annotations

from typing import Any

from torch import nn

from hf_mixup.methods import Method
from hf_mixup.mixing import AttentionProbe, BatchWeights
from hf_mixup.mixing.objectives import check_whole_batches
from hf_mixup.mixing.plan import TOKEN_SITES


def check_adapter(method: Method, model: nn.Module) -> None:
    """Raise for an adapter that changes the model's own forward pass so that the method cannot mix in it.

    Raises:
        ValueError: prefix tuning, which goes around the forward pass; or learned prompts, which stand in the sequence
            as no tokens, where the method swaps or weighs tokens.
    """
    adapter = getattr(model, "active_peft_config", None)
    if method.site is None or not getattr(adapter, "is_prompt_learning", False):
        return
    kind = str(getattr(adapter.peft_type, "value", adapter.peft_type))
    goes_around = kind in ("PREFIX_TUNING", "CARTRIDGE")
    if goes_around or method.site == "input_ids" or method.attention_mask == "skip":
        setting = "" if goes_around or method.attention_mask != "skip" else " with mixup_attention_mask='skip'"
        others = "LoRA" if goes_around else "LoRA, another method or mask"
        raise ValueError(
            f"mixup_method={method.name!r}{setting} cannot train a model with the adapter {kind}, which "
            f"{'goes around its forward pass' if goes_around else 'puts prompts that are no tokens into the sequence'}"
            f": choose {others}, or mixup_method='none'."
        )


def check_attention(method: Method, config: Any) -> None:
    """Raise for flex attention where the method joins or doubles attention masks.

    Raises:
        ValueError: flex attention, whose masks are no tensors.
    """
    if getattr(config, "_attn_implementation", None) != "flex_attention" or method.site not in TOKEN_SITES:
        return
    joins = method.attention_mask in ("union", "intersection")
    if joins or method.clean == "average" or isinstance(method.ratio, AttentionProbe):
        raise ValueError(
            f"mixup_method={method.name!r} as it is set computes with attention masks, which flex_attention does not "
            "give as tensors: load the model with attn_implementation='sdpa', or choose mixup_attention_mask='own' "
            "without mixup_clean='average'."
        )


def check_labels_fit(method: Method, problem_type: str | None, label_smoothing: float) -> None:
    """Raise for labels, or a smoothing of them, that the loss of the method has no meaning for.

    Args:
        method: the method.
        problem_type: that of the model; None while it is not known.
        label_smoothing: of the training.

    Raises:
        ValueError: a method that mixes whole batches, for several labels a row or for scores; label smoothing with
            the dot-product loss.
    """
    if isinstance(method.ratio, BatchWeights):
        check_whole_batches(problem_type, method.dot_product, label_smoothing)
