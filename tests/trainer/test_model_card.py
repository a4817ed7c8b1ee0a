"""The model card: valid metadata, what a reader needs, and nothing that data could smuggle in."""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import pipeline

import run_glue_mixup
from hf_mixup import METHODS, MixupTrainer, MixupTrainingArguments
from hf_mixup.trainer.model_card import CardFacts, bibtex, model_card
from tests.data_files import labelled_pairs, labelled_sentences, write_csv
from tests.tiny import tiny_dataset, tiny_model, wordpiece_tokenizer

FACTS = CardFacts(
    name="tiny",
    model_id="me/tiny",
    model_type="bert",
    problem_type="single_label_classification",
    labels=["no", "yes"],
)
SHORT = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--max_seq_length", "16", "--use_cpu", "true"]
QUIET = ["--log_level", "error", "--disable_tqdm", "true"]


def script(model, out, *flags) -> ModelCard:
    argv = ["--model_name_or_path", model, "--output_dir", str(out), *SHORT, *QUIET, *map(str, flags)]
    run_glue_mixup.main(argv)
    return ModelCard.load(out / "README.md")


def fences(card: ModelCard, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)\n```", card.text, re.DOTALL)


@pytest.fixture
def mrpc(tmp_path):
    """Flags of a task of pairs, in local files."""
    columns = ("sentence1", "sentence2", "label")
    train = write_csv(tmp_path / "train.csv", columns, labelled_pairs([0, 1]))
    validation = write_csv(tmp_path / "validation.csv", columns, labelled_pairs([0, 1], 6))
    files = ["--train_file", train, "--validation_file", validation]
    return ["--task_name", "mrpc", *files, "--do_train", "--do_eval"]


def test_the_card_of_the_script(tiny_bert_folder, tmp_path, mrpc):
    mixing = ["--mixup_method", "manifold", "--mixup_alpha", "0.7", "--mixup_layers", "1,pooled"]
    out = tmp_path / "out"
    card = script(tiny_bert_folder, out, *mrpc, *mixing, "--hub_token", "hf_secret", "--learning_rate", "1e-4")

    data = card.data
    assert (data.library_name, data.pipeline_tag, data.language) == ("transformers", "text-classification", "en")
    assert data.tags == ["mixup", "manifold", "generated_from_trainer"] and data.datasets == ["glue"]
    # A folder is no model of the Hub: its card must not name it as one.
    assert data.base_model is None
    results = {result.metric_type: result for result in data.eval_results}
    written = yaml.safe_load((out / "all_results.json").read_text())
    assert set(results) == {"accuracy", "f1", "combined_score"} == set(data.metrics)
    for name, result in results.items():
        assert result.metric_value == written[f"eval_{name}"]
        assert (result.dataset_type, result.dataset_name, result.dataset_config) == ("glue", "GLUE MRPC", "mrpc")
        assert result.dataset_split == "validation.csv" and result.task_type == "text-classification"

    text = card.text
    assert f"| GLUE MRPC, validation.csv | {written['eval_accuracy']:.4f} |" in text
    assert "fine-tuned from the local model `bert` on GLUE MRPC, with the mixup method `manifold`" in text
    paper = METHODS["manifold"].paper
    assert f"[{paper.title}]({paper.url})" in text and fences(card, "bibtex") == [bibtex(paper)]
    assert "`mixup_alpha=0.7`, `mixup_layers=1,pooled`; everything else is the default of the method" in text
    assert re.search(r"\| `ratio` \| beta, alpha 0\.7 \|", text) and "| `layers` | 1, pooled |" in text
    assert "| `learning_rate` | 0.0001 |" in text and f"hf_mixup {run_glue_mixup.MixupTrainer.__module__}" not in text
    # The class that mixed is not one that a reader could load.
    assert "MixupBert" not in str(card) and "hf_secret" not in str(card)

    command = fences(card, "bash")[0].replace(" \\\n    ", " ")
    assert command.startswith("python run_glue_mixup.py --model_name_or_path bert --output_dir out ")
    assert "--train_file train.csv" in command
    # The folders of a machine are nobody's business.
    assert str(tmp_path) not in str(card) and str(Path(tiny_bert_folder).parent) not in str(card)
    assert "--hub_token $HF_TOKEN" in command and "--mixup_layers 1,pooled" in command


def test_the_code_of_the_card_runs_in_plain_transformers(tiny_bert_folder, tmp_path, mrpc, monkeypatch, capsys):
    card = script(tiny_bert_folder, tmp_path / "out", *mrpc, "--mixup_method", "amplify")
    assert "With transformers alone, in the folder of this card:" in card.text
    monkeypatch.chdir(tmp_path / "out")
    code = fences(card, "python")[0]
    assert "hf_mixup" not in code and 'model="."' in code
    names: dict = {}
    exec(code, names)
    assert "'label': '" in capsys.readouterr().out
    pair = re.search(r"# A pair of texts: (.*)", code)[1]
    assert eval(pair, names)["label"] in {"not_equivalent", "equivalent"}
    assert "The labels: `not_equivalent`, `equivalent`." in card.text


def test_the_card_of_a_plain_run_says_nothing_of_mixup(tiny_bert_folder, tmp_path, mrpc):
    card = script(tiny_bert_folder, tmp_path / "out", *mrpc)
    assert card.data.tags == ["generated_from_trainer"]
    said = card.text.replace("run_glue_mixup.py", "").replace("hf_mixup 0", "")
    assert "mixup" not in said.lower() and "## Citation" not in said
    assert "fine-tuned from the local model `bert` on GLUE MRPC." in said


def test_without_a_training_there_is_no_card_and_none_is_written_over(tiny_bert_folder, tmp_path, mrpc):
    script(tiny_bert_folder, tmp_path / "out", *mrpc, "--mixup_method", "amplify")
    (files, card), steps = (mrpc[:-2], (tmp_path / "out" / "README.md").read_text()), ["--do_eval", "--do_predict"]
    argv = ["--model_name_or_path", str(tmp_path / "out"), *SHORT, *QUIET, *files, "--test_file", files[-1]]
    for step in steps:
        run_glue_mixup.main([*argv, step, "--output_dir", str(tmp_path / step)])
        assert not (tmp_path / step / "README.md").exists()
    run_glue_mixup.main([*argv, *steps, "--output_dir", str(tmp_path / "out")])
    assert (tmp_path / "out" / "README.md").read_text() == card


def test_a_later_card_keeps_what_the_config_says_of_the_training(tmp_path):
    mixed = trainer(tmp_path / "first", mixup_method="amplify", mixup_alpha=0.3)
    mixed.train()
    trainer(tmp_path / "later", mixed.model).create_model_card()
    card = ModelCard.load(tmp_path / "later" / "README.md")
    assert "| `ratio` | max-of-n, alpha 0.3, draws 5 |" in card.text and "amplify" in card.data.tags
    # Which options were given then, nobody knows now.
    assert "mixup_alpha" not in card.text


def test_data_in_a_folder_are_no_data_set_of_the_hub(tiny_bert_folder, tmp_path):
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "train.csv", ("sentence", "label"), labelled_sentences(["red", "green"], 20))
    card = script(tiny_bert_folder, tmp_path / "out", "--dataset_name", tmp_path / "data", "--do_train")
    assert "on the folder data." in card.text and card.data.datasets is None
    assert str(tmp_path) not in str(card)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("me/base", "from [me/base](https://huggingface.co/me/base)"),
        ("bert-base-uncased", "from [bert-base-uncased](https://huggingface.co/bert-base-uncased)"),
        # Folders that are gone.
        ("/home/me/models/base", "from the local model `base`"),
        ("../models/base", "from the local model `base`"),
        ("runs/first/base", "from the local model `base`"),
    ],
)
def test_a_base_model_is_on_the_hub_or_a_folder(tmp_path, base, said):
    trainer(tmp_path / "tiny").create_model_card(finetuned_from=base, license="mit")
    card = ModelCard.load(tmp_path / "tiny" / "README.md")
    assert said in card.text and "/home" not in str(card)
    assert card.data.base_model == (base if "[" in said else None)


def test_a_part_of_train_that_was_held_out_is_named(tiny_bert_folder, tmp_path):
    rows = labelled_sentences(["red", "green"], 20)
    train = write_csv(tmp_path / "train.csv", ("sentence", "label"), rows)
    flags = ["--train_file", train, "--validation_split", "0.2", "--do_train", "--do_eval"]
    card = script(tiny_bert_folder, tmp_path / "out", *flags)
    assert "| 20% held out of train.csv |" in card.text and "on the file train.csv." in card.text
    assert {result.dataset_type for result in card.data.eval_results} == {"local"}
    assert card.data.datasets is None


def trainer(folder, model=None, **options) -> MixupTrainer:
    args = MixupTrainingArguments(
        output_dir=str(folder), max_steps=2, report_to="none", use_cpu=True, disable_tqdm=True, **options
    )
    data = {"train_dataset": tiny_dataset(12), "eval_dataset": tiny_dataset(6)}
    return MixupTrainer(
        model or tiny_model("bert"),
        args,
        processing_class=wordpiece_tokenizer(),
        compute_metrics=lambda prediction: {"accuracy": 0.25, "broken": float("nan")},
        **data,
    )


def test_a_trainers_own_card_takes_the_last_evaluation(tmp_path):
    run = trainer(tmp_path / "tiny", mixup_method="ssmix")
    run.train()
    run.evaluate()
    run.create_model_card(
        language="en", license="mit", tags="ours", model_name="A name", finetuned_from="me/base", dataset="Some texts"
    )
    card = ModelCard.load(tmp_path / "tiny" / "README.md")
    data = card.data
    assert (data.license, data.base_model, data.language) == ("mit", "me/base", "en")
    assert data.tags == ["mixup", "ssmix", "ours", "generated_from_trainer"]
    # What is not a number has no place in the metadata.
    assert [(result.metric_type, result.metric_value) for result in data.eval_results] == [("accuracy", 0.25)]
    assert "# A name\n" in card.text and "[me/base](https://huggingface.co/me/base) on Some texts" in card.text
    assert "All of these are the defaults of the method." in card.text and fences(card, "bash") == []


@pytest.mark.parametrize("foreign", [{"method": "of another version"}, "by hand", {}])
def test_what_this_version_does_not_know_is_left_out(tmp_path, foreign):
    run = trainer(tmp_path / "tiny")
    run.model.config.mixup = foreign
    run.create_model_card()
    assert ModelCard.load(tmp_path / "tiny" / "README.md").data.tags == ["generated_from_trainer"]


def test_without_an_evaluation_there_are_no_results(tmp_path):
    trainer(tmp_path / "tiny").create_model_card()
    card = ModelCard.load(tmp_path / "tiny" / "README.md")
    assert "## Results" not in card.text and "model-index" not in str(card)


def test_the_best_model_has_its_own_numbers(tmp_path):
    """After the training the best weights are loaded: the numbers of the last ones would be wrong."""
    scores = iter([0.75, 0.5])
    run = trainer(
        tmp_path / "tiny", eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1,
        load_best_model_at_end=True, metric_for_best_model="accuracy",
    )  # fmt: skip
    run.compute_metrics = lambda prediction: {"accuracy": next(scores)}
    run.train()
    run.create_model_card()
    card = ModelCard.load(tmp_path / "tiny" / "README.md")
    assert [result.metric_value for result in card.data.eval_results] == [0.75]


@pytest.mark.parametrize(
    ("kind", "labels", "wanted"),
    [
        ("regression", [], "A bert model for regression on texts"),
        ("multi_label_classification", ["a", "b"], "The labels, of which a text may have several: `a`, `b`."),
    ],
)
def test_other_kinds_of_labels(kind, labels, wanted):
    card = model_card(replace(FACTS, problem_type=kind, labels=labels))
    assert wanted in card.text


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.site])
def test_every_method_has_a_card(tmp_path, name):
    # The paper's head is one that the tiny model does not have.
    head = {"mixup_attention_head": "0"} if name == "attentionmix" else {}
    run = trainer(tmp_path / "tiny", mixup_method=name, **head)
    run._record_mixup()
    run.create_model_card()
    card = ModelCard.load(tmp_path / "tiny" / "README.md")
    assert {"mixup", name} <= set(card.data.tags)
    assert len(fences(card, "bibtex")) == (METHODS[name].paper is not None)
    for row in re.findall(r"^\| `(?:ratio|layers|site)` \|.*$", card.text, re.MULTILINE):
        assert "{" not in row and "None" not in row, row


def test_data_cannot_break_out_of_the_card():
    """Names of labels and files come from data: they may not end the code, the table or the block they stand in."""
    evil = "a`b\n---\n| x | <b>\n```\nrm -rf"
    card = model_card(
        replace(FACTS, labels=[evil], evaluations={evil: {"accuracy": 0.5}}, command=["python", evil], options={})
    )
    seen = r"a`b\n---\n| x | <b>\n```\nrm -rf"
    assert card.data.to_dict()["model-index"][0]["results"][0]["dataset"]["name"] == seen
    # A fence is longer than every run of backticks inside.
    assert f"The labels: ```` {seen} ````." in card.text
    assert r"| a\`b\\n---\\n\| x \| \<b\>\\n\`\`\`\\nrm -rf | 0.5000 |" in card.text
    assert re.search(r"^````bash\npython 'a`b\n---\n.*^````$", card.text, re.MULTILINE | re.DOTALL)


def test_what_people_paste_from_a_card_is_what_it_looks_like():
    folder = 'q"); import os; os.system("id") #'
    command = ["python", "run_glue_mixup.py", "--output_dir", "x; id $HF_TOKEN", "--token=$HF_TOKEN"]
    strange = {"name": folder, "model_id": folder, "base_model": "[a](b)", "base_on_hub": True, "dataset": "<i> *d*"}
    card = model_card(replace(FACTS, command=command, **strange))
    (code,) = re.findall(r"```python\n(.*?)\n```", card.text, re.DOTALL)
    (call,) = (node.value for node in ast.parse(code).body if isinstance(node, ast.Assign))
    assert [each.value.value for each in call.keywords] == [folder]
    assert shlex.split(card.text.partition("```bash\n")[2].partition("\n```")[0].replace("\\\n", "")) == command
    assert r"\<i\> \*d\*" in card.text and r"[\[a\](b)](https://huggingface.co/%5Ba%5D%28b%29)" in card.text
    assert '# q"); import os; os.system("id") \\#' in card.text.splitlines()


def test_bibtex_of_a_paper():
    paper = METHODS["amplify"].paper
    assert bibtex(paper) == (
        "@misc{yang2023amplify,\n"
        f"  title = {{{{{paper.title}}}}},\n"
        "  author = {Yang and Zhang and Xiong and Xiang},\n"
        "  year = {2023},\n"
        "  url = {https://arxiv.org/abs/2309.12689}\n"
        "}"
    )


def test_the_pipeline_gives_the_score_of_a_regression():
    """What the card says of regression: the number itself, not squeezed into 0 to 1."""
    tokenizer = wordpiece_tokenizer()
    kind = {"num_labels": 1, "problem_type": "regression", "vocab_size": len(tokenizer)}
    model = tiny_model("bert", mixup=False, **kind).eval()
    score = pipeline("text-classification", model=model, tokenizer=tokenizer)("a film")[0]["score"]
    assert score == pytest.approx(model(**tokenizer("a film", return_tensors="pt")).logits.item(), rel=1e-5)
