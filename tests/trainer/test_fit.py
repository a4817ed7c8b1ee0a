"""What does not fit a method is said when the trainer is built; what fits trains."""

import logging

import numpy as np
import pytest
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, TaskType, get_peft_model
from transformers import AutoModelForSequenceClassification, BertConfig, pipeline

from hf_mixup import MixupTrainer, MixupTrainingArguments
from tests.tiny import PARENTS, same_weights, tiny_dataset, tiny_model, wordpiece_tokenizer
from tests.trainer.runs import STRONG, logged, train

SSMIX = {"mixup_method": "ssmix"}
SIZES = {"token_dim": 32, "num_transformer_submodules": 1, "num_attention_heads": 4, "num_layers": 3}


def built(folder, model, **options):
    arguments = MixupTrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True, **options)
    return MixupTrainer(model, arguments, train_dataset=tiny_dataset(), processing_class=wordpiece_tokenizer())


# ---- Adapters and attention ----

# What peft asks of a model, transformers has renamed.
PEFT_ITSELF = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def adapted(kind):
    config = {
        "prefix": lambda: PrefixTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=2, **SIZES),
        "prompt": lambda: PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=2, **SIZES),
        "p-tuning": lambda: PromptEncoderConfig(
            task_type=TaskType.SEQ_CLS, num_virtual_tokens=2, encoder_hidden_size=8, **SIZES
        ),
    }[kind]()
    return get_peft_model(tiny_model("bert"), config)


@PEFT_ITSELF
@pytest.mark.parametrize(
    ("kind", "mixup", "sentence"),
    [
        ("prefix", STRONG, "'amplify' cannot train a model with the adapter PREFIX_TUNING, which goes around"),
        ("prompt", SSMIX, "'ssmix' cannot train a model with the adapter PROMPT_TUNING, which puts prompts"),
        ("p-tuning", SSMIX, "'ssmix' cannot train a model with the adapter P_TUNING, which puts prompts"),
        ("prompt", {**STRONG, "mixup_attention_mask": "skip"}, "'amplify' with mixup_attention_mask='skip' cannot"),
    ],
    ids=str,
)
def test_adapters_that_a_method_cannot_mix_in_are_refused_at_construction(tmp_path, kind, mixup, sentence):
    with pytest.raises(ValueError, match=f"mixup_method={sentence}"):
        built(tmp_path, adapted(kind), **mixup)


@PEFT_ITSELF
@pytest.mark.parametrize("kind", ["prompt", "p-tuning"])
@pytest.mark.parametrize("mixup", [STRONG, {"mixup_method": "embedmix"}, {"mixup_method": "sentmix"}], ids=str)
def test_learned_prompts_train_with_the_other_methods(tmp_path, kind, mixup):
    assert np.isfinite(logged(train(tmp_path, adapted(kind), max_steps=2, **mixup), "loss")).all()


def flexible():
    model = tiny_model("bert")
    model.config._attn_implementation = "flex_attention"
    return model


@pytest.mark.parametrize(
    "mixup",
    [
        {"mixup_method": "embedmix"},
        {"mixup_method": "attentionmix", "mixup_attention_head": "1"},
        {"mixup_method": "attentionmix", "mixup_attention_head": "1", "mixup_attention_mask": "own"},
        {**STRONG, "mixup_clean": "average"},
    ],
    ids=str,
)
def test_flex_attention_is_refused_where_masks_are_joined(tmp_path, mixup):
    with pytest.raises(ValueError, match="flex_attention does not give as tensors: load the model with attn_impl"):
        built(tmp_path, flexible(), **mixup)


@pytest.mark.parametrize(
    "mixup", [{}, STRONG, {"mixup_method": "sentmix", "mixup_clean": "average"}, {"mixup_method": "batchmixup"}]
)
def test_flex_attention_is_taken_where_masks_stay_as_they_are(tmp_path, mixup):
    built(tmp_path, flexible(), **mixup)


# ---- Labels ----


@pytest.mark.parametrize(
    ("model", "options", "sentence"),
    [
        (
            {},
            {"mixup_method": "batchmixup", "label_smoothing_factor": 0.1},
            "no meaning for the dot-product loss",
        ),
        ({"num_labels": 1}, {"mixup_method": "mixup-pairs"}, "Mixing whole batches has no meaning for regression"),
        (
            {"problem_type": "multi_label_classification"},
            {"mixup_method": "batchmixup"},
            "Mixing whole batches has no meaning for multi_label_classification",
        ),
        ({"num_labels": 1}, {"label_smoothing_factor": 0.1}, "label smoothing has no meaning for regression"),
        (
            {"problem_type": "multi_label_classification"},
            {"class_weights": "1,2,3"},
            "class_weights have no meaning for multi_label_classification",
        ),
    ],
    ids=str,
)
def test_what_has_no_meaning_for_the_labels_is_refused_at_construction(tmp_path, model, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        built(tmp_path, tiny_model("bert", **model), **options)


# ---- A column of the name of the plan ----


@pytest.mark.parametrize("mixup", [{}, STRONG], ids=["none", "mixed"])
def test_a_column_called_mixup_is_an_unused_column(tmp_path, mixup):
    plain, column = tiny_dataset(), tiny_dataset(mixup=[[1.0, 2.0]] * 37)
    expected, found = (
        train(tmp_path, dataset=dataset, max_steps=2, trainer_options={"eval_dataset": dataset}, **mixup)
        for dataset in (plain, column)
    )
    assert same_weights(found.model, expected.model)
    assert found.evaluate()["eval_loss"] == expected.evaluate()["eval_loss"]


@pytest.mark.parametrize("mixup", [{}, STRONG], ids=["none", "mixed"])
def test_a_column_called_mixup_that_is_kept_is_refused(tmp_path, mixup):
    column = tiny_dataset(mixup=[[1.0, 2.0]] * 37)
    sentence = "hold a column 'mixup', which is the name under which a plan goes to the model: rename it"
    with pytest.raises(ValueError, match=sentence):
        train(tmp_path, dataset=column, remove_unused_columns=False, **mixup)
    trained = train(
        tmp_path, max_steps=1, remove_unused_columns=False, trainer_options={"eval_dataset": column}, **mixup
    )
    with pytest.raises(ValueError, match=sentence):
        trained.evaluate()


# ---- Sizes that auto_find_batch_size tries ----


class LittleMemory(MixupTrainer):
    """Memory for eight rows; keeps the sizes of its batches."""

    def training_step(self, model, inputs, *args, **kwargs):
        rows = len(inputs["labels"])
        if rows > 8:
            raise RuntimeError("CUDA out of memory.")
        self.sizes.append(rows)
        return super().training_step(model, inputs, *args, **kwargs)


class NoMemory(LittleMemory):
    def training_step(self, *args, **kwargs):
        raise RuntimeError("CUDA out of memory.")


PAIRS = {**STRONG, "mixup_partner": "neighbour", "train_sampling_strategy": "group_by_length"}


def test_the_batch_sizes_that_are_tried_cut_no_pair_apart(tmp_path):
    trainer_class = type("Recorder", (LittleMemory,), {"sizes": []})
    options = {"per_device_train_batch_size": 12, "auto_find_batch_size": True, "max_steps": 4, "num_train_epochs": 1}
    train(tmp_path, trainer_class=trainer_class, dataset=tiny_dataset(rows=32), **options, **PAIRS)
    # 12, then int(0.9 * 12) = 10, then int(0.9 * 10) = 9, of which 8 are even.
    assert trainer_class.sizes == [8] * 4


def test_no_size_fits_ends_as_in_accelerate(tmp_path):
    options = {"per_device_train_batch_size": 4, "auto_find_batch_size": True}
    with pytest.raises(RuntimeError, match="No executable batch size found"):
        train(tmp_path, trainer_class=NoMemory, dataset=tiny_dataset(rows=32), **options, **PAIRS)


# ---- Pipelines ----


def test_a_pipeline_takes_the_model_without_a_word_and_answers_as_its_parent(tmp_path, family, caplog):
    model, tokenizer = tiny_model(family), wordpiece_tokenizer()
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tmp_path)
    plain = PARENTS[family].from_pretrained(tmp_path)
    assert type(AutoModelForSequenceClassification.from_pretrained(tmp_path)) is PARENTS[family]
    texts = ["a film of great beauty", "a dull comedy"]
    # transformers writes by handlers of its own.
    logger = logging.getLogger("transformers")
    propagates, logger.propagate = logger.propagate, True
    try:
        answers = [
            pipeline("text-classification", model=each.eval(), tokenizer=tokenizer, device="cpu")(texts)
            for each in (model, plain)
        ]
    finally:
        logger.propagate = propagates
    assert [answer["label"] for answer in answers[0]] == [answer["label"] for answer in answers[1]]
    scores = [[answer["score"] for answer in answered] for answered in answers]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert not [record for record in caplog.records if "not supported" in record.getMessage()]


def test_the_auto_classes_of_transformers_stay_as_they_are():
    model = AutoModelForSequenceClassification.from_config(
        BertConfig(num_hidden_layers=1, hidden_size=8, num_attention_heads=2, intermediate_size=8)
    )
    assert type(model) is PARENTS["bert"]
    assert len(list(AutoModelForSequenceClassification._model_mapping.keys())) == len(
        AutoModelForSequenceClassification._model_mapping
    )
