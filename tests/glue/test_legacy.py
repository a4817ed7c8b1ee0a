"""Flags of old: what they become, and that the table agrees with the installed transformers."""

import dataclasses

import pytest
from transformers import TrainingArguments

from hf_mixup.errors import UsageError
from hf_mixup.glue.legacy import LEGACY_FLAGS, rewrite_legacy_flags
from hf_mixup.trainer import MixupTrainingArguments

CURRENT = {field.name for field in dataclasses.fields(TrainingArguments)}


def test_no_flag_of_the_table_exists_any_more():
    assert not CURRENT & set(LEGACY_FLAGS)


def test_every_replacement_exists():
    script_flags = {"token"}
    replacements = {flag.now for flag in LEGACY_FLAGS.values() if flag.now is not None}
    assert replacements <= CURRENT | script_flags


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["--evaluation_strategy", "epoch"], ["--eval_strategy=epoch"]),
        (["--evaluation_strategy=epoch"], ["--eval_strategy=epoch"]),
        (["--evaluation-strategy", "epoch"], ["--eval_strategy=epoch"]),
        (["--warmup_ratio", "0.06"], ["--warmup_steps=0.06"]),
        (["--per_gpu_train_batch_size=4"], ["--per_device_train_batch_size=4"]),
        (["--use_mps_device"], []),
        (["--use_mps_device", "true", "--do_train"], ["--do_train"]),
        (["--use_mps_device", "--do_train"], ["--do_train"]),
        (["--logging_dir", "logs", "--do_train"], ["--do_train"]),
        (["--fp16_backend", "auto"], []),
        (["--no_cuda"], ["--use_cpu=true"]),
        (["--no_cuda", "False"], []),
        (["--group_by_length", "True"], ["--train_sampling_strategy=group_by_length"]),
        (["--group_by_length=false"], []),
        (["--use_auth_token", "hf_x"], ["--token=hf_x"]),
        (["--use_auth_token", "--do_eval"], ["--do_eval"]),
        (["--use_auth_token=True"], []),
        (["--push_to_hub_model_id", "me/it"], ["--hub_model_id=me/it"]),
        (["--adafactor"], ["--optim=adafactor"]),
    ],
)
def test_rewriting(old, new):
    rewritten, notices = rewrite_legacy_flags(["--seed", "1", *old, "--fp16"], known=[])
    assert rewritten == ["--seed", "1", *new, "--fp16"]
    assert len(notices) == 1
    assert notices[0].startswith(f"--{old[0][2:].partition('=')[0].replace('-', '_')} is n")


def test_flags_of_today_and_their_values_pass():
    argv = ["--output_dir", "no_cuda", "--run_name=--warmup_ratio", "--fp16"]
    assert rewrite_legacy_flags(argv, known=[]) == (argv, [])


def test_a_flag_that_the_installed_version_still_knows_is_left_alone():
    assert rewrite_legacy_flags(["--warmup_ratio", "0.1"], known=["--warmup_ratio"]) == (["--warmup_ratio", "0.1"], [])


def test_a_missing_value_is_one_sentence():
    with pytest.raises(UsageError, match="--evaluation_strategy needs a value"):
        rewrite_legacy_flags(["--evaluation_strategy", "--do_train"], known=[])


def test_the_notice_of_a_token_does_not_show_it():
    _, notices = rewrite_legacy_flags(["--use_auth_token", "hf_secret"], known=[])
    assert "hf_secret" not in notices[0]


def test_what_replaces_a_flag_is_accepted_by_the_arguments(tmp_path):
    arguments = MixupTrainingArguments(
        output_dir=str(tmp_path),
        warmup_steps=0.1,
        train_sampling_strategy="group_by_length",
        optim="adafactor",
        debug="tpu_metrics_debug",
        accelerator_config='{"split_batches": true}',
        include_for_metrics=["inputs"],
        include_num_input_tokens_seen="all",
        use_cpu=True,
    )
    # transformers' own reading of a number below 1 is a share of all steps.
    assert arguments.get_warmup_steps(200) == 20
    assert arguments.accelerator_config.split_batches
