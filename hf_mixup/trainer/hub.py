"""Pushes of a run to the Hub, and the model card, as a mixin of the trainer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy
from transformers.utils import PushInProgress

from hf_mixup.files import written_beside
from hf_mixup.hub import (
    CHECKPOINT_FILES,
    MODEL_FILES,
    HubError,
    content_of,
    in_background,
    open_repository,
    push_checkpoint,
    push_command,
    remove_snapshots,
    snapshot,
    upload,
)
from hf_mixup.shown import without_folders
from hf_mixup.trainer.model_card import card_facts, model_card

logger = logging.getLogger(__name__)


class HubMixin:
    """`Trainer`'s pushes without pickles and tokens; a failed one is told, and costs nothing that was trained."""

    def _save(self, *args: Any, **kwargs: Any) -> None:
        # `training_args.bin` would hold the access token in plain text.
        token, self.args.hub_token = self.args.hub_token, None
        try:
            super()._save(*args, **kwargs)
        finally:
            self.args.hub_token = token

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """As `Trainer.init_hf_repo`: create the repository, or find it; called before the training.

        Raises:
            HubError: that failed.
        """
        try:
            self._open_repository(token, private)
        except HubError as error:
            raise HubError(
                f"{error}; mend that, or leave push_to_hub out and upload the model afterwards by hf-mixup push"
            ) from error

    def _open_repository(self, token: str | None, private: bool | None) -> None:
        if not self.is_world_process_zero():
            return
        args = self.args
        name = args.hub_model_id or Path(args.output_dir).absolute().name
        private = args.hub_private_repo if private is None else private
        self.hub_model_id = open_repository(name, private, token or args.hub_token)
        self.push_in_progress = None
        remove_snapshots(args.output_dir)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | Future[CommitInfo] | None:
        """As `Trainer.push_to_hub`, of the model's own files alone; they are on disk before anything else is tried.

        Args:
            commit_message, blocking, token, revision, private: as in `Trainer.push_to_hub`.
            kwargs: for `create_model_card`.

        Raises:
            HubError: the upload failed; the sentence ends with the command that tries again.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        kwargs["tags"] = [*_listed(kwargs.get("tags")), *(getattr(self.model, "model_tags", None) or [])]
        token, revision = token or self.args.hub_token, revision or self.args.hub_revision

        def push() -> CommitInfo:
            options = {"message": commit_message, "token": token, "revision": revision}
            try:
                return upload(content_of(self.args.output_dir), self.hub_model_id, **options)
            except HubError as error:
                raise self._told_how_to_push(error, private, revision) from error

        try:
            if self.hub_model_id is None:
                self._open_repository(token, private)
        except HubError as error:
            raise self._told_how_to_push(error, private, revision) from error
        finally:
            # The upload that is tried again later wants the card too.
            self.create_model_card(**kwargs)
        self._finish_current_push()
        return push() if blocking else in_background(push)

    def _told_how_to_push(self, error: HubError, private: bool | None, revision: str | None) -> HubError:
        folder = Path(self.args.output_dir)
        repo = self.hub_model_id or self.args.hub_model_id or folder.absolute().name
        command = push_command(folder, repo, self.args.hub_private_repo if private is None else private, revision)
        return HubError(f"{error}; the model is saved in {folder}, to upload it later: {command}")

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """As `Trainer`'s, but what is uploaded cannot change or go away meanwhile, and a failure is told."""
        args = self.args
        if not self.is_world_process_zero() or args.hub_strategy == HubStrategy.END:
            return
        running = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if running and not args.hub_always_push:
            return
        self.callback_handler.on_push_begin(args, self.state, self.control)
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        state_path = {HubStrategy.CHECKPOINT: "last-checkpoint", HubStrategy.ALL_CHECKPOINTS: name}.get(
            args.hub_strategy
        )
        try:
            copy = snapshot(checkpoint_folder, args.output_dir, CHECKPOINT_FILES if state_path else MODEL_FILES)
        except OSError as error:
            logger.warning(f"{name} is not pushed, it could not be copied for that: {error}")
            return
        job = in_background(
            push_checkpoint,
            copy,
            self.hub_model_id,
            message=f"Training in progress, step {self.state.global_step}",
            token=args.hub_token,
            revision=args.hub_revision,
            state_path=state_path,
        )
        self.push_in_progress = PushInProgress([*(self.push_in_progress.jobs if running else []), job])

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
        evaluations: Mapping[str, Mapping[str, float]] | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        """Write the model card, `README.md`: as `Trainer.create_model_card`, with how the model was mixed.

        Args:
            language, license, tags, model_name, finetuned_from, dataset_tags, dataset, dataset_args: as in
                `Trainer.create_model_card`.
            tasks: always text-classification; here for `Trainer`'s sake.
            evaluations: what `evaluate` returned, by the name of the evaluated split or file; by default the last
                evaluation that was logged.
            command: the command line of the run, word by word, without access tokens; of absolute paths the card
                keeps what is below the working folder, or the last part.
        """
        if not self.is_world_process_zero():
            return
        repo = self.hub_model_id or self.args.hub_model_id
        facts = card_facts(
            self,
            self._config(),
            name=model_name or (repo or Path(self.args.output_dir).absolute().name).rsplit("/", 1)[-1],
            model_id=repo,
            base_model=finetuned_from,
            evaluations=evaluations,
            license=license,
            language=language,
            tags=_listed(tags),
            dataset=", ".join(_listed(dataset)) or None,
            dataset_id=next(iter(_listed(dataset_tags)), None),
            dataset_config=next(iter(_listed(dataset_args)), None),
            command=None if command is None else without_folders(command),
        )
        path = Path(self.args.output_dir) / "README.md"
        with written_beside(path) as beside:
            model_card(facts).save(beside)


def _listed(value: str | Sequence[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)
