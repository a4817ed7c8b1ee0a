"""How long steps take on this machine, for an estimate before anything is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

import run_glue_mixup

# The shortest of these counts: other work on the machine makes some of them longer. The first step is not timed, as it
# makes what later ones reuse.
_TIMED = 5


@dataclass(frozen=True)
class Timing:
    """What was timed.

    Args:
        load: seconds to load the model.
        step: seconds of a plain training step, the shortest of a few.
        row: seconds to predict a row.
    """

    load: float
    step: float
    row: float


def time_steps(model: str, outputs: int, texts: Sequence[tuple[str, ...]], max_seq_length: int) -> Timing:
    """Load a model, take a few plain training steps on one batch of texts, predict it, and throw the model away.

    Args:
        model: a folder, or a name on the Hub.
        outputs: how many outputs its head has.
        texts: the batch, one or two texts a row.
        max_seq_length: longer texts are cut.

    Raises:
        OSError, ValueError, RuntimeError: the model cannot be loaded, or not be trained.
    """
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        start = time.perf_counter()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer = AutoTokenizer.from_pretrained(model)
        loaded = AutoModelForSequenceClassification.from_pretrained(
            model, num_labels=outputs, ignore_mismatched_sizes=True
        ).to(device)
        load = time.perf_counter() - start
        length = run_glue_mixup.usable_length(max_seq_length, tokenizer, loaded, len(texts[0]))
        columns = map(list, zip(*texts, strict=True))
        batch = tokenizer(*columns, truncation=True, max_length=length, padding=True, return_tensors="pt").to(device)
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    optimizer = torch.optim.AdamW(loaded.parameters(), fused=True)  # as the Trainer does

    def step() -> None:
        loaded(**batch).logits.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    def predict() -> None:
        with torch.no_grad():
            loaded.eval()(**batch)

    loaded.train()
    step()
    return Timing(load, _shortest(step), _shortest(predict) / len(texts))


def _shortest(work: Callable[[], None]) -> float:
    """The seconds that work takes when least disturbed."""
    seconds = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
