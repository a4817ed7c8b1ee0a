"""What befalls a run, in a sentence: no memory, no room on the disk, a loss that is not a number, no Hub."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from dataclasses import fields
from functools import cache

import torch
from torch.distributed import DistError
from transformers import TrainingArguments

from hf_mixup.errors import as_one_line
from hf_mixup.hub import HubError
from hf_mixup.shown import visible
from hf_mixup.trainer.checkpoints import SaveError, disk_fault
from hf_mixup.trainer.trainer import NonFiniteLossError

logger = logging.getLogger(__name__)

# transformers 5.23 has given --gradient_checkpointing a new name.
_NAMES = {field.name for field in fields(TrainingArguments)}
# Seconds; torchrun looks every tenth of one whether a process has failed.
_WAIT = 5.0
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
    if is_of_another_process(error):
        return (
            "another process of the run ended, or does not answer: what it said tells why; when that is put right, "
            "the same with --resume_from_checkpoint true goes on from the newest whole checkpoint"
        )
    reason = disk_fault(error)
    if reason is not None:
        path = getattr(error, "filename", None)
        where = "the disk failed" if path is None else f"the disk failed at {path}"
        return f"{where} ({reason}): make room there and run the same again"
    return None


def watch_the_background() -> None:
    """Make a line of what the disk refuses a thread, such as TensorBoard's, or what is closed as the process ends.

    Python would print a traceback there, and the run would go on. All other errors keep theirs.
    """
    if threading.excepthook is not _in_thread:
        _Stock.in_thread, threading.excepthook = threading.excepthook, _in_thread
    if sys.unraisablehook is not _at_end:
        _Stock.at_end, sys.unraisablehook = sys.unraisablehook, _at_end


class _Stock:
    """Python's own hooks."""

    in_thread = threading.excepthook
    at_end = sys.unraisablehook


def _in_thread(raised: threading.ExceptHookArgs) -> None:
    if not _is_told(raised.exc_value):
        _Stock.in_thread(raised)


def _at_end(raised: sys.UnraisableHookArgs) -> None:
    if not _is_told(raised.exc_value):
        _Stock.at_end(raised)


def _is_told(error: BaseException | None) -> bool:
    reason = None if error is None else disk_fault(error)
    if reason is not None:
        _tell_of_background(reason)
    return reason is not None


@cache
def _tell_of_background(reason: str) -> None:
    logger.warning(f"The disk failed for a log that is written beside the run ({reason}): the log is not complete.")


def tell(sentence: str, of_another: bool = False) -> None:
    """Write a sentence to stderr: once, when all processes of a run meet the same fault.

    Launchers end the other processes as soon as one has failed, so the others wait for that, and speak only when the
    main process did not fail.

    Args:
        sentence: what is written.
        of_another: whether it is about another process, which is then given the time to speak for itself.
    """
    is_main = not int(os.environ.get("RANK", 0))
    if not is_main:
        time.sleep(_WAIT * (3 if of_another else 1))
    sys.stderr.write(f"{visible(sentence)}\n")
    if is_main and of_another:
        sys.stderr.flush()
        time.sleep(_WAIT * 2)


def is_of_another_process(error: BaseException) -> bool:
    """Whether a process lost another one of its run, which was killed or has failed.

    Example:
        >>> is_of_another_process(RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer"))
        True
    """
    if isinstance(error, DistError):
        return True
    # gloo has no exception of its own.
    return isinstance(error, RuntimeError) and "gloo/transport" in str(error)


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
