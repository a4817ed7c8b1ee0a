"""How tests call the script, and the files they give it."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import transformers

import run_glue_mixup

SCRIPT = Path(run_glue_mixup.__file__)
QUIET = ["--log_level", "error", "--disable_tqdm", "true", "--use_cpu", "true"]
SHORT = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--max_seq_length", "16", *QUIET]
MIX = ["--mixup_method", "amplify", "--mixup_ratio", "beta", "--mixup_alpha", "1"]


def flags(files, *splits):
    """Return the flags of the named splits, all of them by default."""
    chosen = {name: path for name, path in files.items() if not splits or name[2:-5] in splits}
    return [word for pair in chosen.items() for word in pair]


@contextmanager
def captured() -> Iterator[io.StringIO]:
    """All that a command in this process writes to the terminal, its log with it."""
    written, root = io.StringIO(), logging.getLogger()
    handlers, root.handlers = root.handlers, []
    own = transformers.utils.logging.get_logger().handlers[0]
    stream = own.setStream(written)
    try:
        with redirect_stdout(written), redirect_stderr(written):
            yield written
    finally:
        own.setStream(stream or sys.stderr)
        root.handlers = handlers
        transformers.utils.logging.set_verbosity_error()
