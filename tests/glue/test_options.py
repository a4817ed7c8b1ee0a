"""Options that do not fit each other, the labels or the model."""

import pytest

from hf_mixup.errors import UsageError
from hf_mixup.glue import options
from hf_mixup.trainer import MixupTrainingArguments
from tests.tiny import NUM_LAYERS, tiny_config


def arguments(**given):
    return MixupTrainingArguments(output_dir="unused", use_cpu=True, **given)


@pytest.mark.parametrize("given", ["ab", "a=1,b", "a=1=2"])
def test_options_of_the_optimizer_are_pairs(given):
    options.check_length_and_schedule(arguments(optim_args="betas=0.9"))
    with pytest.raises(UsageError, match=f"--optim_args '{given}' should be name=value"):
        options.check_length_and_schedule(arguments(optim_args=given))


def test_there_is_something_to_train():
    options.check_length_and_schedule(arguments(num_train_epochs=0, max_steps=3))
    with pytest.raises(UsageError, match="--num_train_epochs should be above 0, got 0"):
        options.check_length_and_schedule(arguments(num_train_epochs=0))


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("cosine_with_min_lr", None, "min_lr"),
        ("warmup_stable_decay", None, "num_decay_steps"),
        ("linear", {"num_cycles": 2}, "num_cycles"),
        ("cosine", {"num_cycles": float("inf")}, "math domain error"),
        ("cosine", {"num_cycles": "two"}, "two"),
    ],
)
def test_schedules_that_cannot_be_made(name, given, sentence):
    wrong = arguments(lr_scheduler_type=name, lr_scheduler_kwargs=given)
    with pytest.raises(UsageError, match=f"^--lr_scheduler_type {name} cannot be made .*{sentence}"):
        options.check_length_and_schedule(wrong)


def test_schedules_that_can_be_made():
    for name in ("linear", "constant", "cosine", "polynomial", "reduce_lr_on_plateau", "inverse_sqrt"):
        given = {"eval_strategy": "steps"} if "plateau" in name else {}
        options.check_length_and_schedule(arguments(lr_scheduler_type=name, **given))
    options.check_length_and_schedule(
        arguments(lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr": 0.1})
    )


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
