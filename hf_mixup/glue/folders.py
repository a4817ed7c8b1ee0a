"""Checks of the folders a run reads and writes, made before anything is written."""

from __future__ import annotations

import json
import re
from pathlib import Path

from transformers import PreTrainedModel

from hf_mixup.errors import UsageError, cut, listed
from hf_mixup.files import LOCK, PART_PREFIX, check_writable, refuse_links
from hf_mixup.trainer.arguments import MixupTrainingArguments
from hf_mixup.trainer.checkpoints import CheckpointError, whole_checkpoint
from hf_mixup.trainer.saving import ALL_RESULTS

_RESULT_FILES = (ALL_RESULTS, "eval_results.json", "train_results.json")
_RUN_PATTERN = re.compile(
    rf"{PART_PREFIX}.+|((broken|old)-)?checkpoint-\d+(-\d+)?|last-good-weights|predict_results_.*\.txt|predict_results\.json|predictions(-mm)?\.csv|trainer_state\.json|training_args\.bin"
)
# The folders of a run that files are written into.
_FOLDER = re.compile(r"checkpoint-\d+|last-good-weights")
# What checkpoints hold, and folders of runs do not.
_OF_CHECKPOINTS = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "rng_state_0.pth"}
# A run that is stopped before its first checkpoint leaves nothing but TensorBoard's folder.
_LOG_FOLDERS = {"runs"}
_WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "adapter_config.json",
)
# Each is one small object; tokenizer.json, a large one, is left to its reader.
_MODEL_JSON = (
    "config.json",
    "adapter_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
# The largest sizes that a configuration may have: what it makes of larger ones never ends, or fills the memory.
_SIZES = {
    "hidden_size": 2**20,
    "intermediate_size": 2**24,
    "num_hidden_layers": 10_000,
    "num_attention_heads": 10_000,
    "max_position_embeddings": 2**30,
    "vocab_size": 2**30,
    "num_labels": 10_000_000,
}
_TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "*.model", "*.tiktoken")


def check_output_dir(path: str) -> None:
    """Check that a run may write into a folder: it does not exist, is empty, or holds an earlier run of the script.

    Raises:
        UsageError: if it is a file, holds something else, or holds results that cannot be read.
    """
    folder = Path(path).expanduser()
    try:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--output_dir {path} is a file; give a new or empty folder")
        names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        raise UsageError(f"--output_dir {path} cannot be read ({error.strerror}); give another folder") from error
    check_writable(folder, f"--output_dir {path}")
    # Of a run that was killed, or that writes there now: the lock tells that.
    names -= {LOCK}
    refuse_links(folder / name for name in sorted(names) if _FOLDER.fullmatch(name))
    if names & _OF_CHECKPOINTS:
        raise UsageError(
            f"--output_dir {path} is a checkpoint of a run, which would be overwritten; give a new or empty folder, "
            "or the folder of the run"
        )
    # What a full disk leaves of a file.
    names -= {name for name in _RESULT_FILES if name in names and not (folder / name).stat().st_size}
    results = {name: _json_object(folder / name) for name in _RESULT_FILES if name in names}
    # Other programs write files of these names too.
    is_results = any(key.startswith(("train_", "eval_")) for content in results.values() for key in content or ())
    if not (is_results or any(_RUN_PATTERN.fullmatch(name) for name in names) or names <= _LOG_FOLDERS):
        raise UsageError(
            f"--output_dir {path} is not empty and holds something else than a run of this script "
            f"({listed(sorted(names), limit=3)}); give a new or empty folder"
        )
    # The results of this run are added to that file.
    if results.get(ALL_RESULTS, {}) is None:
        raise UsageError(f"--output_dir {path} has an all_results.json that cannot be read; delete it")


def _json_object(file: Path) -> dict | None:
    """Read a JSON object; None if the file is empty, broken or something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def find_checkpoint(training_args: MixupTrainingArguments) -> str | None:
    """Find the checkpoint that `--resume_from_checkpoint` means; every process calls this.

    Args:
        training_args: the flag is unset or "false" for a fresh start, "true" for the newest whole checkpoint of
            `--output_dir` (newer ones that are broken are then renamed, with a warning), else a folder.

    Returns:
        The folder of the checkpoint, or None for a fresh start.

    Raises:
        UsageError: if there is none from which the run can go on exactly.
    """
    given = training_args.resume_from_checkpoint
    if given is None or given.lower() == "false":
        return None
    try:
        return whole_checkpoint(training_args, True if given.lower() == "true" else given)
    except CheckpointError as error:
        raise UsageError(f"--resume_from_checkpoint {given}: {error}") from error


def check_model_folder(name_or_path: str, config_name: str | None, tokenizer_name: str | None) -> None:
    """Check that a local model folder holds a model; the name of a model of the Hub passes.

    Args:
        name_or_path: the folder.
        config_name: where the configuration is, if not there.
        tokenizer_name: where the tokenizer is, if not there.

    Raises:
        UsageError: if it looks like a path and does not exist, or lacks its configuration, weights or tokenizer.
    """
    folder = Path(name_or_path)
    if not folder.exists():
        if folder.is_absolute() or name_or_path.startswith((".", "~")) or len(folder.parts) > 2:
            raise UsageError(f"the model folder {name_or_path} does not exist; check --model_name_or_path")
        return
    if not folder.is_dir():
        raise UsageError(f"--model_name_or_path {name_or_path} is a file; give the folder that holds it")
    has_config = (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file()
    if config_name is None and not has_config:
        raise UsageError(f"the model folder {name_or_path} has no config.json; give the folder of a saved model")
    if not any((folder / name).is_file() for name in _WEIGHT_FILES):
        raise UsageError(
            f"the model folder {name_or_path} has no weights (such as model.safetensors); "
            "give the folder of a saved model"
        )
    if tokenizer_name is None and not any(any(folder.glob(name)) for name in _TOKENIZER_FILES):
        raise UsageError(f"the model folder {name_or_path} has no tokenizer files; give --tokenizer_name")
    for name in _MODEL_JSON:
        if (folder / name).is_file() and _json_object(folder / name) is None:
            raise UsageError(f"the {name} of the model folder {name_or_path} is no JSON object; copy it again")
    if (folder / "config.json").is_file():
        _check_sizes(_json_object(folder / "config.json"), name_or_path)


def _check_sizes(config: dict, name: str) -> None:
    for key, value in config.items():
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        lowest, highest = (1, _SIZES[key]) if key in _SIZES else (-(2**31), 2**31)
        if not lowest <= value <= highest:
            raise UsageError(
                f"config.json of the model folder {name} has {cut(key)} {cut(str(value))}, which no model has; "
                f"correct it to a number from {lowest} to {highest}"
            )


def longest_input(model: PreTrainedModel) -> int | None:
    """Return how many positions a model has embeddings for; None if it does not count them that way.

    Models of the RoBERTa family keep the first positions for padding.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and hasattr(module, "num_embeddings"):
            padding_idx = module.padding_idx
            return module.num_embeddings - (0 if padding_idx is None else padding_idx + 1)
    return None
