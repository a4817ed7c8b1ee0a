"""How tests call the script, and the files they give it."""

from __future__ import annotations

from pathlib import Path

import run_glue_mixup

SCRIPT = Path(run_glue_mixup.__file__)
QUIET = ["--log_level", "error", "--disable_tqdm", "true", "--use_cpu", "true"]
SHORT = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--max_seq_length", "16", *QUIET]
MIX = ["--mixup_method", "amplify", "--mixup_ratio", "beta", "--mixup_alpha", "1"]


def flags(files, *splits):
    """Return the flags of the named splits, all of them by default."""
    chosen = {name: path for name, path in files.items() if not splits or name[2:-5] in splits}
    return [word for pair in chosen.items() for word in pair]
