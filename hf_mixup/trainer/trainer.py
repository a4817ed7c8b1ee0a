"""Trainer with mixup: draws the plans, computes the loss of mixed batches, reports what was mixed."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import PreTrainedModel, Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import TrainOutput

from hf_mixup.methods import Method, Mixup
from hf_mixup.mixing import (
    AttentionProbe,
    Objective,
    PairPlan,
    Plan,
    Ratio,
    SpanPlan,
    StepKey,
    balanced_class_weights,
    infer_problem_type,
    weighted_mean,
)
from hf_mixup.mixing.checks import can_read
from hf_mixup.mixing.objectives import IGNORE_INDEX, MULTI_LABEL
from hf_mixup.modeling import MixupModel
from hf_mixup.trainer.arguments import MixupTrainingArguments
from hf_mixup.trainer.checkpoints import SaveAfterEvaluation, check_weights_fit, whole_checkpoint
from hf_mixup.trainer.deepspeed import is_partitioned, look_before_update, without_step, zero_stage
from hf_mixup.trainer.fit import check_adapter, check_attention, check_labels_fit
from hf_mixup.trainer.hub import HubMixin
from hf_mixup.trainer.label_gate import LabelGate
from hf_mixup.trainer.labels import CheckedClasses, as_loss_takes, check_has_rows, check_train_labels
from hf_mixup.trainer.late_weights import LateWeights, scale_gradients
from hf_mixup.trainer.launch import check_launch, in_lockstep, late_weights_error
from hf_mixup.trainer.length_pairs import LengthGroupedPairSampler, TellEpoch
from hf_mixup.trainer.log import MixupLog, means
from hf_mixup.trainer.overrides import (
    gate_error,
    late_error,
    loss_behind,
    loss_behind_error,
    loss_error,
    overrider,
    plan_error,
    step_error,
    unread_weights_error,
)
from hf_mixup.trainer.processes import ProcessesMixin, alone_in_output_dir
from hf_mixup.trainer.resuming import ResumingMixin
from hf_mixup.trainer.row_weights import WEIGHT, CheckedWeights, rows_differ
from hf_mixup.trainer.saving import SavingMixin

logger = logging.getLogger(__name__)

PLAN = "mixup"


class NonFiniteLossError(RuntimeError):
    """The loss or the gradient became NaN or infinite; the weights of the step before are kept."""


class MixupTrainerMixin(SavingMixin, ResumingMixin, HubMixin, ProcessesMixin):
    r"""Mixup for a `Trainer` subclass: put it before that class in the bases.

    A loss of your own goes in as `compute_loss_func(outputs, labels, num_items_in_batch)`, which is called for the own
    and for the partners' labels. An override of `compute_loss` in a subclass passes mixed batches on to
    `super().compute_loss` and may add to what comes back. Evaluation and prediction never mix and stay those of the
    class it is put before.

    A column `weight` of `train_dataset`, finite numbers of at least 0, says how much each row counts: the loss of a
    step is $\sum_i r_i l_i / \sum_i r_i$ over all its batches and processes, and of a mixed row each label counts with
    the weight of the row that it comes from (see `Objective`; `class_weights` multiply that). The model never gets the
    column, and evaluation and prediction ignore it. With 1 in every row the training is the one without the column.

    Differs from `Trainer` on purpose: the loss is the mean over all labelled rows of the accumulated batches of all
    processes, where transformers' heads for BERT, RoBERTa and DistilBERT give gradients too large by the number of
    accumulated batches, and of processes; and a NaN or infinite loss or gradient stops the run before the optimizer
    step.

    The model may also be a module of your own around a mixup model: its `forward` takes `mixup=None`, gives that to
    the mixup model and returns its output. What is saved are then the weights of your module, without a config; the
    mixup model inside saves itself as a plain checkpoint by its `save_pretrained`.

    Logged with the loss, since the last log: `mixup_lambda`, the mean label weight of the own row over all batches;
    `mixup_applied`, the share of batches that were mixed; `mixup_loss`, the mean loss of these.

    Raises:
        TypeError: the arguments are not `MixupTrainingArguments`, or the model is none.
        ValueError: the model cannot mix, or the options do not fit it; weights of rows that are not finite numbers of
            at least 0, or that the loss does not read; the class that the mixin is put before has a
            `compute_loss` of its own, which would not get the mixed batches; in training, when an override in a
            subclass keeps a mixed batch from its plan or from the loss that reads it.

    Example:
        >>> class MyMixupTrainer(MixupTrainerMixin, MyTrainer): ...  # doctest: +SKIP
    """

    def __init__(
        self, model: Any = None, args: MixupTrainingArguments | None = None, *rest: Any, **kwargs: Any
    ) -> None:
        if args is None:
            args = MixupTrainingArguments()
        if not isinstance(args, MixupTrainingArguments):
            raise TypeError(
                f"MixupTrainer needs MixupTrainingArguments, got {type(args).__name__}: "
                "build your arguments with hf_mixup.MixupTrainingArguments, which takes the same options and more."
            )
        if model is not None and not isinstance(model, nn.Module):
            raise TypeError(
                f"MixupTrainer got model={model!r}, which is no model: give what from_pretrained returns, such as "
                "AutoMixupModelForSequenceClassification.from_pretrained(NAME)."
            )
        super().__init__(model, args, *rest, **kwargs)
        # The heads accept keyword arguments but ignore num_items_in_batch, and Trainer takes the one for the other.
        self.model_accepts_loss_kwargs = False
        self._label_gate: LabelGate | None = None
        self._late_weights: LateWeights | None = None
        self._loss_behind = loss_behind(type(self), MixupTrainerMixin)
        self.add_callback(SaveAfterEvaluation)
        self.add_callback(TellEpoch)
        self._start_anew()
        if self._current_mixup().method.site is None and self.train_dataset is not None and self.args.should_log:
            # Whoever loads a model that can mix wants it to; the model of a baseline may be one that cannot.
            can_mix = any(isinstance(module, MixupModel) for module in self.model.modules())
            logger.log(
                logging.WARNING if can_mix else logging.INFO,
                "mixup_method='none', the default, mixes nothing; choose a method, such as mixup_method='amplify', "
                "unless you want plain fine-tuning.",
            )
        if self.args.parse_class_weights() is not None:
            if self.compute_loss_func is not None or self._loss_behind is not None:
                raise ValueError(f"class_weights have no effect on {self._own_loss()}: weigh the classes there.")
            self._class_weights()
        if rows_differ(self.train_dataset) and not self._computes_loss():
            raise unread_weights_error(self._own_loss())
        if self._problem_type() is not None and self._computes_loss():
            # It refuses what has no meaning for such labels.
            Objective(self._problem_type(), self._class_weights(), self.args.label_smoothing_factor)

    def create_accelerator_and_postprocess(self) -> None:
        """As `Trainer.create_accelerator_and_postprocess`, but FSDP2 casts nothing that goes into or out of a module.

        It would else round the weights of plans to half precision, 0.9985 to 1. Ids need no cast, and states have the
        precision of the weights that they were computed with. Under DeepSpeed the guard looks where it still can.
        """
        super().create_accelerator_and_postprocess()
        if self.is_deepspeed_enabled:
            look_before_update(self.accelerator, self._look_at_loss, self._look_at_gradient)
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        policy = getattr(plugin, "mixed_precision_policy", None)
        if isinstance(policy, MixedPrecisionPolicy):
            plugin.mixed_precision_policy = replace(policy, cast_forward_inputs=False, output_dtype=None)

    def _start_anew(self) -> None:
        """Forget what belongs to one training run; options and model may be others in the next."""
        self._mixup: Mixup | None = None
        self._mixup_model: nn.Module | None = None
        self._mixup_options: tuple[str, dict[str, Any]] | None = None
        self._recorded: Mixup | None = None
        self._objective: Objective | None = None
        self._non_finite = torch.zeros((), device=self.args.device)
        self._filters_logs = self.args.logging_nan_inf_filter
        self._mixup_log = MixupLog()
        self._mixup_sums = np.zeros(5)
        self._saved_step: tuple[int, int] | None = None
        # Whether checkpoints of an earlier run are out of the way.
        self._made_way = False
        self._run_settings: dict[str, Any] | None = None
        # The weight of all rows of the optimizer step; None where the loss of one batch sums its weights up itself.
        self._group_total: Tensor | None = None
        # Whether only the loss of the step's one batch in each process knows its weights.
        self._weights_in_loss = False
        # Whether a pass of `training_step` is at work, it has a plan, and its loss is trained on.
        # The last: whether there was a pass since the last update.
        self._in_step = self._mixed_pass = self._loss_used = self._stepped = False
        # Whether train labels are missing (-100); None where that was not looked at.
        self._labels_missing: bool | None = None
        # Whether the train data have weights that are not all 1; None where that was not looked at.
        self._rows_differ: bool | None = None
        # Whether batches of the optimizer step have weights, and those of the pass that is at work.
        self._weighs_rows = False
        self._row_weights: Tensor | None = None

    # ---- Plans ----

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.train`, but it resumes only from a checkpoint with which it ends like an undisturbed run.

        Args:
            resume_from_checkpoint: the folder of a checkpoint; or True for the newest whole one of `output_dir`:
                newer ones that were not written to the end are renamed to `broken-checkpoint-N`, with a warning.
            args, kwargs: as in `Trainer.train`.

        A run that does not go on from a checkpoint of `output_dir` renames those that it finds there to
        `old-checkpoint-N`, or removes them with `overwrite_output_dir`.

        Raises:
            CheckpointError: there is no such checkpoint, a file of it is missing or damaged, or it is another
                model's.
            NonFiniteLossError: the loss or the gradient became NaN or infinite; `model` holds the weights of the step
                before.
            SaveError: the disk is full; the checkpoints saved before are untouched.
            UsageError: another run writes into `output_dir`, a checkpoint in it is a link, or the processes of the
                run differ in their options, data or model.
            ValueError: mixing under `DataParallel`, which would cut partners off from their rows; or labels that the
                model cannot be trained with.
        """
        if self.args.n_gpu > 1 and self.args.mixup().site is not None:
            raise ValueError(
                f"Mixing cannot train under DataParallel (one process, {self.args.n_gpu} GPUs): start one process for "
                f"each GPU with `torchrun --nproc_per_node {self.args.n_gpu} YOUR_SCRIPT ...` or "
                "`accelerate launch YOUR_SCRIPT ...`, or show it one GPU with CUDA_VISIBLE_DEVICES=0."
            )
        self._start_anew()
        self._check_same_run(resume_from_checkpoint)
        # Trials of a search, which may run at once, have folders of their own.
        is_trial = bool(args and args[0] is not None) or kwargs.get("trial") is not None
        with nullcontext() if is_trial else alone_in_output_dir(self.args):
            if resume_from_checkpoint is not None and resume_from_checkpoint is not False:
                has_config = isinstance(self.model, PreTrainedModel)
                resume_from_checkpoint = whole_checkpoint(self.args, resume_from_checkpoint, has_config)
                if self.is_deepspeed_enabled and not is_partitioned(self.model):
                    # It loads by itself, outside `_load_from_checkpoint`.
                    check_weights_fit(resume_from_checkpoint, self.model)
            try:
                output = super().train(resume_from_checkpoint, *args, **kwargs)
            finally:
                self.args.logging_nan_inf_filter = self._filters_logs
            if self.args.mixup_method != "none":
                self._end_mixup_log()
            return output

    def hyperparameter_search(self, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.hyperparameter_search`, but no other run writes into `output_dir` meanwhile."""
        with alone_in_output_dir(self.args):
            return super().hyperparameter_search(*args, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        """As `Trainer.get_train_dataloader`; looks at the labels first, which on a GPU would end the process.

        Raises:
            ValueError: labels that the model cannot be trained with, weights of rows that are no weights, or no rows.
        """
        self._check_same_data("training", self.train_dataset)
        check_has_rows(self.train_dataset, "train_dataset")
        if self._computes_loss():
            self._labels_missing = check_train_labels(self.train_dataset, self.data_collator, self._config())
        self._rows_differ = rows_differ(self.train_dataset)
        with self._checked_classes("train_dataset"), self._kept_weights():
            return super().get_train_dataloader()

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        """As `Trainer.get_eval_dataloader`, but a class id that the model does not have is a sentence.

        Raises:
            ValueError: no rows.
        """
        with self._checked_classes("eval_dataset"):
            loader = super().get_eval_dataloader(eval_dataset)
        # Only now: in the call before, the processes compare their data sets, and all find it if one has no rows.
        named = self.eval_dataset if eval_dataset is None else eval_dataset
        check_has_rows(self.eval_dataset[named] if isinstance(named, str) else named, "eval_dataset")
        return loader

    @contextmanager
    def _checked_classes(self, what: str) -> Iterator[None]:
        """Batches of a loader that is made inside are looked at before they are moved to a device."""
        collator = self.data_collator
        if self._computes_loss():
            self.data_collator = CheckedClasses(collator, self._config(), what)
        try:
            yield
        finally:
            self.data_collator = collator

    @contextmanager
    def _kept_weights(self) -> Iterator[None]:
        """A loader that is made inside keeps the weights of the rows, unless all of them are 1, and looks at them."""
        if self._rows_differ is False:
            yield
            return
        self._set_signature_columns_if_needed()
        collator, columns = self.data_collator, self._signature_columns
        self.data_collator, self._signature_columns = CheckedWeights(collator), [*columns, WEIGHT]
        try:
            yield
        finally:
            self.data_collator, self._signature_columns = collator, columns

    def _set_signature_columns_if_needed(self) -> None:
        is_new = self._signature_columns is None
        super()._set_signature_columns_if_needed()
        if is_new:
            # Columns of these names are no plan, and no input of the model.
            self._signature_columns = [name for name in self._signature_columns if name not in (PLAN, WEIGHT)]

    def _inner_training_loop(self, batch_size: int | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        if batch_size and self.args.auto_find_batch_size and self.args.groups_pairs():
            # The next size that it tries may be odd, and would cut a pair apart.
            processes = self.args.world_size if self.args.accelerator_config.split_batches else 1
            batch_size -= batch_size % (2 * processes)
            if not batch_size:
                raise RuntimeError("No executable batch size found, reached zero.")
        return super()._inner_training_loop(batch_size, *args, **kwargs)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        # Of all columns: the one of lengths is none of the model's, and gone from what Trainer gives here.
        sampler = super()._get_train_sampler(self.train_dataset)
        if not isinstance(sampler, LengthGroupedSampler) or not self.args.groups_pairs():
            return sampler
        processes = self.args.world_size
        rows = self._train_batch_size // (processes if self.args.accelerator_config.split_batches else 1)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return LengthGroupedPairSampler(sampler.lengths, rows, seed, processes)

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """As `Trainer.get_test_dataloader`, but the rows keep their order, also with
        `train_sampling_strategy="group_by_length"`: predictions are told apart by it.
        """
        strategy, self.args.train_sampling_strategy = self.args.train_sampling_strategy, "random"
        try:
            with self._checked_classes("test_dataset"):
                return super().get_test_dataloader(test_dataset)
        finally:
            self.args.train_sampling_strategy = strategy

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor | int | None]:
        """The batches of one optimizer step, each with its plan if the method mixes."""
        if self.state.global_step >= self.state.max_steps:
            # Resumed from the last checkpoint: Trainer looks whether training is over only after another step.
            self.control.should_training_stop = True
            return [], None
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._label_gate is not None:
            # Trainer clears the gradients of the model after a step; the gate is not in it.
            self._label_gate.zero_grad()
        self._record_mixup()
        planned = []
        for micro, batch in enumerate(batches):
            if "labels" not in batch:
                raise ValueError(
                    f"The training batches hold {', '.join(batch)} but no labels: name the column 'label' or 'labels'."
                )
            _check_no_column(batch)
            if self._rows_differ is False:
                batch = _without_weights(batch)
            planned.append(self._with_plan(self._with_labels_for_loss(batch), micro))
        self._weighs_rows = any(WEIGHT in batch for batch in planned)
        if self._weighs_rows and not self._computes_loss():
            raise unread_weights_error(self._own_loss())
        if self._computes_loss() and planned:
            self._weigh_group(planned)
        return planned, num_items

    def _with_plan(self, batch: dict[str, Any], micro: int) -> dict[str, Any]:
        """The batch with the plan that its step and its number in the step draw, if the method mixes."""
        mixup = self._current_mixup()
        if mixup.method.site is None:
            return batch
        progress = self.state.global_step / max(self.state.max_steps, 1)

        def drawn(rank: int) -> Plan | None:
            key = StepKey(self.args.seed, rank, self.state.global_step, micro)
            return mixup.plan(batch, batch["labels"], key, progress)

        plan = drawn(self.args.process_index)
        if in_lockstep(mixup.method, self.args, zero_stage(self.accelerator), self.is_fsdp_enabled):
            # Every process finds out by itself what the others draw; where they differ, all draw as the first one.
            if any((drawn(rank) is None) != (plan is None) for rank in range(self.args.world_size)):
                plan = drawn(0)
        return {**batch, PLAN: plan}

    def _current_mixup(self) -> Mixup:
        """The method of the arguments as they stand now: hyperparameter search changes them between trials.

        It is made anew where they changed, and not in each step.
        """
        options = self.args.mixup_method, self.args.mixup_options()
        if self._mixup is None or self._mixup_options != options or self._mixup_model is not self.model:
            method = self.args.mixup()
            mixup_model = next((module for module in self.model.modules() if isinstance(module, MixupModel)), None)
            if method.site is not None and mixup_model is None:
                raise ValueError(
                    f"mixup_method={method.name!r} cannot train a {type(self.model).__name__}, which does not mix: "
                    "load the model with AutoMixupModelForSequenceClassification, or choose mixup_method='none'."
                )
            if method.site is not None:
                _check_takes_plans(self.model)
            if method.updates > 1 and self.args.gradient_accumulation_steps > 1:
                raise ValueError(
                    f"mixup_updates={method.updates} makes several updates of a batch, gradient_accumulation_steps="
                    f"{self.args.gradient_accumulation_steps} one update of several batches: set one of the two to 1."
                )
            check_launch(method, self.args, self.accelerator, self.is_fsdp_enabled)
            if method.site is not None and self._loss_behind is not None:
                raise loss_behind_error(self._loss_behind, method.name)
            if self.compute_loss_func is not None:
                _check_loss_func(method)
            else:
                check_labels_fit(method, self._problem_type(), self._label_smoothing())
            check_adapter(method, self.model)
            check_attention(method, self._config())
            self._mixup, self._mixup_model, self._mixup_options = self._new_mixup(method), self.model, options
        return self._mixup

    def _record_mixup(self) -> None:
        """Note in the config how the model is trained: whatever was noted there before."""
        config, mixup = self._config(), self._current_mixup()
        if mixup is self._recorded:
            return
        self._recorded = mixup
        if mixup.method.site is not None:
            config.mixup = mixup.settings()
        elif hasattr(config, "mixup"):
            del config.mixup
        if hasattr(config, "calibration"):
            del config.calibration

    def _new_mixup(self, method: Method) -> Mixup:
        if method.site is None:
            return Mixup(method, num_layers=0)
        config = self._config()
        return Mixup(
            method,
            num_layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            num_heads=config.num_attention_heads,
            special_ids=_special_ids(self.processing_class),
        )

    # ---- Loss ----

    def _prepare_inputs(self, inputs: dict[str, Tensor | Any]) -> dict[str, Tensor | Any]:
        """As `Trainer._prepare_inputs`; labels of another type than the head's loss takes get that type.

        The weights of rows are left out: a training step has them already, and an evaluation does not count them.
        """
        return self._with_labels_for_loss(_without_weights(super()._prepare_inputs(inputs)))

    def _with_labels_for_loss(self, batch: dict[str, Any]) -> dict[str, Any]:
        if not self._computes_loss() or not isinstance(batch.get("labels"), Tensor):
            return batch
        return {**batch, "labels": as_loss_takes(batch["labels"], self._config().problem_type)}

    def _computes_loss(self) -> bool:
        """Whether the loss is the mixin's, and not a function or a class of the user's or that of a bare module."""
        return self.compute_loss_func is None and self._loss_behind is None and self._config() is not None

    def _own_loss(self) -> str:
        """The words for a loss that is not the mixin's."""
        if self._loss_behind is not None:
            return f"a {self._loss_behind}.compute_loss of your own"
        return "a compute_loss_func of your own" if self.compute_loss_func is not None else "the loss of a bare module"

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The loss of one batch, mixed if its plan says so; outside training, the parent's.

        Args:
            model: the model, perhaps wrapped.
            inputs: the model's inputs, `labels` among them; left unchanged.
            return_outputs: whether to return the model's output too.
            num_items_in_batch: what a `compute_loss_func` is given; the mixin's own loss knows the weight of the step.
        """
        inputs = dict(_without_weights(inputs))
        _check_no_column(inputs)
        plan: Plan | None = inputs.pop(PLAN, None)
        planned, labels = self._in_step or plan is not None, inputs.get("labels")
        if not planned and not (self._computes_loss() and self._evaluates_itself(labels)):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch=num_items_in_batch)
        if plan is None and (not self._computes_loss() or (planned and self._is_stock_step(labels))):
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch=num_items_in_batch)
        else:
            del inputs["labels"]
            outputs = model(**inputs) if plan is None else _mixed_output(model(**inputs, mixup=plan))
            if plan is not None and self._has_gate():
                outputs.label_weight = self._label_gate(outputs.pooled)
            loss = self._reduced_loss(outputs, labels, plan, num_items_in_batch, planned)
        if planned:
            self._log_loss(loss, outputs, plan)
            if loss.requires_grad and (plan is not None or not self._mixed_pass):
                loss.register_hook(self._note_use)
        return (loss, outputs) if return_outputs else loss

    def _note_use(self, gradient: Tensor) -> None:
        """Called in the backward pass when the loss of this class is a part of what is trained on."""
        self._loss_used = True

    def _has_gate(self) -> bool:
        """Whether label weights are learned; a gate of an earlier training may still be there."""
        return self._label_gate is not None and self._current_mixup().method.label_weight == "learned"

    def _log_loss(self, loss: Tensor, outputs: Any, plan: Plan | None) -> None:
        # Trainer divides by the number of accumulated batches, but not what a loss function of the user gives.
        if self.compute_loss_func is not None:
            loss = loss * self.current_gradient_accumulation_steps
        if isinstance(plan, SpanPlan) and plan.label_weight is None:
            self._mixup_log.add_clean(loss)
        else:
            self._mixup_log.add(loss, plan is not None, None if plan is None else outputs.label_weight)

    def _reduced_loss(
        self, outputs: Any, labels: Tensor, plan: Plan | None, num_items: Tensor | int | None, planned: bool
    ) -> Tensor:
        if self.compute_loss_func is not None:
            return self._custom_loss(outputs, labels, plan, num_items)
        label_weight = None if plan is None else outputs.label_weight
        objective = self._objective_for(labels, weighted=planned)
        losses, weights = objective(outputs.logits, labels, plan, label_weight, self._row_weights)
        total = self._group_total if planned else None
        if planned and self._late_weights is not None:
            self._late_weights.add(weights)
        elif planned and self._weights_in_loss:
            total = self.accelerator.gather(weights.detach().sum()).sum()
        loss = weighted_mean(losses, weights, total)
        if total is None:
            return loss
        # Trainer divides by the number of accumulated batches, and distributed training averages over the processes.
        return loss * (self.current_gradient_accumulation_steps * self.args.world_size)

    def _custom_loss(self, outputs: Any, labels: Tensor, plan: PairPlan, num_items: Tensor | int | None) -> Tensor:
        share = outputs.label_weight[0]
        own = self.compute_loss_func(outputs, labels, num_items_in_batch=num_items)
        theirs = self.compute_loss_func(outputs, labels.index_select(0, plan.partner), num_items_in_batch=num_items)
        loss = share * own + (1 - share) * theirs
        if self.args.average_tokens_across_devices and num_items is not None:
            loss = loss * self.accelerator.num_processes
        return loss

    def _is_stock_step(self, labels: Tensor) -> bool:
        """Whether `Trainer`'s own loss is right for this plain batch; then it is used, to the last bit."""
        alone = self.current_gradient_accumulation_steps == 1 and self.args.world_size == 1
        is_weighted = self.args.class_weights is not None or self._row_weights is not None
        if not alone or is_weighted or self._has_soft_labels(labels):
            return False
        if self._labels_missing is None:
            # The head takes -100 for one more label in a row of several, and the mean over no class is no number.
            several = self._objective_for(labels).problem_type == MULTI_LABEL
            return not several and can_read(labels) and not (labels == IGNORE_INDEX).any()
        return not self._labels_missing

    def _has_soft_labels(self, labels: Tensor) -> bool:
        single = self._config().problem_type == "single_label_classification"
        return single and labels.ndim > 1 and labels.is_floating_point()

    def _evaluates_itself(self, labels: Tensor | None) -> bool:
        """Whether the head has no right loss for these labels of an evaluation."""
        if labels is None:
            return False
        several = self._config().problem_type == MULTI_LABEL
        return self._has_soft_labels(labels) or (several and bool((labels == IGNORE_INDEX).any()))

    def _objective_for(self, labels: Tensor, weighted: bool = True) -> Objective:
        """The loss of these labels, in training with the weights of their classes."""
        config = self._config()
        if config.problem_type is None:
            # What the head itself would write into its config on the first batch with labels.
            config.problem_type = infer_problem_type(config.num_labels, labels)
        if self._objective is None or self._objective.problem_type != config.problem_type:
            self._objective = Objective(config.problem_type, self._class_weights(), self._label_smoothing())
        return self._objective if weighted else replace(self._objective, class_weights=None)

    def _label_smoothing(self) -> float:
        return self.args.label_smoothing_factor if self.label_smoother is not None else 0.0

    def _problem_type(self) -> str | None:
        """The kind of the labels; None while only the first batch will tell it."""
        config = self._config()
        inferred = "regression" if getattr(config, "num_labels", 0) == 1 else None
        return getattr(config, "problem_type", None) or inferred

    def _weigh_group(self, planned: list[dict[str, Any]]) -> None:
        """Find the weight of the rows of all accumulated batches on all processes, before or in the first loss."""
        self._group_total = self._late_weights = None
        # Made in any case: it refuses options that do not go with the kind of the labels.
        objective = self._objective_for(planned[0]["labels"])
        comes_late = self._weights_come_late(objective)
        self._weights_in_loss = comes_late and len(planned) == 1
        plans = [batch.get(PLAN) for batch in planned]
        if len(planned) == self.args.world_size == 1 and not isinstance(plans[0], SpanPlan):
            # The loss sums up these weights itself. Two passes share one sum.
            self._weights_in_loss = False
            return
        if self._weights_in_loss:
            return
        plans = [
            plan.shared(batch) if isinstance(plan, SpanPlan) else plan
            for batch, plan in zip(planned, plans, strict=True)
        ]
        weights = [
            objective.weights(batch["labels"], plan, batch.get(WEIGHT)).sum()
            for batch, plan in zip(planned, plans, strict=True)
        ]
        total = torch.stack(weights).sum().to(self.args.device)
        self._group_total = self.accelerator.gather(total).sum() if self.args.world_size > 1 else total
        if comes_late:
            if self.is_deepspeed_enabled:
                raise late_weights_error(self._current_mixup().method)
            for method in ("compute_loss", "training_step"):
                if self._is_overridden(method):
                    raise late_error(self._overrider(method), method, self._current_mixup().method.name)
            self._late_weights = LateWeights(self._group_total)
            self._mixup_log.start_group()

    def _weights_come_late(self, objective: Objective) -> bool:
        """Whether the weights of mixed rows are unknown before the model finds their label weights.

        The same on all processes, whatever each of them draws: they sum up these weights together.
        """
        found_late = isinstance(self._current_mixup().method.ratio, AttentionProbe) or self._has_gate()
        labels_alike = objective.class_weights is None and self._labels_missing is False
        all_alike = labels_alike or objective.problem_type == "regression"
        return found_late and (self._weighs_rows or not all_alike)

    def _class_weights(self) -> Tensor | None:
        weights = self.args.parse_class_weights()
        num_labels = self._config().num_labels
        if weights is None:
            return None
        if weights == "balanced":
            columns = getattr(self.train_dataset, "column_names", None) or []
            column = next((name for name in ("labels", "label") if name in columns), None)
            if column is None:
                raise ValueError(
                    "class_weights='balanced' needs a train_dataset (datasets.Dataset) with a column 'label' or "
                    "'labels': give one, or give the weights as numbers."
                )
            weights = balanced_class_weights(self.train_dataset[column], num_labels)
        if len(weights) != num_labels:
            raise ValueError(
                f"class_weights has {len(weights)} numbers, but the model has {num_labels} classes: give one each."
            )
        return torch.tensor(weights, dtype=torch.float32, device=self.args.device)

    def _config(self) -> Any:
        """The config of the model, or of the one inside it; None for a bare module."""
        model = next((module for module in self.model.modules() if isinstance(module, PreTrainedModel)), self.model)
        return getattr(model, "config", None)

    # ---- Updates ----

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """As `Trainer.create_optimizer`; also trains the gate of a learned label weight."""
        learned = self.args.mixup().label_weight == "learned"
        is_new = self.optimizer is None
        if is_new:
            self._label_gate = None
        if learned and not is_new and self._label_gate is None:
            raise ValueError(
                "mixup_label_weight='learned' trains a gate beside the model, which an optimizer of your own does not "
                "know: leave optimizers out, or choose another mixup_label_weight."
            )
        super().create_optimizer(*args, **kwargs)
        if is_new and learned:
            self._label_gate = LabelGate(self._config().hidden_size).to(self.args.device)
            self.optimizer.add_param_group({"params": list(self._label_gate.parameters()), "weight_decay": 0.0})
        return self.optimizer

    def _average_gate_gradients(self) -> None:
        """What distributed training does for the model; every process takes part, also one that mixed nothing."""
        for parameter in self._label_gate.parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self.accelerator.reduce(gradient, "mean")

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """As `Trainer.training_step`, but for methods that make several updates, or two passes, of a batch.

        Raises:
            ValueError: a subclass left out a part of the step that the method needs.
        """
        method = self._current_mixup().method
        if PLAN not in inputs and method.site is not None:
            raise plan_error(self._overrider("get_batch_samples"), method.name)
        if method.label_weight == "learned" and self._label_gate is None:
            raise gate_error(self._overrider("create_optimizer"))
        for update in range(1, method.updates):
            self._one_pass_or_two(model, inputs, num_items_in_batch)
            grad_norm = self._clip_grad_norm(model) if self.args.max_grad_norm > 0 else None
            self._get_grad_norm(model, grad_norm=grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            inputs = self._with_plan(inputs, micro=update)
            if self._computes_loss():
                self._weigh_group([inputs])
        loss = self._one_pass_or_two(model, inputs, num_items_in_batch)
        # Trainer would wait for the device to look at this loss; the guard looks before it can be logged.
        self.args.logging_nan_inf_filter = False
        return loss

    def _one_pass_or_two(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None
    ) -> Tensor:
        two_passes = isinstance(inputs.get(PLAN), SpanPlan)
        loss = (self._two_passes if two_passes else self._one_pass)(model, inputs, num_items_in_batch)
        if self._late_weights is not None:
            loss = self._divided_by_late_weights(model, loss)
        # A sum that meets a NaN or an infinity never becomes 0 again.
        self._non_finite = self._non_finite + 0 * loss
        return loss

    def _divided_by_late_weights(self, model: nn.Module, loss: Tensor) -> Tensor:
        """What this pass reports; after the last one of the step, with the correction of all its losses."""
        late = self._late_weights
        late.add_loss(loss)
        if not self.accelerator.sync_gradients:
            return loss
        factor = late.factor(self.accelerator.gather)
        scale_gradients(model, factor)
        if self._label_gate is not None:
            scale_gradients(self._label_gate, factor)
        self._mixup_log.scale_group(factor)
        return loss + (factor - 1) * late.losses

    def _overrider(self, method: str) -> str:
        return overrider(type(self), MixupTrainerMixin, method)

    def _is_overridden(self, method: str) -> bool:
        return method in vars(self) or getattr(type(self), method) is not getattr(MixupTrainerMixin, method)

    def _one_pass(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None) -> Tensor:
        self._in_step, self._stepped, self._loss_used = True, True, False
        self._mixed_pass = inputs.get(PLAN) is not None
        # Here and not among the inputs, where an override of `compute_loss` would give them to the model.
        self._row_weights = inputs.get(WEIGHT)
        weighted = self._row_weights is not None
        try:
            loss = super().training_step(model, _without_weights(inputs), num_items_in_batch)
        finally:
            self._in_step, self._row_weights = False, None
        if not self._loss_used and (self._mixed_pass or weighted or self.args.class_weights is not None):
            raise loss_error(self._overrider("compute_loss"), self._mixed_pass, weighted)
        return loss

    def _two_passes(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None) -> Tensor:
        """Train the clean rows, read the saliency of their tokens off that backward pass, train the mixed rows."""
        plan, ids, mask = inputs[PLAN], inputs["input_ids"], inputs.get("attention_mask")
        tap = torch.zeros(*ids.shape, self._config().hidden_size, device=ids.device, requires_grad=True)
        # The gradients of both passes are summed before the update, and outside DeepSpeed exchanged only once.
        with without_step(self.accelerator) if self.is_deepspeed_enabled else self.accelerator.no_sync(model):
            clean_loss = self._one_pass(model, {**inputs, PLAN: plan.tapped(tap)}, num_items_in_batch)
        mixed_ids, plan = plan.swapped(ids, mask, tap.grad)
        mixed_inputs = {**inputs, "input_ids": mixed_ids, PLAN: plan}
        return clean_loss + self._one_pass(model, mixed_inputs, num_items_in_batch)

    # ---- Guard and log ----

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Called between the gradient and the optimizer step: the place to stop before the weights are spoilt."""
        self.args.logging_nan_inf_filter = self._filters_logs
        weighted = self.args.class_weights is not None or self._weighs_rows
        if (weighted or self._current_mixup().method.site is not None) and not self._stepped:
            raise step_error(self._overrider("training_step"))
        self._stepped = False
        if self._label_gate is not None and self.args.world_size > 1:
            self._average_gate_gradients()
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # In float16 an infinite gradient is routine: the step is skipped and the scale lowered.
        if getattr(self.accelerator, "scaler", None) is not None:
            # Without the gradient, which all processes share, one that raised alone would leave the others waiting.
            self._stop_if_not_finite(self.accelerator.reduce(self._non_finite, "sum"))
        elif grad_norm is not None and not (self.is_deepspeed_enabled and self.accelerator.mixed_precision == "fp16"):
            self._look_at_gradient(grad_norm)
        else:
            self._stop_if_not_finite(self._non_finite)
        return grad_norm

    def _look_at_loss(self, loss: Tensor) -> None:
        """Called before a backward pass of DeepSpeed, which may update the weights."""
        self._non_finite = self._non_finite + 0 * loss.detach()
        if self.accelerator.sync_gradients:
            self._stop_if_not_finite(self.accelerator.reduce(self._non_finite, "sum"))

    def _look_at_gradient(self, grad_norm: Any) -> None:
        """A norm that all processes share."""
        flag = self._non_finite
        self._stop_if_not_finite(flag + 0 * torch.as_tensor(grad_norm, dtype=flag.dtype).to(flag.device))

    def _stop_if_not_finite(self, flag: Tensor) -> None:
        if not torch.isfinite(flag):
            what = "loss" if not torch.isfinite(self._non_finite) else "gradient"
            raise NonFiniteLossError(
                f"The {what} of step {self.state.global_step + 1} is not a finite number (lambda of its last batch: "
                f"{self._mixup_log.last_lambda():.4g}): training stopped before the weights were changed; try a lower "
                "learning_rate, a warm-up, or bf16 instead of fp16, and look for broken values among the labels."
            )

    def _end_mixup_log(self) -> np.ndarray:
        """Return the sums since the last log, add them to those of the training, and begin with new ones."""
        sums = self._mixup_log.sums(self.accelerator.gather, self.args.device)
        self._mixup_log = MixupLog()
        self._mixup_sums = self._mixup_sums + sums
        return sums

    @property
    def mixed(self) -> dict[str, float]:
        """What the last `train` mixed: `mixup_applied`, `mixup_lambda` and `mixup_loss` over all of its batches.

        Empty before the first training and for `mixup_method='none'`. After a resume, the batches since then count.

        Example:
            >>> trainer.mixed  # doctest: +SKIP
            {'mixup_applied': 1.0, 'mixup_lambda': 0.91, 'mixup_loss': 0.43}
        """
        return means(self._mixup_sums)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As `Trainer.log`; adds what was mixed since the last training log."""
        if "loss" in logs and self.args.mixup_method != "none":
            logs.update(means(self._end_mixup_log()))
        super().log(logs, *args, **kwargs)


class MixupTrainer(MixupTrainerMixin, Trainer):
    """`Trainer` with mixup; takes the same arguments, with `MixupTrainingArguments`. See `MixupTrainerMixin`.

    Example:
        >>> model = AutoMixupModelForSequenceClassification.from_pretrained("FOLDER", num_labels=6)  # doctest: +SKIP
        >>> args = MixupTrainingArguments(output_dir="out", mixup_method="amplify")  # doctest: +SKIP
        >>> MixupTrainer(model=model, args=args, train_dataset=train, eval_dataset=test).train()  # doctest: +SKIP
    """


def _check_no_column(batch: dict[str, Any]) -> None:
    """Raise for a column of the data under the name of the plan, which would take its place."""
    if not isinstance(batch.get(PLAN), Plan | None):
        raise ValueError(
            f"The batches hold a column {PLAN!r}, which is the name under which a plan goes to the model: rename it, "
            "or leave remove_unused_columns on, which removes it."
        )


def _without_weights(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch without the weights of its rows, which are no input of the model."""
    if not isinstance(batch, Mapping) or WEIGHT not in batch:
        return batch
    return {name: value for name, value in batch.items() if name != WEIGHT}


def _check_takes_plans(model: nn.Module) -> None:
    """A module of the user's own around a mixup model must hand the plan down to it."""
    parameters = inspect.signature(model.forward).parameters
    if PLAN not in parameters and all(each.kind is not inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        raise ValueError(
            f"The forward of {type(model).__name__} takes no {PLAN!r}, the plan of a batch: add the parameter "
            f"{PLAN}=None to it, and give that to the mixup model inside ({PLAN}={PLAN})."
        )


def _mixed_output(outputs: Any) -> Any:
    """What a model made of a plan: a module of the user's own may have kept the plan to itself."""
    if not hasattr(outputs, "label_weight"):
        raise TypeError(
            f"The forward of the model gave a {type(outputs).__name__} without label_weight for a mixed batch: give "
            f"{PLAN}={PLAN} to the mixup model inside, and return its output."
        )
    return outputs


def _check_loss_func(method: Method) -> None:
    """A loss function returns one number for the batch, so all its rows must have one lambda and one label each."""
    if method.site is None:
        return
    one_lambda = isinstance(method.ratio, Ratio) and not method.per_sample and not method.per_feature
    if not one_lambda or method.clean == "average":
        raise ValueError(
            f"compute_loss_func returns one number for the batch, which mixup_method={method.name!r} as it is set "
            "cannot weigh: it goes with methods that draw one lambda for a batch of mixed rows (no mixup_per_sample, "
            "no mixup_clean='average'); choose such a one, or leave compute_loss_func out."
        )


def _special_ids(tokenizer: Any) -> list[int]:
    """The ids that begin, separate, end and pad texts; unknown and masked tokens are text."""
    names = ("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
    ids = {getattr(tokenizer, name, None) for name in names}
    return sorted(ids - {None})
