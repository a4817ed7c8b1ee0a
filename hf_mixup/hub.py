"""Uploads to the Hugging Face Hub: what goes there, what never does, and what is said when one fails."""

from __future__ import annotations

import gc
import logging
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import OfflineModeIsEnabled

from hf_mixup import __version__
from hf_mixup.errors import UsageError, first_line

logger = logging.getLogger(__name__)

# `training_args.bin` is a pickle, and nobody needs it: loading a pickle runs what stands in it.
ARGUMENTS_FILES = ("training_args.bin", "*/training_args.bin")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib", "*.distcp")
# Of a model's folder, what belongs to the training alone, and what is on its way to somewhere else.
NOT_THE_MODEL = (
    *(*ARGUMENTS_FILES, *PICKLES, "checksums.json", "run_settings.json"),
    *("*checkpoint-*", "last-good-weights*", "_*"),
)
TRAINING_STATE = ("trainer_state.json", "label_gate.*")
SNAPSHOT_PREFIX = "_push_"
# Weights are uploaded as safetensors only.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")

# The client itself tries most requests again, but neither the creation of a repository nor the commit.
_PAUSES = (1.0, 4.0)
_REASONS = {
    401: "the access token is missing, wrong or expired (401; set HF_TOKEN, or run hf auth login)",
    403: "the access token does not allow it (403; it must be one that may write there)",
    404: "the repository or the revision does not exist, or the access token may not see it (404)",
    409: "another change of the repository came in between (409)",
}


class HubError(OSError):
    """The Hub, or the way to it, did not do what was asked; what was trained is still on disk."""


def open_repository(name: str, private: bool | None = None, token: str | None = None) -> str:
    """Make sure that a model repository exists.

    Args:
        name: `user/model`, or `model` for one of your own.
        private: whether a new one is private; by default as the account says.
        token: the access token; that of `HF_TOKEN` or `hf auth login` by default.

    Returns:
        Its full name.

    Raises:
        HubError: it could not be created or seen.

    Example:
        >>> open_repository("me/model")  # doctest: +SKIP
        'me/model'
    """
    try:
        return _patiently(lambda: _api().create_repo(name, private=private, token=token, exist_ok=True)).repo_id
    except Exception as error:
        raise HubError(f"the repository {name} could not be opened on the Hub because {_reason(error)}") from error


def upload(
    folder: str | Path,
    repo: str,
    *,
    message: str,
    token: str | None = None,
    revision: str | None = None,
    path_in_repo: str | None = None,
    ignore: Sequence[str] = NOT_THE_MODEL,
) -> CommitInfo:
    """Upload a folder as one commit.

    Args:
        folder: what to upload.
        repo: the full name of the repository.
        message: the first line of the commit.
        token: as in `open_repository`.
        revision: the branch; `main` by default.
        path_in_repo: the folder in the repository; its top by default.
        ignore: patterns of files to leave out.

    Raises:
        HubError: the upload failed.

    Example:
        >>> upload("out", "me/model", message="End of training")  # doctest: +SKIP
    """

    def attempt() -> CommitInfo:
        return _api().upload_folder(
            repo_id=repo,
            folder_path=folder,
            path_in_repo=path_in_repo,
            commit_message=message,
            token=token,
            revision=revision,
            ignore_patterns=list(ignore),
        )

    try:
        return _patiently(attempt)
    # The client lets through errors of two HTTP libraries, of the file system and of its threads.
    except Exception as error:
        logger.debug(f"The upload to {repo} failed.", exc_info=True)
        reason = _reason(error)
    # The client's progress bars are written once more when its error is gone: not after the sentence that tells it.
    gc.collect()
    raise HubError(f"the upload to {repo} failed because {reason}")


def in_background(job: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run an upload beside the training, after those that were started before it; gives back its `Future`."""
    return _api().run_as_future(job, *args, **kwargs)


def push_checkpoint(
    copy: Path,
    repo: str,
    *,
    message: str,
    token: str | None = None,
    revision: str | None = None,
    state_path: str | None = None,
) -> None:
    """Upload the model in the snapshot of a checkpoint, and remove the snapshot; a failure is no more than a warning.

    Args:
        copy: from `snapshot`.
        repo, message, token, revision: as in `upload`.
        state_path: also upload the whole checkpoint, to be resumed from, into this folder of the repository.
    """
    where = {"token": token, "revision": revision}
    try:
        upload(copy, repo, message=message, ignore=(*NOT_THE_MODEL, *TRAINING_STATE), **where)
        if state_path is not None:
            upload(
                copy, repo, message=f"{message}, checkpoint", path_in_repo=state_path, ignore=ARGUMENTS_FILES, **where
            )
    except HubError as error:
        logger.warning(f"{error}; the training goes on, and the next checkpoint is pushed again.")
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def push_folder(folder: str | Path, repo: str, private: bool | None = None, revision: str | None = None) -> str:
    """Upload a saved model: what `hf-mixup push` does.

    Args:
        folder: the folder of the model, such as an `output_dir` or a checkpoint in it.
        repo: as `name` in `open_repository`, which also says where the access token comes from.
        private: whether a new repository is private.
        revision: the branch; `main` by default.

    Returns:
        The address of the repository.

    Raises:
        UsageError: there is no model in that folder.
        HubError: the upload failed; the sentence ends with the command that tries again.

    Example:
        >>> push_folder("out", "me/model")  # doctest: +SKIP
        'https://huggingface.co/me/model'
    """
    if not Path(folder).is_dir():
        what = "is a file" if Path(folder).exists() else "does not exist"
        raise UsageError(f"the folder {folder} {what}; give the folder of a saved model")
    if not any((Path(folder) / name).is_file() for name in WEIGHTS):
        raise UsageError(
            f"the folder {folder} holds no model (there is no {WEIGHTS[0]}); give the --output_dir of a finished run, "
            "or a checkpoint in it"
        )
    try:
        repo_id = open_repository(repo, private)
        return str(upload(folder, repo_id, message="Upload model", revision=revision).repo_url)
    except HubError as error:
        raise HubError(f"{error}; to try again: {push_command(folder, repo, private, revision)}") from error


def push_command(folder: str | Path, repo: str, private: bool | None = None, revision: str | None = None) -> str:
    """The command line that uploads a folder.

    Example:
        >>> push_command("my model", "me/model", private=True)
        "hf-mixup push 'my model' me/model --private"
    """
    options = ["--private"] if private else []
    options += ["--revision", revision] if revision else []
    return shlex.join(["hf-mixup", "push", str(folder), repo, *options])


def snapshot(folder: str | Path, parent: str | Path, ignore: Sequence[str]) -> Path:
    """A copy of a checkpoint that stays as it is when the checkpoint is removed; takes no space where links work.

    Args:
        folder: the checkpoint.
        parent: the folder to put it into, on the same disk.
        ignore: patterns of files to leave out.
    """
    copy = Path(tempfile.mkdtemp(prefix=SNAPSHOT_PREFIX, dir=parent))
    leave_out = shutil.ignore_patterns(*ignore)
    shutil.copytree(folder, copy, copy_function=_link_or_copy, ignore=leave_out, dirs_exist_ok=True)
    return copy


def remove_snapshots(parent: str | Path) -> None:
    """Remove the snapshots of a run that was killed while it pushed."""
    for folder in Path(parent).glob(f"{SNAPSHOT_PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _patiently(call: Callable[[], Any]) -> Any:
    """Call again, after a pause, while the Hub says that it is the one in trouble."""
    for pause in _PAUSES:
        try:
            return call()
        except Exception as error:
            status = _status(error)
            if status is None or (status != 429 and status < 500):
                raise
            time.sleep(pause)
    return call()


def _offline_switch() -> str:
    """The environment variable that switches the Hub off."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return next((f"{name}={os.environ[name]}" for name in names if os.environ.get(name)), "HF_HUB_OFFLINE=1")


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _reason(error: BaseException) -> str:
    status = _status(error)
    if isinstance(error, OfflineModeIsEnabled):
        return f"{_offline_switch()} switches the Hub off (unset it, and run the same again with a network)"
    if status is None:
        name = type(error).__name__
        return f"of {'an' if name[0] in 'AEIOU' else 'a'} {name} ({first_line(error)})"
    said = getattr(error, "server_message", None)
    return _REASONS.get(status) or f"the Hub answered {status}" + (f" ({' '.join(said.split())})" if said else "")


@cache
def _api() -> HfApi:
    return HfApi(library_name="hf_mixup", library_version=__version__)
