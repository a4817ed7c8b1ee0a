"""What befalls a run, in a sentence: no memory, no room on the disk, a loss that is not a number, no Hub."""

from __future__ import annotations

from dataclasses import fields

import torch
from transformers import TrainingArguments

from hf_mixup.errors import as_one_line
from hf_mixup.hub import HubError
from hf_mixup.trainer.checkpoints import SaveError, disk_fault
from hf_mixup.trainer.trainer import NonFiniteLossError

# transformers 5.23 has given --gradient_checkpointing a new name.
_NAMES = {field.name for field in fields(TrainingArguments)}
_CHECKPOINTING = "activation_checkpointing" if "activation_checkpointing" in _NAMES else "gradient_checkpointing"


def fault_sentence(error: BaseException) -> str | None:
    """Say what went wrong and what helps.

    Args:
        error: what ended the run.

    Returns:
        One sentence, or None if the error is none of these faults: then it is a bug and keeps its traceback.

    Example:
        >>> fault_sentence(OSError(28, "No space left on device", "out/README.md"))
        'the disk failed at out/README.md (no space left on device): make room there and run the same again'
    """
    if isinstance(error, (NonFiniteLossError, SaveError, HubError)):
        return as_one_line(error)
    if is_out_of_memory(error):
        return (
            "the memory does not suffice: halve --per_device_train_batch_size and double "
            f"--gradient_accumulation_steps, which trains the same, or add --{_CHECKPOINTING} true, --bf16 true where "
            "the device can, a smaller --max_seq_length, --mixup_clean none, and for an evaluation a smaller "
            "--per_device_eval_batch_size"
        )
    reason = disk_fault(error)
    if reason is not None:
        path = getattr(error, "filename", None) or "a file"
        return f"the disk failed at {path} ({reason}): make room there and run the same again"
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, torch's allocator on the CPU, or Python had no memory left.

    Example:
        >>> is_out_of_memory(MemoryError())
        True
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # The allocator on the CPU has no exception of its own; its words differ between systems.
    words = ("DefaultCPUAllocator", "not enough memory", "out of memory", "No executable batch size")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
