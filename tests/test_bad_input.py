"""What users get wrong: one sentence each, through `main`, exit code 2 for a process; nothing is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer

import run_glue_mixup
from hf_mixup.errors import UsageError
from tests.data_files import labelled_sentences, write_csv
from tests.launching import torchrun
from tests.script import MIX, SCRIPT, SHORT, flags
from tests.tiny import bpe_tokenizer, tiny_config

GOOD = [("a fine text", "yes"), ("a poor text", "no"), ("a third one", "yes")]


def columns(rows, names=("sentence", "label")):
    return names, rows


TRAIN = ["--do_train", "--train_file", "{train.csv}"]
EVAL = [*TRAIN, "--do_eval", "--validation_file", "{other.csv}"]
PREDICT = [*TRAIN, "--do_predict", "--test_file", "{other.csv}"]
BEST = ["--eval_strategy", "steps", "--save_strategy", "steps", "--load_best_model_at_end"]
# Flags, what other.csv holds (train.csv is good unless it is given), a part of the sentence.
MISTAKES = {
    "unknown method": ([*TRAIN, "--mixup_method", "amplifi"], {}, "amplify"),
    "unknown site": ([*TRAIN, "--mixup_method", "amplify", "--mixup_site", "heart"], {}, "heart"),
    "layer that the model lacks": ([*TRAIN, "--mixup_method", "amplify", "--mixup_layers", "9"], {}, "9"),
    "alpha 0": ([*TRAIN, "--mixup_method", "amplify", "--mixup_alpha", "0"], {}, "alpha"),
    "class weights of another number": ([*TRAIN, "--class_weights", "1,2,3"], {}, "class"),
    "head that the model lacks": (
        [*TRAIN, "--mixup_method", "attentionmix", "--mixup_attention_head", "99"],
        {},
        "mixup_attention_head=99",
    ),
    "class weights for scores": (
        [*TRAIN, "--class_weights", "balanced"],
        {"train.csv": columns([("a", 0.5), ("b", 1.5)])},
        "--class_weights is for labels of one class per row",
    ),
    "batch mixing of several labels": (
        [*TRAIN, "--mixup_method", "batchmixup"],
        {"train.csv": columns([("a", "[0]"), ("b", "[0, 1]")])},
        "--mixup_method batchmixup is for labels of one class per row",
    ),
    "unknown best metric": (
        [*EVAL, *BEST, "--metric_for_best_model", "acuracy"],
        {"other.csv": columns(GOOD)},
        "did you mean accuracy",
    ),
    "batches of no rows": ([*TRAIN, "--per_device_train_batch_size", "0"], {}, "a whole number from 1 to"),
    "four tokens for a pair": (
        [*TRAIN, "--max_seq_length", "4"],
        {"train.csv": columns([("a", "b", "x"), ("c", "d", "y")], ("sentence1", "sentence2", "label"))},
        "--max_seq_length 4 leaves no token for each text; give at least 5",
    ),
    "several updates of several batches": (
        [*TRAIN, "--mixup_method", "amplify", "--mixup_updates", "2", "--gradient_accumulation_steps", "2"],
        {},
        "set one of the two to 1",
    ),
    "two tokens": ([*TRAIN, "--max_seq_length", "2"], {}, "--max_seq_length should be at least 3"),
    "unknown flag": ([*TRAIN, "--mixup_aplha", "1"], {}, "did you mean --mixup_alpha"),
    "unknown task": ([*TRAIN, "--task_name", "mnil"], {}, "did you mean mnli"),
    "no data": (["--do_train"], {}, "no data are named"),
    "nothing to do": (["--train_file", "{train.csv}"], {}, "nothing is to be done"),
    "missing file": (["--do_train", "--train_file", "nowhere.csv"], {}, "nowhere.csv does not exist"),
    "empty file": (TRAIN, {"train.csv": ""}, "train.csv is empty"),
    "header only": (TRAIN, {"train.csv": "sentence,label\n"}, "has no rows"),
    "not utf-8": (TRAIN, {"train.csv": b"sentence,label\n\xff,1\n"}, "not UTF-8"),
    "other ending": (["--do_train", "--train_file", "{train.xlsx}"], {"train.xlsx": "a\tb\n"}, "ends in .csv"),
    "no label column": (TRAIN, {"train.csv": columns(GOOD, ("sentence", "labels"))}, "--label_column_name labels"),
    "one column": (TRAIN, {"train.csv": columns([("a",)], ("sentence",))}, "only the column 'sentence'"),
    "only labels": (TRAIN, {"train.csv": columns([("a",), ("b",)], ("label",))}, "no text column beside the label"),
    "columns of a task": ([*TRAIN, "--task_name", "qqp"], {}, "text column of task qqp 'question1'"),
    "empty text": (TRAIN, {"train.csv": columns([*GOOD, ("", "no")])}, "train.csv, row 4 has no text"),
    "missing label": (TRAIN, {"train.csv": columns([*GOOD, ("x", "")])}, "train.csv, row 4 has no label"),
    "label -1 in train": (TRAIN, {"train.csv": columns([("a", 0), ("b", -1), ("c", 1)])}, "row 2: the label -1"),
    "one class": (TRAIN, {"train.csv": columns([("a", 0), ("b", 0)])}, "only one class"),
    "nan score": (TRAIN, {"train.csv": columns([("a", 0.5), ("b", "nan")])}, "row 2: the label 'nan'"),
    "float labels for a classifier": (
        [*TRAIN, "--task_name", "sst2"],
        {"train.csv": columns([("a", 0.5), ("b", 1.0)])},
        "a fraction where a class is needed",
    ),
    "label that train lacks": (EVAL, {"other.csv": columns([("a", "maybe")])}, "other.csv, row 1: the label 'maybe'"),
    "label -1 in validation": (EVAL, {"other.csv": columns([("a", "-1")])}, "other.csv, row 1: the label -1"),
    "other columns in validation": (
        EVAL,
        {"other.csv": columns([("a", "yes", "b")], ("text", "label", "more"))},
        "other.csv has no text column 'sentence'",
    ),
    "other columns in test": (PREDICT, {"other.csv": columns([("a", "b")], ("x", "y"))}, "no text column 'sentence'"),
    "no validation file": ([*TRAIN, "--do_eval"], {}, "--do_eval needs a validation file"),
    "no test file": ([*TRAIN, "--do_predict"], {}, "--do_predict needs a test file"),
    "no train file": (
        ["--do_train", "--do_eval", "--validation_file", "{other.csv}"],
        {"other.csv": columns(GOOD)},
        "--do_train needs a train file",
    ),
    "split and file": ([*EVAL, "--validation_split", "0.2"], {"other.csv": columns(GOOD)}, "exclude each other"),
    "share of 2": ([*TRAIN, "--validation_split", "2"], {}, "above 0 and below 1"),
    "no rows wanted": ([*TRAIN, "--max_train_samples", "0"], {}, "--max_train_samples should be at least 1"),
    "early stopping without evaluation": ([*TRAIN, "--early_stopping_patience", "2"], {}, "add --eval_strategy"),
    "nothing to resume": ([*TRAIN, "--resume_from_checkpoint", "true"], {}, "has no whole checkpoint"),
    "evaluation of an untrained model": (
        ["--do_eval", "--validation_file", "{other.csv}"],
        {"other.csv": columns(GOOD)},
        "no trained classifier",
    ),
    "tracker that is not installed": ([*TRAIN, "--report_to", "clearml"], {}, "pip install clearml"),
    "three text columns": ([*TRAIN, "--text_column_names", "a,b,c"], {}, "one or two columns"),
    "no probabilities": (
        [*TRAIN, "--label_column_name", "p,q"],
        {"train.csv": columns([("a", 0.5, 0.9)], ("sentence", "p", "q"))},
        "sum to 1",
    ),
    "hub metric without a network": ([*TRAIN, "--metric_name", "no_metric"], {}, "--metric_name no_metric could not"),
    "hub data without a network": (
        ["--do_train", "--dataset_name", "no/data"],
        {},
        "could not be loaded from the Hub",
    ),
    "a folder with a broken file": (
        ["--do_train", "--dataset_name", "{data}"],
        {"data/train.csv": "sentence,label\na,1\nb,2,3\n"},
        "data could not be loaded: Error tokenizing data. C error: Expected 2 fields in line 3, saw 3; correct",
    ),
    "a folder that is not there": (["--do_train", "--dataset_name", "./nowhere"], {}, "nowhere does not exist"),
    "a file as a data set": (
        ["--do_train", "--dataset_name", "{train.csv}"],
        {},
        "is a file; give it with --train_file, or give a folder",
    ),
    "a JSON file column by column": (
        ["--do_train", "--train_file", "{train.json}"],
        {"train.json": json.dumps({name: {str(i): f"{name} {i}" for i in range(9000)} for name in ("text", "label")})},
        'df.to_json(path, orient="records", lines=True)',
    ),
    "a label of many characters": (EVAL, {"other.csv": columns([("a", "x" * 5000)])}, "xxx... (5,002 characters)"),
    "data set and file": ([*TRAIN, "--dataset_name", "no/data"], {}, "exclude each other"),
    "settings that are no file": ([*TRAIN, "--config", "nowhere.yaml"], {}, "nowhere.yaml cannot be read"),
    "settings with another ending": ([*TRAIN, "--config", "{c.toml}"], {"c.toml": "a = 1"}, "should end in .yaml"),
    "settings with a misspelt key": (
        [*TRAIN, "--config", "{c.yaml}"],
        {"c.yaml": "mixup_methd: amplify\n"},
        "has the key mixup_methd, which is no flag of this script; did you mean mixup_method?",
    ),
    "settings with an unknown key": (
        [*TRAIN, "--config", "{c.yaml}"],
        {"c.yaml": "zzzzqq: 1\n"},
        "has the key zzzzqq, which is no flag of this script",
    ),
    "settings in groups": (
        [*TRAIN, "--config", "{c.yaml}"],
        {"c.yaml": "mixup:\n  alpha: 1\n"},
        "keys are flat, such as mixup_alpha",
    ),
    "settings as a list": ([*TRAIN, "--config", "{c.yaml}"], {"c.yaml": "- 1\n- 2\n"}, "should hold one mapping"),
    "settings that are not YAML": ([*TRAIN, "--config", "{c.yaml}"], {"c.yaml": "a: [1, 2\n"}, "is not valid"),
    "settings that run code": (
        [*TRAIN, "--config", "{c.yaml}"],
        {"c.yaml": "seed: !!python/object/apply:os.getpid []\n"},
        "is not valid",
    ),
    "settings that are not JSON": ([*TRAIN, "--config", "{c.json}"], {"c.json": '{"seed": 1,}'}, "is not valid"),
    "settings not in UTF-8": ([*TRAIN, "--config", "{c.yaml}"], {"c.yaml": b"\xff\xfe\x00"}, "c.yaml"),
    "settings with a word for a number": (
        [*TRAIN, "--config", "{c.yaml}"],
        {"c.yaml": "learning_rate: fast\n"},
        "learning_rate",
    ),
    "settings without a file": ([*TRAIN, "--config"], {}, "--config needs the path"),
    "a word for a number": ([*TRAIN, "--learning_rate", "fast"], {}, "--learning_rate"),
    "a word without a flag": ([*TRAIN, "--seed", "1", "amplify"], {}, "belongs to no flag"),
    "a word for yes or no": ([*TRAIN, "--mixup_per_sample", "perhaps"], {}, "--mixup_per_sample"),
    "lambda above 1": (
        [*TRAIN, "--mixup_method", "amplify", "--mixup_ratio", "constant", "--mixup_lambda", "1.5"],
        {},
        "mixup_lambda=1.5",
    ),
    "alpha that is no number": ([*TRAIN, "--mixup_method", "amplify", "--mixup_alpha", "nan"], {}, "mixup_alpha=nan"),
    "share of batches above 1": ([*TRAIN, "--mixup_method", "amplify", "--mixup_prob", "2"], {}, "mixup_prob=2"),
    "start after stop": (
        [*TRAIN, "--mixup_method", "amplify", "--mixup_start", "0.9", "--mixup_stop", "0.1"],
        {},
        "the start before the stop",
    ),
    "options without a method": ([*TRAIN, "--mixup_alpha", "1"], {}, "mixup_method='none' does not mix"),
    "layers that are no numbers": ([*TRAIN, "--mixup_method", "amplify", "--mixup_layers", "a,b"], {}, "mixup_layers"),
    "layers at a site without": (
        [*TRAIN, "--mixup_method", "sentmix", "--mixup_layers", "1"],
        {},
        "mixup_layers='1' has no meaning at mixup_site='pooled'",
    ),
    "a token mask at the pooled site": (
        [*TRAIN, "--mixup_method", "sentmix", "--mixup_attention_mask", "union"],
        {},
        "mixup_attention_mask='union' has no meaning at mixup_site='pooled'",
    ),
    "unknown partner": ([*TRAIN, "--mixup_method", "amplify", "--mixup_partner", "flop"], {}, "did you mean 'flip'"),
    "pairs in batches of an odd number": (
        [
            *TRAIN,
            *("--mixup_method", "amplify", "--mixup_partner", "neighbour"),
            *("--train_sampling_strategy", "group_by_length", "--per_device_train_batch_size", "3"),
        ],
        {},
        "3 rows would cut one apart: give an even per_device_train_batch_size",
    ),
    "compounded without flip": (
        [*TRAIN, "--mixup_method", "amplify-code", "--mixup_label_weight", "compounded"],
        {},
        "compounded",
    ),
    "batch mixing of scores": (
        [*TRAIN, "--mixup_method", "batchmixup"],
        {"train.csv": columns([("a", 0.5), ("b", 1.5)])},
        "--mixup_method batchmixup is for labels of one class per row",
    ),
    "a negative class weight": ([*TRAIN, "--class_weights=-1,1"], {}, "class_weights='-1,1'"),
    "json lines cut in the middle": (
        ["--do_train", "--train_file", "{train.json}"],
        {"train.json": '{"sentence": "a", "label": 0}\n{"sentence": "b", "lab'},
        "train.json",
    ),
    "json of a number": (["--do_train", "--train_file", "{train.json}"], {"train.json": "7"}, "train.json"),
    "a quote that never ends": (TRAIN, {"train.csv": 'sentence,label\n"a text,0\nb,1\n'}, "train.csv"),
    "a folder as a file": (["--do_train", "--train_file", "/"], {}, "--train_file"),
    "the same column twice": ([*TRAIN, "--text_column_names", "sentence,sentence"], {}, "different column names"),
    "a column that is not there": ([*TRAIN, "--text_column_names", "sentnce"], {}, "sentence"),
    "a model that is not there": ([*TRAIN, "--model_name_or_path", "./nowhere"], {}, "./nowhere does not exist"),
    "a model that is a file": ([*TRAIN, "--model_name_or_path", "{train.csv}"], {}, "is a file"),
    "a checkpoint that is not there": ([*TRAIN, "--resume_from_checkpoint", "nowhere"], {}, "nowhere"),
    "a negative length": ([*TRAIN, "--max_seq_length=-1"], {}, "--max_seq_length"),
    "no full batch": (
        [*TRAIN, "--dataloader_drop_last", "true", "--per_device_train_batch_size", "99"],
        {},
        "--dataloader_drop_last leaves no batch of the 3 training rows, a batch has 99",
    ),
    "a strategy that is unknown": ([*TRAIN, "--eval_strategy", "sometimes"], {}, "--eval_strategy"),
}


EARLIER = {
    "all_results.json": '{"train_loss": 0.5}',
    "trainer_state.json": "{}",
    "model.safetensors": "weights of an earlier run",
    "README.md": "its card",
}


@pytest.fixture
def mistake_of(tmp_path, tiny_bert_folder):
    """Write the files of a mistake and an earlier run's output; give back the command line and the sentence."""

    def prepare(mistake):
        words, files, sentence = MISTAKES[mistake]
        for name, content in {"train.csv": columns(GOOD), **files}.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            if isinstance(content, tuple):
                write_csv(tmp_path / name, *content)
            else:
                (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        (tmp_path / "out").mkdir()
        for name, content in EARLIER.items():
            (tmp_path / "out" / name).write_text(content)
        argv = ["--model_name_or_path", tiny_bert_folder, "--output_dir", str(tmp_path / "out"), *SHORT]
        return [*argv, *(str(tmp_path / word[1:-1]) if word.startswith("{") else word for word in words)], sentence

    return prepare


def check_nothing_is_lost(folder):
    assert {path.name: path.read_text() for path in folder.iterdir()} == EARLIER


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_earlier_output_stays(mistake_of, tmp_path, mistake):
    argv, sentence = mistake_of(mistake)
    with pytest.raises(UsageError) as caught:
        run_glue_mixup.main(argv)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    check_nothing_is_lost(tmp_path / "out")


def test_the_table_is_long_enough():
    assert len(MISTAKES) >= 60


@pytest.mark.parametrize(
    "mistake",
    [
        "unknown flag",
        "label that train lacks",
        "settings with a misspelt key",
        "not utf-8",
        "layer that the model lacks",
    ],
)
def test_as_a_command_a_mistake_is_one_line_and_exit_code_2(mistake_of, tmp_path, capfd, mistake):
    argv, sentence = mistake_of(mistake)
    assert run_glue_mixup.cli(argv) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert sentence in line
    check_nothing_is_lost(tmp_path / "out")


def test_as_a_process_a_mistake_is_one_line_and_exit_code_2(mistake_of, tmp_path):
    # Of the mistakes the one that a process finds last, when data and model are loaded.
    argv, sentence = mistake_of("layer that the model lacks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *argv], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert sentence in line
    check_nothing_is_lost(tmp_path / "out")


@pytest.mark.parametrize("flag", ["--model_name_or_path", "--resume_from_checkpoint"])
def test_a_path_that_is_too_long_is_one_line_and_exit_code_2(sentences, tiny_bert_folder, tmp_path, capsys, flag):
    argv = ["--output_dir", str(tmp_path / "out"), *flags(sentences, "train"), "--do_train", *SHORT]
    # The last of two counts.
    assert run_glue_mixup.cli(["--model_name_or_path", tiny_bert_folder, *argv, flag, "a" * 300]) == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert sentence.endswith("cannot be read or written (its name is too long); give another path")


def test_an_optimizer_that_is_not_installed_is_one_sentence(run, sentences, monkeypatch):
    # As transformers words it, where the package is there too.
    def missing(*_):
        raise ImportError("You need to install `lomo_optim` in order to use LOMO optimizers.")

    monkeypatch.setattr(run_glue_mixup.MixupTrainer, "create_optimizer", missing)
    with pytest.raises(UsageError, match="You need to install `lomo_optim`"):
        run("--do_train", *flags(sentences, "train"))


@pytest.mark.skipif(os.geteuid() == 0, reason="Nothing is forbidden to root.")
def test_a_folder_that_may_not_be_written_is_refused_before_the_training(mistake_of, tmp_path):
    argv, _ = mistake_of("nothing to do")
    (tmp_path / "out").chmod(0o555)
    with pytest.raises(UsageError, match="cannot be written"):
        run_glue_mixup.main([*argv, "--do_train"])


def test_permission_is_asked_for_before_the_training(mistake_of, tmp_path, monkeypatch):
    argv, _ = mistake_of("nothing to do")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "out")
    with pytest.raises(UsageError, match="cannot be written .no permission for"):
        run_glue_mixup.main([*argv, "--do_train"])


def test_a_checkpoint_is_not_overwritten_by_another_run(mistake_of, tmp_path):
    argv, _ = mistake_of("nothing to do")
    (tmp_path / "out" / "optimizer.pt").write_text("its state")
    with pytest.raises(UsageError, match="is a checkpoint of a run, which would be overwritten"):
        run_glue_mixup.main([*argv, "--do_train"])


def test_a_folder_of_something_else_is_left_alone(mistake_of, tmp_path):
    argv, _ = mistake_of("nothing to do")
    (tmp_path / "out" / "trainer_state.json").unlink()
    (tmp_path / "out" / "all_results.json").unlink()
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    with pytest.raises(UsageError, match="is not empty and holds something else"):
        run_glue_mixup.main([*argv, "--do_train"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before


def test_mixing_on_several_gpus_in_one_process_is_refused(tmp_path, monkeypatch):
    train = write_csv(tmp_path / "train.csv", ("sentence", "label"), GOOD)
    words = ["--model_name_or_path", "m", "--train_file", train, "--do_train", "--use_cpu"]
    monkeypatch.setattr(run_glue_mixup.MixupTrainingArguments, "n_gpu", 2)
    (_, data, plain), _ = _parsed(words)
    run_glue_mixup.check_request(data, plain)
    (_, data, mixed), _ = _parsed([*words, "--mixup_method", "amplify"])
    with pytest.raises(UsageError, match="torchrun --nproc_per_node 2"):
        run_glue_mixup.check_request(data, mixed)


def test_processes_that_do_not_know_of_each_other_are_refused(tmp_path, monkeypatch):
    train = write_csv(tmp_path / "train.csv", ("sentence", "label"), GOOD)
    (_, data, arguments), _ = _parsed(["--model_name_or_path", "m", "--train_file", train, "--do_train"])
    run_glue_mixup.check_request(data, arguments)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="2 processes were started, but each would train alone .* add --use_cpu"):
        run_glue_mixup.check_request(data, arguments)


def test_processes_without_a_gpu_become_one_run_on_the_cpu(tmp_path, monkeypatch, caplog):
    arguments = run_glue_mixup.MixupTrainingArguments(str(tmp_path), use_cpu=False)
    for has_gpu, processes, rank, joined in (
        (False, "1", "0", False),
        (True, "2", "0", False),
        (False, "2", "0", True),
        (False, "2", "1", True),
    ):
        caplog.clear()
        monkeypatch.setattr(torch.accelerator, "is_available", lambda has_gpu=has_gpu: has_gpu)
        monkeypatch.setenv("WORLD_SIZE", processes)
        monkeypatch.setenv("RANK", rank)
        arguments.use_cpu = False
        arguments._join_on_cpus()
        assert arguments.use_cpu == joined
        # One process says so for all.
        assert ("the processes train together on the CPU" in caplog.text) == (joined and rank == "0")


def test_of_several_processes_the_main_one_tells(monkeypatch, capsys):
    waits = []
    monkeypatch.setattr("hf_mixup.glue.faults.time.sleep", waits.append)
    for rank, expected in (("0", []), ("1", [5.0])):
        monkeypatch.setenv("RANK", rank)
        assert run_glue_mixup.cli(["--max_seq_length", "1"]) == 2
        assert waits == expected and len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.slow
def test_a_mistake_under_torchrun_is_told_once(tmp_path, tiny_bert_folder):
    train = write_csv(tmp_path / "train.csv", ("sentence", "label"), GOOD)
    words = ["--model_name_or_path", tiny_bert_folder, "--train_file", train, "--do_train"]
    words += ["--output_dir", str(tmp_path / "out"), "--max_steps", "2", "--max_seq_length", "16"]
    with pytest.raises(AssertionError) as failed:
        torchrun(2, SCRIPT, *words, "--label_column_name", "lable")
    assert str(failed.value).count("lable") == 1
    torchrun(2, SCRIPT, *words, "--mixup_method", "amplify")
    assert json.loads((tmp_path / "out" / "all_results.json").read_text())["train_samples"] == len(GOOD)


def _parsed(words):
    types = run_glue_mixup.ModelArguments, run_glue_mixup.DataTrainingArguments, run_glue_mixup.MixupTrainingArguments
    return run_glue_mixup.parse_arguments(words, types)


def test_a_folder_of_something_else_is_refused(run, sentences, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("long work")
    with pytest.raises(UsageError, match="is not empty and holds something else"):
        run(*flags(sentences), "--do_train")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_model_folder_without_weights(run, sentences, tmp_path, tiny_bert_folder):
    (tmp_path / "model").mkdir()
    with pytest.raises(UsageError, match="has no config.json"):
        run(*flags(sentences), "--do_train", model=tmp_path / "model")
    AutoConfig.from_pretrained(tiny_bert_folder).save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match="has no weights"):
        run(*flags(sentences), "--do_train", model=tmp_path / "model")


def test_a_family_that_cannot_mix_is_refused_and_trains_without(run, sentences, tmp_path, tiny_bert_folder):
    config = transformers.ErnieConfig(
        vocab_size=300, num_hidden_layers=1, hidden_size=32, num_attention_heads=2, intermediate_size=32
    )
    transformers.ErnieModel(config).save_pretrained(tmp_path / "ernie")
    AutoTokenizer.from_pretrained(tiny_bert_folder).save_pretrained(tmp_path / "ernie")
    with pytest.raises(UsageError, match="'ernie'.*albert, bert, camembert"):
        run(*flags(sentences), "--do_train", "--mixup_method", "amplify", model=tmp_path / "ernie")
    assert run(*flags(sentences), "--do_train", model=tmp_path / "ernie")["train_loss"] > 0


@pytest.mark.parametrize("method", ["amplify", "ssmix", "attentionmix"])
def test_a_decoder_without_a_padding_token(run, sentences, tmp_path, method):
    tokenizer = bpe_tokenizer()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>")
    config = tiny_config("gpt2", vocab_size=len(tokenizer), pad_token_id=None, num_labels=2)
    transformers.GPT2Model(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    options = ["--mixup_attention_head", "0"] if method == "attentionmix" else []
    words = [*flags(sentences), "--do_train", "--mixup_method", method, *options]
    assert run(*words, model=tmp_path / "gpt2")["train_loss"] > 0
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert type(plain) is transformers.GPT2ForSequenceClassification and plain.config.pad_token_id is not None


CONFIG, TENSORS, OLD_TENSORS = "config.json", "model.safetensors", "pytorch_model.bin"
BROKEN_MODELS = {
    "cut weights": (TENSORS, lambda content: content[:500], "its weights are damaged"),
    "other bytes as weights": (TENSORS, lambda content: b"nothing of that kind", "its weights are damaged"),
    "other bytes as old weights": (OLD_TENSORS, lambda content: b"nothing of that kind", "its weights are damaged"),
    "empty old weights": (OLD_TENSORS, lambda content: b"", "its weights are damaged"),
    "cut old weights": (OLD_TENSORS, lambda content: content[: len(content) // 2], "its weights are damaged"),
    "activation": (CONFIG, lambda content: content.replace(b'"gelu"', b'"glue"'), "the unknown 'glue'"),
    "text for a size": (CONFIG, lambda content: content.replace(b": 64,", b': "64",'), "expected int, got str"),
    "heads": (CONFIG, lambda content: content.replace(b'heads": 4', b'heads": 5'), "not a multiple of the number"),
    "hidden size": (
        CONFIG,
        lambda content: content.replace(b'hidden_size": 32', b'hidden_size": 64'),
        "bert.embeddings.LayerNorm.bias ([32] saved, [64] wanted), ",
    ),
    "vocabulary": (
        CONFIG,
        lambda content: re.sub(rb'vocab_size": \d+', b'vocab_size": 50', content),
        ", 32] saved, [50, 32] wanted); mend config.json",
    ),
    "no words": ("tokenizer.json", None, "has no words"),
    "broken tokenizer": ("tokenizer.json", lambda content: content[:500], "could not be loaded: Unterminated string"),
    "another file as tokenizer": ("tokenizer.json", lambda content: b'{"a": 1}', "could not be loaded"),
    "a deep configuration": (CONFIG, lambda content: b'{"a": ' * 20_000, "is no JSON object; copy it again"),
    "a list as configuration": (CONFIG, lambda content: b"[1]", "is no JSON object; copy it again"),
    "a deep tokenizer": ("tokenizer.json", lambda content: b"[" * 20_000, "could not be loaded: maximum recursion"),
    "a number as tokenizer": ("tokenizer.json", lambda content: b"7", "could not be loaded"),
    "a list as settings of the tokenizer": ("tokenizer_config.json", lambda content: b"[1]", "is no JSON object"),
    "layers without an end": (
        CONFIG,
        lambda content: re.sub(rb'num_hidden_layers": \d+', b'num_hidden_layers": 1000000000000', content),
        "has num_hidden_layers 1000000000000, which no model has; correct it to a number from 1 to 10000",
    ),
    "a negative size": (
        CONFIG,
        lambda content: content.replace(b'hidden_size": 32', b'hidden_size": -1'),
        "has hidden_size -1, which no model has",
    ),
    "labels that are no names": (
        CONFIG,
        lambda content: content.replace(b'"vocab_size"', b'"id2label": [1], "vocab_size"'),
        "could not be loaded",
    ),
}


@pytest.mark.parametrize("fault", BROKEN_MODELS)
def test_a_broken_model_is_one_sentence(run, sentences, tmp_path, tiny_bert_folder, fault):
    name, change, sentence = BROKEN_MODELS[fault]
    folder = Path(shutil.copytree(tiny_bert_folder, tmp_path / "model"))
    if name == OLD_TENSORS:
        torch.save(load_file(folder / TENSORS), folder / OLD_TENSORS)
        (folder / TENSORS).unlink()
    if change is None:
        (folder / name).unlink()
    else:
        content = (folder / name).read_bytes()
        changed = change(content)
        assert changed != content
        (folder / name).write_bytes(changed)
    with pytest.raises(UsageError) as caught:
        run(*flags(sentences), "--do_train", *MIX, model=folder)
    assert sentence in str(caught.value) and str(folder) in str(caught.value)
    assert "\n" not in str(caught.value) and "--ignore_mismatched_sizes" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_another_model(run, sentences, tmp_path, tiny_roberta_folder):
    with pytest.raises(
        UsageError, match="has [0-9]+ tokens, but the model has embeddings for [0-9]+; give the tokenizer"
    ):
        run(*flags(sentences), "--do_train", "--tokenizer_name", tiny_roberta_folder)


def test_a_classifier_of_another_size(run, sentences, tmp_path):
    run(*flags(sentences), "--do_train")
    file = write_csv(tmp_path / "scores.csv", ("sentence", "label"), labelled_sentences([0.5, 1.5]))
    scores = ["--train_file", file, "--do_train"]
    with pytest.raises(UsageError, match="does not fit 1 outputs; add --ignore_mismatched_sizes"):
        run(*scores, model=tmp_path / "out", out=tmp_path / "new")
    results = run(*scores, "--ignore_mismatched_sizes", model=tmp_path / "out", out=tmp_path / "new")
    assert results["train_loss"] > 0
