#!/usr/bin/env python
"""Fine-tune a Transformers model for text classification or regression, with or without mixup.

Takes every flag of transformers' `run_glue.py` with the same defaults, outputs and file names, and the mixup ones:

    python run_glue_mixup.py --model_name_or_path bert-base-uncased --task_name mrpc --do_train --do_eval \
        --mixup_method amplify --output_dir out

The data are a GLUE task, another data set of the Hub, or local files (CSV, TSV, JSON, Parquet). With
`--mixup_method none` the same flags and seed give the same model as `run_glue.py`. The whole flow stands in `main` and
`run`, to be read and changed; the details are in `hf_mixup.glue`.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError

import datasets
import numpy as np
import pyarrow as pa
import transformers
from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    default_data_collator,
    set_seed,
)
from transformers.trainer_utils import IntervalStrategy, TrainOutput

from hf_mixup.errors import UsageError, as_one_line, cut, first_line, listed, path_sentence, quoted
from hf_mixup.glue.arguments import parse_arguments, split_names
from hf_mixup.glue.cells import Reading, row_weights
from hf_mixup.glue.faults import fault_sentence, is_of_another_process, tell, watch_the_background
from hf_mixup.glue.folders import (
    check_model_folder,
    check_output_dir,
    find_checkpoint,
    longest_input,
)
from hf_mixup.glue.labels import Labels, infer_labels, labelled_rows, labels_of_model
from hf_mixup.glue.loading import (
    Split,
    choose_text_columns,
    load_glue_splits,
    load_hub_splits,
    load_local_split,
    named_splits,
    split_off_validation,
    without_columns,
)
from hf_mixup.glue.metrics import load_metric, made_up_outputs
from hf_mixup.glue.options import (
    check_best_metric,
    check_label_options,
    check_length_and_schedule,
    check_model_options,
)
from hf_mixup.glue.predictions import write_predictions, write_scores
from hf_mixup.glue.tables import check_delimiter, check_file
from hf_mixup.glue.tasks import TASKS, Task, get_task
from hf_mixup.glue.terminal import class_distribution, closing_lines, head_alone_differs, load_report_held_back
from hf_mixup.glue.tokens import LENGTH, LONG_TEXTS, Encoder, length_sentence, lengths_of
from hf_mixup.glue.traps import (
    class_name_traps,
    missing_class_traps,
    text_column_traps,
    whole_score_traps,
)
from hf_mixup.modeling import AutoMixupModelForSequenceClassification
from hf_mixup.shown import LogFormatter, without_tokens
from hf_mixup.trainer import (
    CheckpointError,
    MixupTrainer,
    MixupTrainingArguments,
    NonFiniteLossError,
    save_on_sigterm,
)
from hf_mixup.trainer.processes import alone_in_output_dir, check_alike, facts_of_options
from hf_mixup.trainer.saving import ALL_RESULTS, read_results

logger = logging.getLogger(__name__)
# What only --log_level info shows, as stock's script does.
details = logging.getLogger(f"{__name__}.details")

# What transformers raises for files of a model that are something else than it expects.
MALFORMED = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


# Every text is padded to --max_seq_length.
MOST_TOKENS = 2**20


@dataclass
class ModelArguments:
    """Which model, configuration and tokenizer to start from."""

    model_name_or_path: str = field(metadata={"help": "Folder of a saved model, or the name of a model of the Hub."})
    config_name: str | None = field(
        default=None, metadata={"help": "Folder or name of the configuration, if it is not the model's."}
    )
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "Folder or name of the tokenizer, if it is not the model's."}
    )
    cache_dir: str | None = field(
        default=None,
        metadata={"help": "Where to keep what is downloaded from the Hub, and the tables and tokens of local files."},
    )
    use_fast_tokenizer: bool = field(
        default=True, metadata={"help": "Whether to take a fast tokenizer (of the tokenizers library)."}
    )
    model_revision: str = field(
        default="main", metadata={"help": "The version of the model on the Hub: a branch, a tag or a commit."}
    )
    token: str | None = field(
        default=None, metadata={"help": "The access token for the Hub. Default: that of `hf auth login`."}
    )
    trust_remote_code: bool = field(
        default=False,
        metadata={
            "help": "Whether to run model code that stands on the Hub. Only for repositories you trust and read."
        },
    )
    ignore_mismatched_sizes: bool = field(
        default=False, metadata={"help": "Whether to start a new classifier where the saved one has another size."}
    )


@dataclass
class DataTrainingArguments:
    """Which data to train, evaluate and predict on, and how to turn them into tokens."""

    task_name: str | None = field(default=None, metadata={"help": "A GLUE task: " + ", ".join(TASKS) + "."})
    dataset_name: str | None = field(
        default=None, metadata={"help": "A data set of the Hub, or a folder of data files or of save_to_disk."}
    )
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "The configuration of the data set of the Hub."}
    )
    max_seq_length: int = field(
        default=128,
        metadata={"help": "Texts are cut to this number of tokens, special ones included (at most 1048576)."},
    )
    truncation_side: str | None = field(
        default=None,
        metadata={
            "help": "Where a text that is too long loses its tokens. Default: where the tokenizer says.",
            "choices": ["left", "right"],
        },
    )
    long_texts: str = field(
        default="cut",
        metadata={
            "help": "What becomes of a text that is too long: cut at one end, or head_tail keeps its first and its "
            "last part.",
            "choices": [*LONG_TEXTS],
        },
    )
    overwrite_cache: bool = field(
        default=False, metadata={"help": "Whether to tokenize texts again whose tokens are in the cache."}
    )
    pad_to_max_length: bool = field(
        default=True,
        metadata={
            "help": "Whether to pad every text to --max_seq_length. If false, a batch is padded to its longest text, "
            "which is faster."
        },
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first rows only, this many."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on the first rows only."})
    max_predict_samples: int | None = field(default=None, metadata={"help": "Predict the first rows only."})
    train_file: list[str] | None = field(
        default=None,
        metadata={
            "help": "The file to train on: .csv, .tsv, .json, .jsonl or .parquet, all but the last also with .gz. "
            "Several of one kind are read one after the other."
        },
    )
    validation_file: list[str] | None = field(
        default=None, metadata={"help": "The file to evaluate on, or several, as for --train_file."}
    )
    test_file: list[str] | None = field(
        default=None,
        metadata={"help": "The file to predict, with or without labels, or several, as for --train_file."},
    )
    delimiter: str | None = field(
        default=None,
        metadata={
            "help": r"The character between the cells of CSV and TSV files, such as ';' or '\t'. Default: a comma, in "
            "TSV files a tab."
        },
    )
    train_split_name: str | None = field(
        default=None, metadata={"help": "The split of --dataset_name to train on. Default: train."}
    )
    validation_split_name: str | None = field(
        default=None, metadata={"help": "The split of --dataset_name to evaluate on. Default: validation."}
    )
    test_split_name: str | None = field(
        default=None, metadata={"help": "The split of --dataset_name to predict. Default: test."}
    )
    remove_splits: str | None = field(
        default=None, metadata={"help": "Splits of --dataset_name to leave out, with commas between them."}
    )
    remove_columns: str | None = field(
        default=None, metadata={"help": "Columns of the data to leave out, with commas between them."}
    )
    text_column_names: str | None = field(
        default=None,
        metadata={
            "help": "The column of the texts, or the two columns of a pair, with a comma between them. Default: those "
            "of the task; else sentence1 and sentence2; else the first text columns."
        },
    )
    text_column_delimiter: str | None = field(
        default=None,
        metadata={
            "help": "Join the texts of --text_column_names, of which there may then be any number, to one text with "
            "this between them. Default: two columns are a pair of texts."
        },
    )
    label_column_name: str | None = field(
        default=None,
        metadata={
            "help": "The column of the labels. Several columns with commas between them hold a 0 or 1 for each class "
            "of which a row has any number, or the probability of each class. Default: label."
        },
    )
    label_delimiter: str | None = field(
        default=None,
        metadata={"help": "What divides the label of a row into several classes, such as '|'."},
    )
    drop_unlabelled: bool = field(
        default=False,
        metadata={"help": "Leave out the rows to train and evaluate on whose label is -1 or empty."},
    )
    extra_labels: str | None = field(
        default=None,
        metadata={
            "help": "Classes that the train rows need not have, with commas between them; --extra_labels=-1 makes -1 "
            "a class."
        },
    )
    do_regression: bool | None = field(
        default=None,
        metadata={
            "help": "Whether numbers are scores to learn (regression) and not classes. Default: those with a decimal "
            "point are."
        },
    )
    weight_column_name: str | None = field(
        default=None,
        metadata={"help": "The column with the weight of each train row in the loss, a number of at least 0."},
    )
    shuffle_train_dataset: bool = field(
        default=False,
        metadata={"help": "Whether to shuffle the train rows before --max_train_samples takes the first of them."},
    )
    shuffle_seed: int = field(default=42, metadata={"help": "The seed of --shuffle_train_dataset."})
    preprocessing_num_workers: int | None = field(
        default=None, metadata={"help": "The number of processes that turn texts into tokens. Default: this one."}
    )
    validation_split: float | None = field(
        default=None,
        metadata={"help": "Take this share of the train rows for validation, drawn by --seed, stratified by class."},
    )
    metric_name: str | None = field(
        default=None,
        metadata={
            "help": "What to report: accuracy, f1, precision, recall, roc_auc or mse, or the name of another metric "
            "of the Hub. Default: the metrics of the task."
        },
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop when this many evaluations in a row bring no better model."}
    )

    def __post_init__(self) -> None:
        if self.task_name is not None:
            self.task_name = get_task(self.task_name).name
        # The shortest text has one token between two special ones.
        lowest = {"max_seq_length": 3, "max_train_samples": 1, "max_eval_samples": 1, "max_predict_samples": 1}
        lowest |= {"preprocessing_num_workers": 1, "shuffle_seed": 0}
        for name, limit in lowest.items():
            value = getattr(self, name)
            if value is not None and value < limit:
                raise UsageError(f"--{name} should be at least {limit}, got {value}")
        if self.max_seq_length > MOST_TOKENS:
            raise UsageError(f"--max_seq_length should be at most {MOST_TOKENS}, got {cut(str(self.max_seq_length))}")
        if self.validation_split is not None and not 0 < self.validation_split < 1:
            raise UsageError(f"--validation_split should be above 0 and below 1, got {self.validation_split}")
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise UsageError(f"--early_stopping_patience should be at least 1, got {self.early_stopping_patience}")
        if self.validation_split is not None and self.validation_file is not None:
            raise UsageError("--validation_split and --validation_file exclude each other; leave one of them out")
        if self.dataset_name is not None and self.files:
            raise UsageError(f"--dataset_name and --{next(iter(self.files))}_file exclude each other; leave one out")
        if self.task_name is None and self.dataset_name is None and not self.files:
            raise UsageError("no data are named; give --task_name, --dataset_name, or --train_file and the like")
        for split, paths in self.files.items():
            for path in paths:
                check_file(path, f"--{split}_file")
        if self.delimiter is not None:
            self.delimiter = check_delimiter(self.delimiter, [path for paths in self.files.values() for path in paths])
        if self.truncation_side is not None and self.long_texts == "head_tail":
            raise UsageError(
                "--truncation_side says which end of a long text is cut off, and --long_texts head_tail keeps both; "
                "leave one of them out"
            )
        if self.weight_column_name in (*self.label_columns, *(self.text_columns or ())):
            raise UsageError(
                f"--weight_column_name {quoted(self.weight_column_name)} is the column of the labels or of the texts; "
                "name that of the weights"
            )
        if self.label_delimiter == "":
            raise UsageError("--label_delimiter is empty; give what stands between two classes of a row, such as '|'")
        if self.files and (self.split_names or self.remove_splits is not None):
            raise UsageError(
                "--train_split_name, --validation_split_name, --test_split_name and --remove_splits name splits of "
                "--dataset_name, and here files are given; leave them out"
            )
        if self.validation_split_name is not None and self.validation_split is not None:
            raise UsageError(
                "--validation_split and --validation_split_name exclude each other; leave one of them out"
            )

    @property
    def files(self) -> dict[str, list[str]]:
        """The local files by split, those that are given."""
        given = {"train": self.train_file, "validation": self.validation_file, "test": self.test_file}
        return {split: paths for split, paths in given.items() if paths is not None}

    @property
    def split_names(self) -> dict[str, str]:
        """The splits of the data set that are to be called train, validation and test."""
        given = {
            "train": self.train_split_name,
            "validation": self.validation_split_name,
            "test": self.test_split_name,
        }
        return {split: name for split, name in given.items() if name is not None}

    @property
    def reading(self) -> Reading:
        """How the label columns are read."""
        extra = split_names(self.extra_labels, "--extra_labels", "labels") or ()
        return Reading(self.label_delimiter, self.do_regression, extra)

    def words_for(self, split: str) -> str:
        """What the rows of a split are called in the model card: their files, or their split of the data set."""
        if split != "validation" or self.validation_split is None:
            return self._file_names(split) or split
        return f"{self.validation_split:.0%} held out of {self._file_names('train') or 'train'}"

    def _file_names(self, split: str) -> str:
        return listed(map(os.path.basename, self.files.get(split, ())))

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The label column, or one for each class."""
        return split_names(self.label_column_name, "--label_column_name") or ("label",)

    @property
    def text_columns(self) -> tuple[str, ...] | None:
        """The text columns, if they are named."""
        return split_names(self.text_column_names, "--text_column_names")


def main(
    argv: list[str] | None = None, callbacks: Sequence[TrainerCallback] = (), prog: str = "run_glue_mixup.py"
) -> dict[str, float]:
    """Train, evaluate and predict as the flags say.

    Args:
        argv: the command line without the program's name; that of the process by default.
        callbacks: more callbacks for the trainer.
        prog: what the program is called in its help.

    Returns:
        The content of `all_results.json`.

    Raises:
        hf_mixup.errors.UsageError: a mistake in flags, files, labels or folders, in one sentence.
        hf_mixup.trainer.NonFiniteLossError: the loss or the gradient became NaN or infinite.
        hf_mixup.trainer.SaveError: the disk is full.
        SystemExit: code 143 after SIGTERM in training, when a checkpoint is saved.
        hf_mixup.hub.HubError: --push_to_hub failed at the end; everything is in --output_dir.

    Example:
        >>> main(["--model_name_or_path", "bert-base-uncased", "--train_file", "train.csv",
        ...       "--do_train", "--output_dir", "out"])  # doctest: +SKIP
    """
    command_line = sys.argv[1:] if argv is None else argv
    (model_args, data_args, training_args), notices = parse_arguments(
        command_line, (ModelArguments, DataTrainingArguments, MixupTrainingArguments), prog
    )
    check_length_and_schedule(training_args)
    check_request(data_args, training_args)
    check_model_folder(model_args.model_name_or_path, model_args.config_name, model_args.tokenizer_name)
    check_output_dir(training_args.output_dir)
    with alone_in_output_dir(training_args):
        return run(model_args, data_args, training_args, command_line, notices, callbacks)


def run(
    model_args: ModelArguments,
    data_args: DataTrainingArguments,
    training_args: MixupTrainingArguments,
    command_line: list[str],
    notices: list[str],
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, float]:
    """The run itself, while no other one writes into --output_dir; `main` says what it returns and raises.

    Args:
        model_args, data_args, training_args: the parsed flags.
        command_line: the flags as they were given, for the model card.
        notices: what is said about them in the log.
        callbacks: more callbacks for the trainer.
    """
    check_alike(training_args, facts_of_options(training_args))
    set_up_logging(training_args)
    checkpoint = find_checkpoint(training_args)
    for notice in notices:
        logger.warning(notice)
    logger.warning(
        f"Process rank: {training_args.local_process_index}, device: {training_args.device}, "
        f"n_gpu: {training_args.n_gpu}, distributed training: {training_args.parallel_mode.value == 'distributed'}, "
        f"16-bits training: {training_args.fp16 or training_args.bf16}"
    )
    details.info(f"Training/evaluation parameters {training_args}")

    # The classifier of a pretrained model starts with random weights, so the seed comes before the model.
    set_seed(training_args.seed)

    # The data, as they stand in their source. Local files have the columns and metrics of --task_name, if it is given.
    task = None if data_args.task_name is None else get_task(data_args.task_name)
    with training_args.main_process_first(desc="reading the data"):
        splits = load_splits(data_args, model_args, training_args)

    # The labels, their kind and their classes: from the train split, or without one from the model that is evaluated.
    config, labels = None, None
    if "train" in splits:
        if data_args.drop_unlabelled:
            splits["train"] = drop_unlabelled(splits["train"], data_args, task)
        labels = infer_labels(splits["train"], data_args.label_columns, task, data_args.reading)
    else:
        config = load_config(model_args, num_labels=None)
        labels = labels_of_model(config, data_args.label_columns, task, data_args.reading)
    if data_args.drop_unlabelled and training_args.do_eval:
        # Only the labels tell whether -1 is a score, a class, or no label.
        splits |= {
            name: drop_unlabelled(split, data_args, task, labels)
            for name, split in splits.items()
            if name.startswith("validation")
        }
    if "train" in splits and data_args.validation_split is not None:
        splits["train"], splits["validation"] = hold_out_validation(splits, labels, data_args, training_args.seed)
    if "train" in splits and data_args.shuffle_train_dataset:
        order = np.random.default_rng(data_args.shuffle_seed).permutation(len(splits["train"]))
        splits["train"] = splits["train"].select(order)
    check_label_options(labels.kind, labels.num_labels, training_args)

    # Which splits are used, and how many rows of each: MNLI has two for validation and two for test.
    train_names = require_splits(splits, "train", "--do_train") if training_args.do_train else []
    eval_names = require_splits(splits, "validation", "--do_eval") if training_args.do_eval else []
    predict_names = require_splits(splits, "test", "--do_predict") if training_args.do_predict else []
    limits = dict.fromkeys(train_names, data_args.max_train_samples)
    limits |= dict.fromkeys(eval_names, data_args.max_eval_samples)
    limits |= dict.fromkeys(predict_names, data_args.max_predict_samples)

    # All texts and labels are checked before the model is loaded, so that a wrong one stops the run early.
    is_joined = data_args.text_column_delimiter is not None
    text_columns = choose_text_columns(
        splits[next(iter(limits))], labels.columns, data_args.text_columns, task, is_joined
    )
    encoded_labels = {name: labels.encode(splits[name]) for name in (*train_names, *eval_names)}
    texts = {name: splits[name].head(limit).texts(text_columns) for name, limit in limits.items()}
    weights = None
    if train_names and data_args.weight_column_name is not None:
        weights = row_weights(splits["train"].head(limits["train"]), data_args.weight_column_name)
    logger.info(f"Texts are read from {listed(text_columns)}, labels ({labels.kind}) from {listed(labels.columns)}.")
    if training_args.should_log:
        for warning in find_traps(splits, labels, encoded_labels, limits, text_columns, data_args):
            logger.warning(warning)

    config = config or load_config(model_args, labels.num_labels)
    check_model_options(config, training_args)
    ordered = in_order_of_model(labels, config)
    if ordered.names != labels.names:
        labels = ordered
        encoded_labels = {name: labels.encode(splits[name]) for name in encoded_labels}
    if labels.kind != "regression":
        config.label2id = {name: index for index, name in enumerate(labels.names)}
        config.id2label = dict(enumerate(labels.names))
    config.problem_type = labels.problem_type

    metric = load_metric(
        labels.kind, labels.num_labels, data_args.task_name, data_args.metric_name, model_args.cache_dir
    )

    # Change this function to report other numbers: it gets the model's outputs and the labels of all rows.
    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        references = prediction.label_ids
        if not training_args.eval_do_concat_batches:
            references = np.concatenate(references, axis=0)
        return measured(model_scores(prediction.predictions), references)

    def measured(scores: np.ndarray, references: np.ndarray) -> dict[str, float]:
        result = metric(scores, references)
        if data_args.task_name is not None and len(result) > 1:
            result["combined_score"] = float(np.mean(list(result.values())))
        return result

    check_best_metric(
        compute_metrics(made_up_outputs(labels.kind, labels.num_labels, training_args.eval_do_concat_batches)),
        training_args,
    )

    tokenizer, model = load_tokenizer_and_model(model_args, training_args, config)

    # From texts to tokens. The tokens of a file are kept in the cache of datasets, beside its texts.
    tokenizer.truncation_side = data_args.truncation_side or tokenizer.truncation_side
    max_seq_length = usable_length(data_args.max_seq_length, tokenizer, model, 1 if is_joined else len(text_columns))
    encoder = Encoder(
        tokenizer,
        text_columns,
        max_seq_length,
        padding="max_length" if data_args.pad_to_max_length else False,
        long_texts=data_args.long_texts,
        text_delimiter=data_args.text_column_delimiter,
    )
    tokenized: dict[str, Dataset] = {}
    lengths = {}
    with training_args.main_process_first(desc="dataset map pre-processing"):
        for name in limits:
            tokenized[name] = tokenize(texts.pop(name), encoder, name, data_args)
            lengths[name] = lengths_of(tokenized[name])
            tokenized[name] = tokenized[name].remove_columns(LENGTH)
            if name in encoded_labels:
                used_labels = encoded_labels.pop(name)[: limits[name]]
                # As an Arrow array, which is quick to take a fingerprint of.
                tokenized[name] = tokenized[name].add_column("label", pa.array(used_labels))
                log_class_distribution(used_labels, labels, name)
    # What is mapped counts as memory: of the files only the rows to predict are looked at again.
    splits = {name: splits[name] for name in predict_names}
    logger.info(length_sentence(lengths, max_seq_length, data_args.long_texts))
    train_dataset = tokenized[train_names[0]] if train_names else None
    if weights is not None:
        train_dataset = train_dataset.add_column("weight", weights)

    if train_dataset is not None:
        for index in random.sample(range(len(train_dataset)), min(3, len(train_dataset))):
            details.info(f"Sample {index} of the training set: {train_dataset[index]}.")

    # Texts that are padded already need no padding; else None lets the trainer pad each batch to its longest text.
    if data_args.pad_to_max_length:
        data_collator = default_data_collator
    elif training_args.fp16:
        data_collator = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8)
    else:
        data_collator = None

    callbacks = [*callbacks]
    if data_args.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(data_args.early_stopping_patience))
    rows_of_a_step = training_args.train_batch_size * training_args.world_size
    if train_dataset is not None and training_args.dataloader_drop_last and len(train_dataset) < rows_of_a_step:
        raise UsageError(
            f"--dataloader_drop_last leaves no batch of the {len(train_dataset)} training rows, a batch has "
            f"{rows_of_a_step}; leave it out, or give a smaller --per_device_train_batch_size"
        )

    try:
        trainer = MixupTrainer(
            model=model,
            args=training_args,
            train_dataset=train_dataset,
            eval_dataset=tokenized[eval_names[0]] if eval_names else None,
            compute_metrics=compute_metrics,
            processing_class=tokenizer,
            data_collator=data_collator,
            callbacks=callbacks,
        )
    except (ValueError, OSError, RuntimeError) as error:
        # Of the RuntimeErrors only that about a tracker of --report_to that is not installed is the user's.
        if isinstance(error, RuntimeError) and "install" not in str(error):
            raise
        raise UsageError(as_one_line(error)) from error

    if train_dataset is not None:
        metrics = train(trainer, checkpoint).metrics
        metrics["train_samples"] = len(train_dataset)
        # The tokenizer too. The upload comes last, so that it cannot keep the run from its numbers.
        trainer.save_model(_internal_call=True)
        trainer.log_metrics("train", metrics)
        trainer.save_metrics("train", metrics)
        trainer.save_state()

    # The numbers of MNLI's second validation split have names that end in _mm.
    evaluations: dict[str, dict[str, float]] = {}
    if eval_names:
        details.info("*** Evaluate ***")
        combined = {}
        for name in eval_names:
            metrics = trainer.evaluate(eval_dataset=tokenized[name])
            metrics["eval_samples"] = len(tokenized[name])
            evaluations[data_args.words_for(name)] = dict(metrics)
            if name.endswith("_mismatched"):
                metrics = {f"{key}_mm": value for key, value in metrics.items()}
            combined.update(metrics)
            trainer.log_metrics("eval", metrics)
            trainer.save_metrics("eval", combined)

    written = [os.path.join(training_args.output_dir, ALL_RESULTS)] if train_names or eval_names else []
    combined = {}
    if predict_names:
        details.info("*** Predict ***")
        for name in predict_names:
            scores = model_scores(trainer.predict(tokenized[name], metric_key_prefix="predict").predictions)
            is_second = name.endswith("_mismatched")
            if trainer.is_world_process_zero():
                suffix = "-mm" if is_second else ""
                path = os.path.join(training_args.output_dir, f"predict_results_{data_args.task_name}{suffix}.txt")
                write_predictions(path, scores, labels)
                table = os.path.join(training_args.output_dir, f"predictions{suffix}.csv")
                write_scores(table, scores, labels)
                written += [path, table]
            known = known_labels(splits[name].head(limits[name]), labels, task, training_args.should_log)
            if known is not None:
                rows, references = known
                metrics = {f"predict_{key}": value for key, value in measured(scores[rows], references).items()}
                metrics["predict_samples"] = len(rows)
                if is_second:
                    metrics = {f"{key}_mm": value for key, value in metrics.items()}
                combined.update(metrics)
                trainer.log_metrics("predict", metrics)
                trainer.save_metrics("predict", combined)
        if combined:
            written.append(os.path.join(training_args.output_dir, "predict_results.json"))

    card = {"finetuned_from": model_args.model_name_or_path, "tasks": "text-classification"}
    if data_args.task_name is not None:
        card["language"] = "en"
        card["dataset_tags"] = "glue"
        card["dataset_args"] = data_args.task_name
        card["dataset"] = f"GLUE {data_args.task_name.upper()}"
    elif data_args.dataset_name is not None and os.path.exists(data_args.dataset_name):
        card["dataset"] = f"the folder {Path(data_args.dataset_name).absolute().name}"
    elif data_args.dataset_name is not None:
        card["dataset_tags"] = card["dataset"] = data_args.dataset_name
        card["dataset_args"] = data_args.dataset_config_name
    elif data_args.train_file is not None:
        files = "file" if len(data_args.train_file) == 1 else "files"
        card["dataset"] = f"the {files} {data_args.words_for('train')}"
    card["evaluations"] = evaluations
    # With $HF_TOKEN in place of an access token.
    secrets = (model_args.token, training_args.hub_token)
    card["command"] = ["python", "run_glue_mixup.py", *without_tokens(command_line, secrets)]
    if training_args.push_to_hub:
        trainer.push_to_hub(**card)
    elif train_names:
        # Where nothing was trained, the folder has no model, or that of an earlier training with a card of its own.
        trainer.create_model_card(**card)

    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        model_name = training_args.output_dir if train_names else model_args.model_name_or_path
        method = training_args.mixup_method if train_names else None
        sys.stdout.write(closing_lines(model_name, method, trainer.mixed, written) + "\n")
        sys.stdout.flush()
    return read_results(training_args.output_dir) if train_names or eval_names or combined else {}


def check_request(data_args: DataTrainingArguments, training_args: MixupTrainingArguments) -> None:
    """Check that the flags name all data that the chosen steps need.

    Raises:
        UsageError: if not.
    """
    steps = (
        ("train", training_args.do_train, data_args.train_file),
        ("validation", training_args.do_eval, data_args.validation_file or data_args.validation_split),
        ("test", training_args.do_predict, data_args.test_file),
    )
    if not any(wanted for _, wanted, _ in steps):
        raise UsageError("nothing is to be done; give --do_train, --do_eval or --do_predict, or several of them")
    for (split, wanted, source), step in zip(steps, ("--do_train", "--do_eval", "--do_predict"), strict=True):
        if data_args.files and wanted and source is None:
            instead = " or --validation_split 0.1" if split == "validation" else ""
            raise UsageError(f"{step} needs a {split} file; give --{split}_file{instead}")
    if data_args.files and data_args.validation_split is not None and data_args.train_file is None:
        raise UsageError("--validation_split takes rows away from train; give --train_file")
    if data_args.early_stopping_patience is not None and not (
        training_args.load_best_model_at_end and training_args.eval_strategy != IntervalStrategy.NO
    ):
        raise UsageError(
            "--early_stopping_patience compares evaluations during training; "
            "add --eval_strategy epoch --save_strategy epoch --load_best_model_at_end"
        )
    if training_args.mixup().updates > 1 and training_args.gradient_accumulation_steps > 1:
        raise UsageError(
            "--mixup_updates makes several updates of a batch and --gradient_accumulation_steps one update of several "
            "batches; set one of the two to 1"
        )
    # torch counts the processes only where it knows a backend for their device, which an Apple GPU has none of.
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1 and training_args.world_size == 1:
        raise UsageError(
            f"{processes} processes were started, but each would train alone and write into the same folder; add "
            "--use_cpu, which makes them one run on the CPU"
        )
    if training_args.do_train and training_args.n_gpu > 1 and training_args.mixup().site is not None:
        raise UsageError(
            f"one process cannot mix on {training_args.n_gpu} GPUs; start the script with "
            f"torchrun --nproc_per_node {training_args.n_gpu} or accelerate launch"
        )


def set_up_logging(training_args: MixupTrainingArguments) -> None:
    """Log at the level of --log_level; --disable_tqdm means every bar.

    By default the main process tells what matters in few lines, and of other libraries the warnings; `--log_level
    info` shows all that stock's script does.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(LogFormatter("%(asctime)s - %(levelname)s - %(name)s - %(message)s", "%m/%d/%Y %H:%M:%S"))
    logging.basicConfig(handlers=[handler])
    own_level = level = training_args.get_process_log_level()
    if training_args.log_level == "passive" and training_args.should_log:
        own_level, level = logging.INFO, logging.WARNING
    logger.setLevel(own_level)
    details.setLevel(level)
    # What is uploaded is told as information; warnings of this library are always shown.
    logging.getLogger("hf_mixup").setLevel(min(own_level, logging.WARNING))
    datasets.utils.logging.set_verbosity(level)
    transformers.utils.logging.set_verbosity(level)
    if level > logging.INFO:
        # Memory is pinned by default, which on a CPU means nothing.
        warnings.filterwarnings("ignore", "'pin_memory' argument is set as true but no accelerator", UserWarning)
    transformers.utils.logging.enable_default_handler()
    # The format of transformers' enable_explicit_format.
    for handler in transformers.utils.logging.get_logger().handlers:
        handler.setFormatter(LogFormatter("[%(levelname)s|%(filename)s:%(lineno)s] %(asctime)s >> %(message)s"))
    if training_args.disable_tqdm:
        datasets.disable_progress_bars()
        transformers.utils.logging.disable_progress_bar()
    else:
        datasets.enable_progress_bars()
        transformers.utils.logging.enable_progress_bar()


def load_splits(
    data_args: DataTrainingArguments, model_args: ModelArguments, training_args: MixupTrainingArguments
) -> dict[str, Split]:
    """Load what the chosen steps need: local files if there are any, else the GLUE task, else the Hub's data set."""
    if data_args.files:
        needed = {"train": True, "validation": training_args.do_eval, "test": training_args.do_predict}
        splits = {
            split: load_local_split(paths, data_args.delimiter, model_args.cache_dir)
            for split, paths in data_args.files.items()
            if needed[split]
        }
    elif data_args.task_name is not None:
        if data_args.dataset_name is not None:
            logger.warning(f"--dataset_name {data_args.dataset_name} is ignored, --task_name goes before it.")
        splits = load_glue_splits(get_task(data_args.task_name), model_args.cache_dir, model_args.token)
    else:
        splits = load_hub_splits(
            data_args.dataset_name, data_args.dataset_config_name, model_args.cache_dir, model_args.token
        )
    removed = split_names(data_args.remove_splits, "--remove_splits", "splits") or ()
    splits = named_splits(splits, removed, data_args.split_names)
    return without_columns(splits, split_names(data_args.remove_columns, "--remove_columns") or ())


def drop_unlabelled(
    split: Split, data_args: DataTrainingArguments, task: Task | None, labels: Labels | None = None
) -> Split:
    """Leave out the rows whose label is -1 or empty, and log how many there are."""
    kept = labelled_rows(split, data_args.label_columns, task, data_args.reading, labels)
    if len(kept) == 0:
        raise UsageError(f"{split.source} has no row with a label; give labels, or leave --drop_unlabelled out")
    logger.info(f"{len(split) - len(kept)} of {len(split)} rows of {split.source} have no label and are left out.")
    return split if len(kept) == len(split) else split.select(kept)


def known_labels(
    split: Split, labels: Labels, task: Task | None, should_log: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """Find the rows to predict that have a label, and those labels as numbers; None if there are no such rows.

    Labels that cannot be read are a warning of the process that logs: a prediction does not need them.
    """
    if not all(column in split for column in labels.columns):
        return None
    try:
        rows = labelled_rows(split, labels.columns, task, labels.reading, labels)
        return (rows, np.array(labels.encode(split.select(rows)))) if len(rows) else None
    except UsageError as error:
        if should_log:
            logger.warning(f"The predictions are compared with no labels: {error}.")
        return None


def require_splits(splits: dict[str, Split], name: str, step: str) -> list[str]:
    """Return the names of the splits for a step: two for MNLI's validation and test, else one.

    Raises:
        UsageError: if there is none.
    """
    for names in ([name], [f"{name}_matched", f"{name}_mismatched"]):
        if all(entry in splits for entry in names):
            return names
    raise UsageError(f"{step} needs a {name} split, the data have {listed(splits)}; leave it out or give local files")


def hold_out_validation(
    splits: dict[str, Split], labels: Labels, data_args: DataTrainingArguments, seed: int
) -> tuple[Split, Split]:
    """Divide the train split into train and validation for --validation_split."""
    if any(name.startswith("validation") for name in splits):
        raise UsageError("the data have a validation split already; leave --validation_split out")
    classes = None
    if labels.kind == "single":
        classes = labels.encode(splits["train"])
    elif labels.kind == "soft":
        classes = [int(np.argmax(row)) for row in labels.encode(splits["train"])]
    return split_off_validation(splits["train"], data_args.validation_split, seed, classes)


def tokenize(dataset: Dataset, encoder: Encoder, name: str, data_args: DataTrainingArguments) -> Dataset:
    """Turn texts into tokens, or take them from the cache.

    Raises:
        UsageError: what the cache holds was cut off, as by a crash of the machine.
    """
    encoded = None
    try:
        encoded = dataset.map(
            encoder,
            batched=True,
            remove_columns=dataset.column_names,
            load_from_cache_file=not data_args.overwrite_cache,
            num_proc=data_args.preprocessing_num_workers,
            desc=f"Running tokenizer on {name}",
        )
    except (pa.ArrowInvalid, OSError) as error:
        # Errors of the system have a number, those of Arrow about what it reads do not.
        if getattr(error, "errno", None) is not None:
            raise
    if encoded is None or len(encoded) != len(dataset):
        raise UsageError(f"the tokens of the {name} texts in the cache are damaged; add --overwrite_cache")
    return encoded


def load_config(model_args: ModelArguments, num_labels: int | None) -> PreTrainedConfig:
    """Load the configuration, for this number of outputs (None: as many as the model has)."""
    name = model_args.config_name or model_args.model_name_or_path
    outputs = {} if num_labels is None else {"num_labels": num_labels}
    try:
        return AutoConfig.from_pretrained(name, **outputs, **hub_options(model_args))
    except StrictDataclassError as error:
        raise UsageError(f"the configuration of {name} could not be loaded: {as_one_line(error)}") from error
    except MALFORMED as error:
        raise UsageError(f"the configuration of {name} could not be loaded: {first_line(error)}") from error


def hub_options(model_args: ModelArguments) -> dict[str, str | bool | None]:
    """Return how models and tokenizers are to be fetched from the Hub."""
    return {
        "cache_dir": model_args.cache_dir,
        "revision": model_args.model_revision,
        "token": model_args.token,
        "trust_remote_code": model_args.trust_remote_code,
    }


def in_order_of_model(labels: Labels, config: PreTrainedConfig) -> Labels:
    """Give the labels the order that an already trained model has them in, so that its classifier goes on to fit."""
    untrained = config.id2label == PreTrainedConfig(num_labels=labels.num_labels).id2label
    if labels.kind == "regression" or untrained:
        return labels
    if not labels.agrees_with(config.id2label):
        logger.warning(
            f"The model was trained with the labels {listed(config.id2label.values())}, the data have "
            f"{listed(labels.names)}: the names in the model are replaced."
        )
    return labels.ordered_as(config.id2label)


def load_tokenizer_and_model(
    model_args: ModelArguments, training_args: MixupTrainingArguments, config: PreTrainedConfig
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load both. The model is one that can mix if a mixup method is chosen, else transformers' own."""
    name = model_args.model_name_or_path
    tokenizer_name = model_args.tokenizer_name or name
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            tokenizer_name,
            use_fast=model_args.use_fast_tokenizer,
            **hub_options(model_args),
        )
    except MALFORMED as error:
        raise UsageError(f"the tokenizer of {tokenizer_name} could not be loaded: {first_line(error)}") from error
    options = {"pretrained_model_name_or_path": name, "config": config, **hub_options(model_args)}
    options["output_loading_info"] = True
    mixes = training_args.mixup().site is not None
    auto_class = AutoMixupModelForSequenceClassification if mixes else AutoModelForSequenceClassification
    try:
        with load_report_held_back() as report:
            model, loaded = auto_class.from_pretrained(
                **options, ignore_mismatched_sizes=model_args.ignore_mismatched_sizes
            )
            new_head = head_alone_differs(name, model, loaded)
            if new_head is not None and not details.isEnabledFor(logging.INFO):
                report.clear()
                if training_args.should_log:
                    logger.warning(new_head)
    except KeyError as error:
        raise UsageError(
            f"the model {name} could not be loaded: its configuration holds the unknown {error}"
        ) from error
    except MALFORMED as error:
        raise UsageError(f"the model {name} could not be loaded: {first_line(error)}") from error
    except (SafetensorError, UnpicklingError, EOFError) as error:
        raise UsageError(f"the model {name} could not be loaded: its weights are damaged; copy them anew") from error
    except RuntimeError as error:
        if "PytorchStreamReader" in str(error):
            raise UsageError(
                f"the model {name} could not be loaded: its weights are damaged; copy them anew"
            ) from error
        if "ignore_mismatched_sizes" not in str(error):
            raise
        model, loaded = auto_class.from_pretrained(**options, ignore_mismatched_sizes=True)
        raise UsageError(mismatch_sentence(name, model, loaded["mismatched_keys"])) from error
    check_tokenizer(tokenizer, model, tokenizer_name)
    # Decoders often have no token to pad with.
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return tokenizer, model


def mismatch_sentence(name: str, model: PreTrainedModel, mismatched: Iterable[tuple]) -> str:
    """Say which saved tensors have another size than the configuration wants, and what helps."""
    tensors = sorted((key, list(saved), list(wanted)) for key, saved, wanted in mismatched)
    body = [entry for entry in tensors if entry[0].startswith(f"{model.base_model_prefix}.")]
    if not body:
        return (
            f"the classifier of {name} does not fit {model.config.num_labels} outputs; "
            "add --ignore_mismatched_sizes to start a new one"
        )
    shown = listed((f"{key} ({saved} saved, {wanted} wanted)" for key, saved, wanted in body), limit=2)
    return f"the weights of {name} do not fit its configuration: {shown}; mend config.json or give --config_name"


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, name: str) -> None:
    """Check that a tokenizer has words, and that the model knows all of its tokens.

    Raises:
        UsageError: if not.
    """
    # Where the files of a tokenizer are missing, transformers makes one that has nothing but special tokens.
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise UsageError(f"the tokenizer of {name} has no words, its vocabulary is missing; give --tokenizer_name")
    rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    if rows is not None and len(tokenizer) > rows:
        raise UsageError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens, but the model has embeddings for {rows}; "
            "give the tokenizer that the model was trained with, with --tokenizer_name"
        )


def usable_length(wanted: int, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, texts: int) -> int:
    """Return --max_seq_length, or what tokenizer and model can take if that is less.

    Raises:
        UsageError: if that leaves no token for each of the one or two texts of a row.
    """
    lowest = texts + tokenizer.num_special_tokens_to_add(pair=texts == 2)
    if wanted < lowest:
        raise UsageError(f"--max_seq_length {wanted} leaves no token for each text; give at least {lowest}")
    limit = min(tokenizer.model_max_length, longest_input(model) or wanted)
    if wanted > limit:
        logger.warning(f"--max_seq_length {wanted} is more than the model can take, {limit} is used instead.")
    return min(wanted, limit)


def train(trainer: MixupTrainer, checkpoint: str | None) -> TrainOutput:
    """Train, from a checkpoint on if there is one. SIGTERM saves a checkpoint and ends the process with code 143.

    Raises:
        UsageError: the checkpoint is another model's, or an option needs a package that is not installed.
        NonFiniteLossError: the loss or the gradient became NaN or infinite; the weights of the step before are saved.
    """
    try:
        with save_on_sigterm(trainer):
            return trainer.train(resume_from_checkpoint=checkpoint)
    except CheckpointError as error:
        raise UsageError(f"--resume_from_checkpoint: {error}") from error
    except ImportError as error:
        # Of an optimizer or a kernel whose package is not there; others are bugs.
        if "install" not in str(error):
            raise
        raise UsageError(as_one_line(error)) from error
    except NonFiniteLossError as error:
        folder = os.path.join(trainer.args.output_dir, "last-good-weights")
        trainer.save_model(folder, _internal_call=True)
        raise NonFiniteLossError(
            f"{str(error).rstrip('.')}; the model of step {trainer.state.global_step} is saved in {folder}"
        ) from error


def log_class_distribution(encoded_labels: list, labels: Labels, split: str) -> None:
    """Log how often each class occurs."""
    if labels.kind == "single":
        logger.info(f"Class distribution in {split} set: {class_distribution(encoded_labels, labels.names)}.")


def find_traps(
    splits: dict[str, Split],
    labels: Labels,
    encoded_labels: dict[str, list],
    limits: dict[str, int | None],
    text_columns: tuple[str, ...],
    data_args: DataTrainingArguments,
) -> list[str]:
    """Return a warning for each thing that is allowed, but is likely a mistake in the data or the flags."""
    traps = []
    if data_args.task_name is None and data_args.text_columns is None:
        traps += text_column_traps(splits[next(iter(limits))], labels.columns, text_columns)
    if "train" in encoded_labels and data_args.task_name is None:
        traps += class_name_traps(labels.names)
        if labels.kind == "regression":
            traps += whole_score_traps(splits["train"], labels.columns[0])
    for name, encoded in encoded_labels.items():
        is_train, limit, cause = name == "train", limits[name], ""
        if limit is not None and limit < len(encoded):
            flag = f"--max_{'train' if is_train else 'eval'}_samples {limit}"
            cause = f"{flag} takes the first rows, so shuffle the data or leave it out"
        elif is_train and data_args.validation_split is not None:
            cause = f"--validation_split {data_args.validation_split:g} took the others for validation"
        whole = None if is_train else encoded
        rows = "training" if is_train else name
        traps += missing_class_traps(labels, encoded[:limit], whole, rows, cause)
    return traps


def model_scores(outputs: np.ndarray | tuple | list) -> np.ndarray:
    """Return the logits `[rows, outputs]` alone: a model may give more, and --eval_do_concat_batches false a list."""
    if isinstance(outputs, list):
        return np.concatenate([model_scores(batch) for batch in outputs], axis=0)
    return outputs[0] if isinstance(outputs, tuple) else outputs


def cli(argv: list[str] | None = None, prog: str = "run_glue_mixup.py") -> int:
    """Run `main` as a command: mistakes of the user and faults of the machine are one sentence on stderr.

    Returns:
        The exit code: 0; 2 for a mistake of the user; 1 for a loss that became NaN or infinite, a full disk or
        memory, or an upload that failed. After SIGTERM in training the process ends with 143.
    """
    watch_the_background()
    try:
        main(argv, prog=prog)
    except UsageError as error:
        tell(as_one_line(error))
        return 2
    except Exception as error:
        sentence, of_path = fault_sentence(error), path_sentence(error)
        if sentence is None and of_path is not None:
            tell(of_path)
            return 2
        if sentence is None:
            raise
        tell(sentence, is_of_another_process(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(cli())
