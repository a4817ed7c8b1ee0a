"""Numbers that crash a training, hang it or fill the memory are refused, from Python and on the command line."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import run_glue_mixup
from hf_mixup import METHODS, MixupTrainer, MixupTrainingArguments
from hf_mixup.mixing import Ratio
from hf_mixup.trainer.ranges import RANGES, Range
from tests.data_files import labelled_sentences, write_csv
from tests.script import QUIET
from tests.tiny import tiny_dataset, tiny_model

NAN, INFINITY = math.nan, math.inf


def numeric(arguments):
    """The options that hold numbers, with whether these are whole."""
    types = get_type_hints(arguments)
    named = {each.name: str(types[each.name]) for each in fields(arguments) if each.init}
    return {name: "int" in text for name, text in named.items() if "int" in text or "float" in text}


def test_every_number_of_a_training_has_a_range():
    own = {name for name in numeric(MixupTrainingArguments) if name.startswith("mixup_")}
    # Those of mixup are checked by the parts of a method that have them.
    assert set(numeric(MixupTrainingArguments)) - own <= set(RANGES)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"warmup_steps": NAN}, "warmup_steps=nan is not allowed: give a number from 0 to 1000000000."),
        ({"adam_beta1": 2}, "adam_beta1=2 is not allowed: give a number from 0 and below 1."),
        ({"adam_beta2": 1}, "adam_beta2=1 is not allowed: give a number from 0 and below 1."),
        ({"per_device_train_batch_size": 2**63}, "give a whole number from 1 to 1048576."),
        ({"per_device_train_batch_size": 2.0}, "=2.0 is not allowed: give a whole number from 1 to 1048576."),
        ({"dataloader_num_workers": 10**11}, "give a whole number from 0 to 256."),
        ({"gradient_accumulation_steps": 10_001}, "give a whole number from 1 to 10000."),
        ({"max_grad_norm": -1}, "max_grad_norm=-1 is not allowed: give a number from 0."),
        ({"learning_rate": INFINITY}, "learning_rate=inf is not allowed: give a number from 0 to 3e+38."),
        ({"learning_rate": "1e-4"}, "learning_rate='1e-4' is not allowed"),
        ({"label_smoothing_factor": 1}, "give a number from 0 and below 1."),
        ({"data_seed": 2**32}, "data_seed=4294967296 is not allowed: give a whole number from 0 to 4294967295."),
        ({"seed": 10**5000}, "seed=a int that is too long to be shown is not allowed"),
        ({"mixup_method": "amplify", "mixup_draws": 10**20}, "a whole number of at least 1 and at most 1000."),
        ({"mixup_method": "amplify", "mixup_draws": 1001}, "a whole number of at least 1 and at most 1000."),
        ({"mixup_method": "amplify", "mixup_updates": 101}, "a whole number of at least 1 and at most 100."),
        ({"mixup_method": "amplify", "mixup_alpha": 1e308}, "above 0, from 1e-06 to 1,000,000."),
        ({"mixup_method": "batchmixup", "mixup_points": 1001}, "a whole number of at least 1 and at most 1000."),
        ({"mixup_method": "batchmixup", "mixup_temperature": 1e-320}, "above 0, from 1e-06 to 1,000,000."),
        ({"mixup_method": "amplify", "mixup_layers": "9" * 5000}, "mixup_layers='9999"),
        ({"mixup_method": "amplify", "mixup_layers": "²"}, "mixup_layers='²' is not allowed"),
        ({"class_weights": "1e308,1e308"}, "class_weights='1e308,1e308' is not allowed"),
        (
            {"class_weights": [1e-40, 1.0]},
            "above 0 for each class, such as 1,2.5, from 1e-06 to 1,000,000.",
        ),
    ],
)
def test_a_number_out_of_range_is_one_sentence(tmp_path, options, sentence):
    with pytest.raises(ValueError) as caught:
        MixupTrainingArguments(str(tmp_path), **options)
    message = str(caught.value)
    assert sentence in message and "\n" not in message and len(message) < 300


def test_the_bounds_themselves():
    for options in (
        {"adam_beta1": 0, "dataloader_num_workers": 256, "max_grad_norm": INFINITY, "warmup_steps": 0.5},
        {"mixup_method": "amplify", "mixup_draws": 1000, "mixup_updates": 100, "mixup_alpha": 1e-6},
        {"class_weights": [1e-6, 1e6], "max_steps": -1, "seed": 2**32 - 1},
    ):
        MixupTrainingArguments("unused", use_cpu=True, **options)
    assert 1 in Range(0, 1) and 1 not in Range(0, 1, below=True) and True not in Range(0, 1)
    assert Ratio("beta", alpha=1e6).alpha == 1e6 and METHODS["amplify"].with_options(draws=1000).ratio.draws == 1000


# ---- On the command line ----------------------------------------------------------------------------------------

WHOLE = ["0", "-1", "1", str(2**63), str(10**20), str(10**11), str(-(2**63)), "nan", "1.5", "9" * 5000, "²", "٣"]
REAL = ["0", "-1", "1", "0.3", "nan", "inf", "-inf", "1e308", "-1e308", "1e-320", "1e39", "1e9", "9" * 5000]
NUMBERS = {
    **numeric(run_glue_mixup.DataTrainingArguments),
    **{name: whole for name, whole in numeric(MixupTrainingArguments).items() if name != "max_steps"},
}
# The options without which a number has no meaning.
METHOD_OF = {"points": "batchmixup", "temperature": "batchmixup", "attention_layer": "attentionmix"}
BESIDE = {
    "mixup_lambda": ["--mixup_ratio", "constant"],
    "mixup_clean_weight": ["--mixup_clean", "average"],
    "mixup_attention_layer": ["--mixup_attention_head", "0"],
    "dataloader_prefetch_factor": ["--dataloader_num_workers", "1"],
    "save_steps": ["--save_strategy", "steps"],
    "save_total_limit": ["--save_strategy", "steps", "--save_steps", "1"],
    **dict.fromkeys(("eval_steps", "eval_delay"), ["--do_eval", "--eval_strategy", "steps"]),
}


@pytest.fixture(scope="module")
def few_rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "train.csv"
    return write_csv(path, ("sentence", "label"), labelled_sentences(["yes", "no"], 4))


def extremes():
    return st.sampled_from(
        [(name, value) for name, whole in sorted(NUMBERS.items()) for value in (WHOLE if whole else REAL)]
    )


def ends_in_a_sentence(name, value, model, rows, folder, capfd):
    argv = ["--model_name_or_path", model, "--train_file", rows, "--validation_file", rows, "--do_train", *QUIET]
    given = {"max_steps": "1", "per_device_train_batch_size": "2", "max_seq_length": "16", "save_strategy": "no"}
    given |= {"output_dir": str(folder / "out"), "report_to": "none"}
    if name.startswith("mixup_"):
        given["mixup_method"] = METHOD_OF.get(name.removeprefix("mixup_"), "amplify")
    if name == "validation_split":
        argv.remove("--validation_file")
        argv.remove(rows)
    argv += [f"--{flag}={text}" for flag, text in given.items() if flag != name]
    argv += [*BESIDE.get(name, []), f"--{name}={value}"]
    capfd.readouterr()
    code = run_glue_mixup.cli(argv)
    lines = capfd.readouterr().err.splitlines()
    assert code in (0, 2), (argv, lines)
    assert code == 0 or (len(lines) == 1 and name in lines[0] and len(lines[0]) < 1200)


@pytest.fixture
def check(tiny_bert_folder, few_rows, tmp_path_factory, capfd):
    def call(name, value):
        folder = tmp_path_factory.mktemp("run")
        ends_in_a_sentence(name, value, tiny_bert_folder, few_rows, folder, capfd)

    return call


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("per_device_train_batch_size", str(2**63)),
        ("mixup_draws", str(10**20)),
        ("warmup_steps", "nan"),
        ("max_seq_length", str(10**11)),
        ("mixup_attention_layer", "9" * 5000),
        ("logging_steps", "1e-320"),
    ],
)
def test_an_extreme_number_on_the_command_line(check, name, value):
    check(name, value)


@pytest.mark.slow
def test_any_extreme_number_of_any_flag(check):
    @settings(max_examples=len(NUMBERS) * len(REAL))
    @given(extremes())
    def each(pair):
        check(*pair)

    each()


# ---- Data that are none -----------------------------------------------------------------------------------------


class Rows(torch.utils.data.Dataset):
    """A plain data set of torch, of which nothing is looked at beforehand."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"input_ids": torch.arange(5, 11), "labels": self.labels[index]}


def trainer(folder, train, evaluate=None, method="amplify"):
    options = {"max_steps": 1, "per_device_train_batch_size": 4, "report_to": "none", "save_strategy": "no"}
    args = MixupTrainingArguments(str(folder), use_cpu=True, mixup_method=method, disable_tqdm=True, **options)
    model = tiny_model("bert", num_labels=2)
    return MixupTrainer(model, args, train_dataset=train, eval_dataset=evaluate)


@pytest.mark.parametrize("method", ["none", "amplify"])
def test_a_class_that_the_model_lacks_is_a_sentence_before_the_device_sees_it(tmp_path, method):
    wrong = Rows([0, 1, 5, 0])
    with pytest.raises(ValueError, match=r"^A batch of the train_dataset: label 5 of row \d is not allowed"):
        trainer(tmp_path, wrong, method=method).train()
    right = trainer(tmp_path, Rows([0, 1, -100, 0]), wrong, method)
    assert right.train().global_step == 1
    for call, name in ((right.evaluate, "eval"), (lambda: right.predict(wrong), "test")):
        with pytest.raises(ValueError, match=f"^A batch of the {name}_dataset: label 5 of row 2 .* from 0 to 1"):
            call()


def test_a_data_set_without_rows(tmp_path):
    full = tiny_dataset(rows=4, num_labels=2)
    for empty in (Rows([]), full.select([])):
        with pytest.raises(ValueError, match=r"^The train_dataset has no rows: give it at least one\.$"):
            trainer(tmp_path, empty).train()
        for evaluate in (empty, {"a": full, "b": empty}):
            with pytest.raises(ValueError, match=r"^The eval_dataset has no rows: give it at least one\.$"):
                trainer(tmp_path, full, evaluate).evaluate()
