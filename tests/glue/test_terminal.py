"""What a run of the script says on the terminal: little by default, everything of stock's with --log_level info."""

from __future__ import annotations

import json
import re
import warnings

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertForMaskedLM

import run_glue_mixup
from hf_mixup.glue.terminal import class_distribution, closing_lines, head_alone_differs
from tests.script import captured, flags

CPU = ["--use_cpu", "true", "--disable_tqdm", "true", "--max_steps", "2", "--max_seq_length", "16"]


@pytest.fixture
def said(tiny_bert_folder, sentences, tmp_path):
    """Run the script and return all that it says on the terminal."""

    def call(*words, model=tiny_bert_folder, splits=("train", "validation", "test")):
        steps = {"train": "--do_train", "validation": "--do_eval", "test": "--do_predict"}
        argv = ["--model_name_or_path", str(model), "--output_dir", str(tmp_path / "out"), *CPU]
        argv += [*flags(sentences, *splits), *(steps[split] for split in splits)]
        with captured() as written, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("default")
            run_glue_mixup.main([*argv, *map(str, words)])
        return written.getvalue() + "".join(f"{warning.message}\n" for warning in warned)

    return call


def test_a_run_is_quiet_by_default(said, tmp_path):
    text = said("--mixup_method", "amplify", "--logging_steps", "1")
    assert len(text.splitlines()) <= 60
    for part in ("MixupTrainingArguments(", "Model config", "LOAD REPORT", "pin_memory", "input_ids", "_part-of"):
        assert part not in text
    assert text.count("classifier.bias, classifier.weight are not in ") == 1
    assert "Texts are read from sentence, labels (single) from label." in text
    # 14 rows of three labels in turn.
    assert "Class distribution in train set: red 5 (35.71%), green 5 (35.71%), blue 4 (28.57%)." in text
    assert "eval_accuracy" in text and "train_loss" in text
    # The terminal has stdout and stderr in one here; on both, nothing comes after the three lines.
    out = f"{tmp_path / 'out'}"
    model, mixed, files = text.splitlines()[-3:]
    assert model == f'Model: {out}, to be loaded by pipeline("text-classification", model="{out}")'
    assert files == f"Files: {out}/all_results.json, {out}/predict_results_None.txt, {out}/predictions.csv"
    history = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    logged = [entry for entry in history if "mixup_lambda" in entry]
    # Each of the two steps is logged, and has one batch.
    lam, share = (sum(entry[name] for entry in logged) / 2 for name in ("mixup_lambda", "mixup_applied"))
    assert mixed == f"Mixed: amplify, mean lambda {lam:.3f}, {share:.1%} of the batches"


def test_with_log_level_info_it_says_all_of_stocks(said, tmp_path):
    text = said("--log_level", "info")
    for part in (
        "MixupTrainingArguments(",
        "Model config BertConfig {",
        "LOAD REPORT",
        "***** Running training *****",
    ):
        assert part in text
    assert "classifier.bias | MISSING" in re.sub(" +", " ", text) and "start at random" not in text
    assert ("pin_memory" in text) != torch.accelerator.is_available()
    assert text.count("Sample ") == 3 and "*** Evaluate ***" in text and "*** Predict ***" in text
    # Files are written beside and moved to their place, which is what a reader is told.
    assert f"Model weights saved in {tmp_path / 'out' / 'model.safetensors'}" in text and "_part-of" not in text


def test_a_level_of_ones_own_holds_for_everything(said):
    text = said("--log_level", "error", splits=("train",))
    assert "WARNING" not in text and "INFO" not in text


def test_the_last_lines_of_other_runs(said, tiny_bert_folder, tmp_path):
    model, mixed, files = said("--log_level", "error", splits=("train",)).splitlines()[-3:]
    out = tmp_path / "out"
    assert mixed == "Mixed: nothing was mixed (--mixup_method none)" and files == f"Files: {out}/all_results.json"
    model, mixed, files = said("--log_level", "error", model=out, splits=("test",)).splitlines()[-3:]
    assert model.startswith(f"Model: {out}, not trained in this run, to be loaded by ")
    assert mixed.endswith("nothing was mixed, as nothing was trained")
    assert files == f"Files: {out}/predict_results_None.txt, {out}/predictions.csv"


def test_the_last_lines_show_every_character_and_only_what_is_known():
    text = closing_lines('a"\x1b', "nonlinear", {"mixup_applied": 0.25}, ["\u202eb"])
    assert text.splitlines() == [
        r"""Model: a"\x1b, to be loaded by pipeline("text-classification", model="a\"\u001b")""",
        "Mixed: nonlinear, 25.0% of the batches",
        r"Files: \u202eb",
    ]


def test_missing_weights_of_the_body_are_told_in_full(said, tiny_bert_folder, tmp_path):
    weights = load_file(f"{tiny_bert_folder}/model.safetensors")
    folder = tmp_path / "broken"
    transformers.AutoTokenizer.from_pretrained(tiny_bert_folder).save_pretrained(folder)
    transformers.AutoConfig.from_pretrained(tiny_bert_folder).save_pretrained(folder)
    gone = "encoder.layer.1.output.dense.weight"
    save_file({key: value for key, value in weights.items() if key != gone}, folder / "model.safetensors")
    text = re.sub(" +", " ", said(model=folder, splits=("train",)))
    assert f"bert.{gone} | MISSING" in text and "start at random" not in text


def loaded(model, folder, **options):
    model.save_pretrained(folder)
    with warnings.catch_warnings():
        return AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True, **options)


SIZES = {"vocab_size": 20, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}


def test_the_head_of_another_task_is_one_line(tmp_path):
    config = BertConfig(**SIZES, num_hidden_layers=1)
    model, info = loaded(BertForMaskedLM(config), tmp_path / "mlm")
    # The pooler belongs to the body: a model for masked words has none.
    assert head_alone_differs("m", model, info) is None
    info["missing_keys"] = {key for key in info["missing_keys"] if "pooler" not in key}
    told = head_alone_differs("m", model, info)
    assert told.startswith("classifier.bias, classifier.weight are not in m and start at random; its cls.predictions.")
    assert "cls.predictions.transform.dense.weight" in told and told.endswith(" are not used.")


def test_left_over_weights_of_the_body_are_not_one_line(tmp_path):
    """A body that was saved by itself has no prefix before the names of its weights."""
    deep = transformers.BertModel(BertConfig(**SIZES, num_hidden_layers=2))
    model, info = loaded(deep, tmp_path / "deep", config=BertConfig(**SIZES, num_hidden_layers=1))
    assert any("layer.1." in key for key in info["unexpected_keys"])
    assert head_alone_differs("m", model, info) is None


def test_a_whole_model_has_no_line(tmp_path):
    config = BertConfig(**SIZES, num_hidden_layers=1)
    model, info = loaded(transformers.BertForSequenceClassification(config), tmp_path / "whole")
    assert head_alone_differs("m", model, info) is None
    wider = {"num_labels": 5, "ignore_mismatched_sizes": True}
    model, info = loaded(transformers.BertForSequenceClassification(config), tmp_path / "whole", **wider)
    assert (
        head_alone_differs("m", model, info) == "classifier.bias, classifier.weight are not in m and start at random."
    )


def test_of_many_classes_the_log_names_the_frequent_ones():
    encoded = [index for index in range(150) for _ in range(200 - index)]
    names = [f"class\x1b {index}" for index in range(150)]
    text = class_distribution(encoded, names)
    assert text.startswith(r"class\x1b 0 200 (1.06%), class\x1b 1 199 (1.06%), ")
    assert text.count("%") == 8 and text.endswith(r"and 142 more, the rarest class\x1b 149 51")
    assert class_distribution([1, 0, 1], ["a", "b"]) == "b 2 (66.67%), a 1 (33.33%)"
