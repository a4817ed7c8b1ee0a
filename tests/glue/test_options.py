"""Options that do not fit each other, the labels or the model."""

import pytest

from hf_mixup.errors import UsageError
from hf_mixup.glue import options
from hf_mixup.trainer import MixupTrainingArguments
from tests.tiny import NUM_LAYERS, tiny_config


def arguments(**given):
    return MixupTrainingArguments(output_dir="unused", use_cpu=True, **given)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("seed", -1, "at least 0"),
        ("seed", 2**32, "below 4294967296"),
        ("per_device_train_batch_size", 0, "at least 1"),
        ("per_device_eval_batch_size", -1, "at least 1"),
        ("gradient_accumulation_steps", 0, "at least 1"),
        ("learning_rate", -1e-5, "at least 0"),
        ("learning_rate", float("nan"), "got nan"),
        ("weight_decay", float("nan"), "got nan"),
        ("dataloader_num_workers", -1, "at least 0"),
        ("num_train_epochs", 0, "above 0"),
        ("num_train_epochs", float("nan"), "above 0"),
        ("label_smoothing_factor", 1.0, "at least 0 and below 1"),
        ("label_smoothing_factor", -0.1, "at least 0 and below 1"),
    ],
)
def test_numbers_out_of_range(name, value, sentence):
    args = arguments()
    options.check_ranges(args)
    setattr(args, name, value)
    with pytest.raises(UsageError, match=f"--{name} should be .*{sentence}"):
        options.check_ranges(args)


def test_epochs_do_not_count_beside_steps():
    options.check_ranges(arguments(num_train_epochs=0, max_steps=3))


WEIGHTS, SMOOTHING = {"class_weights": "1,2"}, {"label_smoothing_factor": 0.1}
METHODS = [{"mixup_method": name} for name in ("batchmixup", "batchmixup-code", "mixup-pairs")]


@pytest.mark.parametrize("given", [WEIGHTS, {"class_weights": "balanced"}, SMOOTHING, *METHODS], ids=str)
@pytest.mark.parametrize("kind", ["regression", "multi"])
def test_options_that_need_one_class_per_row(kind, given):
    with pytest.raises(UsageError, match=f"--{next(iter(given))} .*is for labels of one class per row.*{kind}"):
        options.check_label_options(kind, 2, arguments(**given))
    options.check_label_options("single", 2, arguments(**given))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"class_weights": "balanced"}, "give one number for each class"),
        ({"class_weights": "1,2,3"}, "3 numbers, but the labels have 2 classes"),
        ({"mixup_method": "batchmixup", **SMOOTHING}, "dot-product loss"),
    ],
)
def test_options_that_do_not_fit_soft_labels(given, sentence):
    with pytest.raises(UsageError, match=sentence):
        options.check_label_options("soft", 2, arguments(**given))
    options.check_label_options("soft", 2, arguments(mixup_method="mixup-pairs", **WEIGHTS, **SMOOTHING))


@pytest.mark.parametrize("kind", ["single", "multi", "regression", "soft"])
def test_plain_mixing_fits_all_labels(kind):
    options.check_label_options(kind, 2, arguments(mixup_method="amplify"))


@pytest.mark.parametrize(
    "given",
    [
        {"mixup_method": "amplify", "mixup_layers": str(NUM_LAYERS + 1)},
        {"mixup_method": "attentionmix", "mixup_attention_head": "4"},
        {"mixup_method": "attentionmix", "mixup_attention_head": "0", "mixup_attention_layer": NUM_LAYERS + 1},
    ],
    ids=str,
)
def test_blocks_and_heads_that_the_model_lacks(family, given):
    config = tiny_config(family)
    with pytest.raises(UsageError, match=list(given)[-1]):
        options.check_model_options(config, arguments(**given))
    options.check_model_options(config, arguments(mixup_method="amplify", mixup_layers=str(NUM_LAYERS)))
    options.check_model_options(config, arguments(mixup_method="ssmix"))


def test_the_best_metric_is_one_that_is_reported():
    keys = ["accuracy", "f1_macro"]
    evaluating = {"do_train": True, "eval_strategy": "steps"}
    for name in ("accuracy", "eval_f1_macro", "loss", "eval_runtime"):
        options.check_best_metric(keys, arguments(metric_for_best_model=name, **evaluating))
    options.check_best_metric(keys, arguments(metric_for_best_model="foo", do_train=True))
    options.check_best_metric(keys, arguments(**evaluating))
    for name, guess in (("foo", ""), ("acuracy", "; did you mean accuracy")):
        with pytest.raises(UsageError, match=f"{name} is not reported, choose one of loss, accuracy, f1_macro{guess}"):
            options.check_best_metric(keys, arguments(metric_for_best_model=name, **evaluating))
