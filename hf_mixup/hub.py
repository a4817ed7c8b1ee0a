"""Uploads to the Hugging Face Hub: what goes there, what never does, and what is said when one fails."""

from __future__ import annotations

import gc
import logging
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi
from huggingface_hub.errors import OfflineModeIsEnabled

from hf_mixup import __version__
from hf_mixup.errors import UsageError, first_line, listed, quoted
from hf_mixup.files import PART_PREFIX
from hf_mixup.shown import visible

logger = logging.getLogger(__name__)

# Weights in several files are numbered so.
_SHARD = "-of-".join(["[0-9]" * 5] * 2)
# What the folder of a model is made of; nothing else is uploaded. Upper and lower case differ, a `*` stops at a slash.
MODEL_FILES = (
    *("config.json", "generation_config.json"),
    # Weights, as safetensors only: loading a pickle runs what stands in it.
    *("model.safetensors", f"model-{_SHARD}.safetensors", "model.safetensors.index.json"),
    *("adapter_config.json", "adapter_model.safetensors"),
    *(f"adapter_model-{_SHARD}.safetensors", "adapter_model.safetensors.index.json"),
    # The tokenizers of all families.
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "vocab-src.json", "vocab-tgt.json", "target_vocab.json"),
    *("dict.txt", "merges.txt", "bpe.codes"),
    *("tokenizer.model", "spiece.model", "spm.model", "spm_char.model", "sentencepiece.model"),
    *("sentencepiece.bpe.model", "source.spm", "target.spm", "*.tiktoken", "tekken.json", "byte_maps.json"),
    *("entity_vocab.json", "emoji.json", "normalizer.json", "word_shape.json", "word_pronunciation.json"),
    *("prophetnet.tokenizer", "chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"),
    *("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE"),
    *("*_results.json", "predict_results_*.txt", "predictions.csv", "predictions-mm.csv"),
    *("runs/events.out.tfevents.*", "runs/*/events.out.tfevents.*", "runs/*/*/events.out.tfevents.*"),
)
# What a finished run has of its training beside them.
TRAINING_STATE = ("trainer_state.json", "label_gate.safetensors")
# All that a run goes on from; by torch, FSDP and DeepSpeed. `training_args.bin` is needed by nobody.
CHECKPOINT_FILES = (
    *(*MODEL_FILES, *TRAINING_STATE, "checksums.json", "run_settings.json"),
    *("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "rng_state_*.pth"),
    *("pytorch_model_fsdp.bin", "optimizer.bin"),
    *(f"{folder}/{name}" for folder in ("pytorch_model_fsdp_*", "optimizer_*") for name in ("*.distcp", ".metadata")),
    *("latest", "zero_to_fp32.py", "global_step*/*_states.pt"),
)
# A copy of a checkpoint on its way to the Hub; only folders of this name are removed.
SNAPSHOT_PREFIX = f"{PART_PREFIX}push-"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
# Of what a user adds. The first never goes up: it may hold an access token.
_NEVER = "training_args.bin"
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pk", ".pickle", ".ckpt", ".joblib", ".dill", ".distcp"}
_SECRETS = ("*token", "*token.*", "*secret*", "*password*", "*credential*", "*.key", "*.pem", "id_*")

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


@dataclass(frozen=True)
class Content:
    """What of a folder is uploaded, from `content_of`.

    Args:
        folder: the folder.
        files: the path of each file by its name in the repository.
        left: what stays behind; the name of a folder of which nothing goes up ends in a slash.
        links: the links among these.
        include: the patterns of files that were added.
    """

    folder: Path
    files: Mapping[str, Path]
    left: Sequence[str]
    links: frozenset[str]
    include: tuple[str, ...] = ()

    def sizes(self) -> dict[str, str]:
        """The size of each file, to be read by people.

        Example:
            >>> content_of("out").sizes()  # doctest: +SKIP
            {'config.json': '1.2 KiB', 'model.safetensors': '86.7 MiB'}
        """
        return {name: _readable(path.stat().st_size) for name, path in self.files.items()}

    def staying(self) -> str:
        """What stays behind, in a few words."""
        names = sorted(self.left, key=lambda name: name not in self.links)
        return listed(f"{name} (a link)" if name in self.links else name for name in names) or "nothing"


def content_of(
    folder: str | Path, allowed: Sequence[str] = MODEL_FILES + TRAINING_STATE, include: Sequence[str] = ()
) -> Content:
    """Sort out what of a folder is uploaded.

    Links are not followed and never go up, wherever they lead; only the folder itself may be one. Names with
    characters that cannot be seen stay behind too.

    Args:
        folder: the folder.
        allowed: patterns of what may go up.
        include: patterns of a user for more. They bring in no `training_args.bin`; what may be a pickle or hold a
            secret, and hidden files, are brought in by their whole names alone.

    Raises:
        UsageError: a pattern of `include` brings in nothing.

    Example:
        >>> list(content_of("out").files)  # doctest: +SKIP
        ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json']
    """
    include = tuple(pattern.removeprefix("./") for pattern in include)
    depth = max(pattern.count("/") for pattern in (*allowed, *include))

    def goes_up(name: str) -> bool:
        return any(_matches(name, pattern) for pattern in allowed) or any(_adds(name, each) for each in include)

    links: set[str] = set()
    files, left = _sorted_out(Path(folder), "", depth, goes_up, links)
    for pattern in include:
        if not any(_adds(name, pattern) for name in files):
            raise UsageError(
                f"--include {quoted(pattern)} brings in no file of {folder}; give the name of a file in it or a "
                f"pattern such as 'figures/*.png' (links and {_NEVER} are never uploaded; hidden files, pickles and "
                "what may hold a secret only by their whole names)"
            )
    return Content(Path(folder), files, left, frozenset(links), include)


def _sorted_out(
    folder: Path, base: str, depth: int, goes_up: Callable[[str], bool], links: set[str]
) -> tuple[dict[str, Path], list[str]]:
    """The files of a folder that go up, and what does not; links are noted. No pattern is deeper than `depth`."""
    files: dict[str, Path] = {}
    left: list[str] = []
    for path in sorted(folder.iterdir()):
        name = f"{base}{path.name}"
        if path.is_symlink():
            links.add(name)
            left.append(name)
        elif path.is_dir():
            inner, others = {}, []
            if name.count("/") < depth and os.access(path, os.R_OK | os.X_OK):
                inner, others = _sorted_out(path, f"{name}/", depth, goes_up, links)
            files |= inner
            left += others if inner else [f"{name}/"]
        # The client shows names as they are.
        elif path.is_file() and visible(name) == name and goes_up(name):
            files[name] = path
        else:
            left.append(name)
    return files, left


def _matches(name: str, pattern: str) -> bool:
    """As in a shell: folder by folder, and only a pattern with a dot at its beginning matches a name with one."""
    parts, patterns = name.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(
        fnmatchcase(part, each) and part.startswith(".") <= each.startswith(".")
        for part, each in zip(parts, patterns, strict=True)
    )


def _adds(name: str, pattern: str) -> bool:
    """Whether a pattern of the user brings in a file."""
    path = PurePosixPath(name.lower())
    if path.name == _NEVER:
        return False
    delicate = (
        any(part.startswith(".") for part in path.parts)
        or not _PICKLES.isdisjoint(path.suffixes)
        or any(fnmatchcase(path.name, each) for each in _SECRETS)
    )
    return name == pattern or (not delicate and _matches(name, pattern))


def _readable(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def upload(
    content: Content,
    repo: str,
    *,
    message: str,
    token: str | None = None,
    revision: str | None = None,
    path_in_repo: str | None = None,
) -> CommitInfo:
    """Upload what goes up of a folder as one commit; a line of the log names it, and what stays behind.

    Args:
        content: what is uploaded.
        repo: the full name of the repository.
        message: the first line of the commit.
        token: as in `open_repository`.
        revision: the branch; `main` by default.
        path_in_repo: the folder in the repository; its top by default.

    Raises:
        HubError: the upload failed.

    Example:
        >>> upload(content_of("out"), "me/model", message="End of training")  # doctest: +SKIP
    """
    prefix = "" if path_in_repo is None else f"{path_in_repo}/"

    def attempt() -> CommitInfo:
        return _api().create_commit(
            repo_id=repo,
            operations=[CommitOperationAdd(prefix + name, path) for name, path in content.files.items()],
            commit_message=message,
            token=token,
            revision=revision,
        )

    try:
        what = listed(f"{name} ({size})" for name, size in content.sizes().items())
        logger.info(f"Uploading to {repo}: {what}; not uploaded: {content.staying()}.")
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
        upload(content_of(copy, MODEL_FILES), repo, message=message, **where)
        if state_path is not None:
            whole = content_of(copy, CHECKPOINT_FILES)
            upload(whole, repo, message=f"{message}, checkpoint", path_in_repo=state_path, **where)
    except HubError as error:
        logger.warning(f"{error}; the training goes on, and the next checkpoint is pushed again.")
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def content_to_push(folder: str | Path, include: Sequence[str] = ()) -> Content:
    """What `hf-mixup push` uploads of a folder.

    Args:
        folder: the folder of the model, such as an `output_dir` or a checkpoint in it.
        include: as in `content_of`.

    Raises:
        UsageError: there is no model in that folder, or one of links; or a pattern brings in nothing.
    """
    if not Path(folder).is_dir():
        what = "is a file" if Path(folder).exists() else "does not exist"
        raise UsageError(f"the folder {folder} {what}; give the folder of a saved model")
    try:
        content = content_of(folder, include=include)
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be read ({error.strerror}); give a folder that can") from error
    needed = [each for each in MODEL_FILES if each.startswith(("model", "adapter", "config"))]
    linked = [name for name in content.links if any(_matches(name, each) for each in needed)]
    if linked:
        raise UsageError(
            f"{min(linked)} in the folder {folder} is a link, and links are not uploaded; copy the folder with the "
            f"files that its links lead to ({shlex.join(['cp', '-rL', str(folder), 'COPY'])}) and give the copy"
        )
    if content.files.keys().isdisjoint(_WEIGHTS):
        raise UsageError(
            f"the folder {folder} holds no model (there is no {_WEIGHTS[0]}); give the --output_dir of a finished "
            "run, or a checkpoint in it"
        )
    return content


def push_folder(content: Content, repo: str, private: bool | None = None, revision: str | None = None) -> str:
    """Upload a saved model: what `hf-mixup push` does.

    Args:
        content: from `content_to_push`.
        repo: as `name` in `open_repository`, which also says where the access token comes from.
        private: whether a new repository is private.
        revision: the branch; `main` by default.

    Returns:
        The address of the repository.

    Raises:
        HubError: the upload failed; the sentence ends with the command that tries again.

    Example:
        >>> push_folder(content_to_push("out"), "me/model")  # doctest: +SKIP
        'https://huggingface.co/me/model'
    """
    try:
        repo_id = open_repository(repo, private)
        return str(upload(content, repo_id, message="Upload model", revision=revision).repo_url)
    except HubError as error:
        again = push_command(content.folder, repo, private, revision, content.include)
        raise HubError(f"{error}; to try again: {again}") from error


def push_command(
    folder: str | Path,
    repo: str,
    private: bool | None = None,
    revision: str | None = None,
    include: Sequence[str] = (),
) -> str:
    """The command line that uploads a folder.

    Example:
        >>> push_command("my model", "me/model", private=True)
        "hf-mixup push 'my model' me/model --private"
    """
    options = ["--private"] if private else []
    options += ["--revision", revision] if revision else []
    options += [word for pattern in include for word in ("--include", pattern)]
    return shlex.join(["hf-mixup", "push", str(folder), repo, *options])


def snapshot(folder: str | Path, parent: str | Path, allowed: Sequence[str]) -> Path:
    """A copy of a checkpoint that stays as it is when the checkpoint is removed; takes no space where links work.

    Args:
        folder: the checkpoint.
        parent: the folder to put it into, on the same disk.
        allowed: as in `content_of`; nothing else is copied.
    """
    copy = Path(tempfile.mkdtemp(prefix=SNAPSHOT_PREFIX, dir=parent))
    for name, path in content_of(folder, allowed).files.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        _link_or_copy(path, copy / name)
    return copy


def remove_snapshots(parent: str | Path) -> None:
    """Remove the snapshots of a run that was killed while it pushed."""
    for folder in Path(parent).glob(f"{SNAPSHOT_PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


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
