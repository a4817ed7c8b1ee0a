"""`hf-mixup calibrate`: what it writes and shows against plain transformers and scikit-learn, and what it refuses."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.special import expit, softmax
from sklearn.metrics import log_loss
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    pipeline,
)

import run_glue_mixup
from hf_mixup.cli import main
from hf_mixup.trainer.model_card import calibrated_card
from tests.data_files import write_csv, write_json_lines
from tests.tiny import SENTENCES, tiny_model

NAMES = ("red", "green", "blue")
# The labels are drawn so that this temperature is the right one.
TRUE = 2.5


WORDS = sorted({word for sentence in SENTENCES for word in re.findall(r"\w+", sentence)})


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A token a word, numbered in their order: one that is trained has other tokens in each process."""
    specials = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    names = {name: number for number, name in enumerate([*specials.values(), *WORDS])}
    tokenizer = Tokenizer(WordLevel(names, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    ends = [(specials[name], names[specials[name]]) for name in ("cls_token", "sep_token")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **specials)


def save(folder: Path, num_labels=3, names=NAMES, **options) -> Path:
    tokenizer = word_tokenizer()
    names = names[:num_labels]
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    model = tiny_model("bert", mixup=False, vocab_size=len(tokenizer), num_labels=num_labels, **labels, **options)
    with torch.no_grad():
        # Logits that differ much from text to text.
        model.classifier.weight.mul_(4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def texts(count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, 6)) for _ in range(count)]


@torch.no_grad()
def logits(folder: Path, rows: list[str]) -> np.ndarray:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batch = AutoTokenizer.from_pretrained(folder)(rows, padding=True, return_tensors="pt")
    return model(**batch).logits.double().numpy()


def drawn(folder: Path, rows: list[str], seed: int) -> list[int]:
    generator = np.random.default_rng(seed)
    return [int(generator.choice(3, p=row)) for row in softmax(logits(folder, rows) / TRUE, axis=1)]


def file_of(path: Path, folder: Path, count: int, seed: int) -> str:
    rows = texts(count, seed)
    return write_csv(
        path, ("text", "label"), zip(rows, (NAMES[each] for each in drawn(folder, rows, seed)), strict=True)
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A classifier that is too sure, and files of labelled texts."""
    folder = tmp_path_factory.mktemp("trained")
    save(folder / "model")
    file_of(folder / "validation.csv", folder / "model", 400, 1)
    file_of(folder / "test.csv", folder / "model", 300, 2)
    return folder


@pytest.fixture
def call(trained, tmp_path, capsys):
    """Run the command and return its exit code, output and errors."""

    def run(*flags, model=trained / "model", file=trained / "validation.csv", out=tmp_path / "new"):
        words = ["calibrate", model, file, "--output_dir", out, "--max_seq_length", 32, *flags]
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


def rows_of(file: Path) -> tuple[list[str], np.ndarray]:
    rows = pd.read_csv(file)
    return rows["text"].tolist(), rows["label"].map(NAMES.index).to_numpy(copy=True)


def joined(out: str) -> str:
    """The output without the ends of its lines."""
    return " ".join(out.split())


def numbers(out: str, head: str) -> list[str]:
    return next(line for line in out.splitlines() if line.startswith(head))[len(head) :].split()


def test_the_pipeline_is_calibrated_and_the_table_says_how_well(call, trained, tmp_path):
    before = {path.name: path.read_bytes() for path in (trained / "model").iterdir()}
    code, out, err = call("--test_file", trained / "test.csv", "--precision", "0.6")
    assert (code, err) == (0, "")
    noted = AutoConfig.from_pretrained(tmp_path / "new").calibration
    temperature = noted["temperature"]
    assert temperature == pytest.approx(TRUE, rel=0.2)
    rows, labels = rows_of(trained / "test.csv")
    # By the pipeline of transformers alone.
    classify = pipeline("text-classification", model=str(tmp_path / "new"), top_k=None)
    found = [{each["label"]: each["score"] for each in answer} for answer in classify(rows, batch_size=64)]
    found = np.array([[answer[name] for name in NAMES] for answer in found])
    plain = logits(trained / "model", rows)
    np.testing.assert_allclose(found, softmax(plain / temperature, axis=1), atol=1e-6)
    losses = [log_loss(labels, each) for each in (softmax(plain, axis=1), found / found.sum(axis=1, keepdims=True))]
    assert numbers(out, "NLL") == [f"{loss:.3f}" for loss in losses] and losses[1] < losses[0]
    assert [noted["before"]["nll"], noted["after"]["nll"]] == pytest.approx(losses, abs=1e-6)
    right = found.argmax(axis=1) == labels
    assert numbers(out, "accuracy") == [f"{right.mean():.3f}"] * 2
    # The thresholds accept what they say.
    at, accepted, coverage, precision, _ = numbers(out, "all classes   on these rows")
    taken = found.max(axis=1) >= float(at)
    assert (int(accepted), coverage) == (taken.sum(), f"{taken.mean():.3f}")
    assert precision == f"{right[taken].mean():.3f}" and right[taken].mean() >= 0.6
    assert noted["thresholds"]["by_class"]["all classes"]["on_these_rows"] == float(at)
    assert "300 rows of test.csv, which fitted nothing" in out and "400 rows of validation.csv" in out
    # The model itself is as it was, and so is what its config says of mixing.
    assert {path.name: path.read_bytes() for path in (trained / "model").iterdir()} == before
    with Image.open(tmp_path / "new" / "reliability.png") as picture:
        assert picture.size[0] > 600
    # Nothing else is left.
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_without_other_rows_each_is_scaled_by_the_others(call, tmp_path, trained):
    code, out, _ = call()
    assert code == 0
    noted = AutoConfig.from_pretrained(tmp_path / "new").calibration
    rows, labels = rows_of(trained / "validation.csv")
    plain = logits(trained / "model", rows)
    # Those that fitted it would flatter the temperature: no other one has a lower NLL on them.
    flattering = log_loss(labels, softmax(plain / noted["temperature"], axis=1))
    assert flattering < noted["after"]["nll"] < flattering + 0.01 < noted["before"]["nll"]
    assert "each divided by what fits the four fifths that it is not in (parts by seed 42)" in joined(out)
    assert max(map(len, out.splitlines())) <= 80


def test_files_may_be_json_and_hold_ids(call, tmp_path, trained):
    rows, labels = rows_of(trained / "validation.csv")
    lines = [{"body": text, "class": int(label)} for text, label in zip(rows, labels, strict=True)]
    file = write_json_lines(tmp_path / "ids.jsonl", lines)
    code, _, err = call("--label_column_name", "class", file=file)
    assert (code, err) == (0, "")
    first = AutoConfig.from_pretrained(tmp_path / "new").calibration["temperature"]
    assert call(out=tmp_path / "again")[0] == 0
    assert AutoConfig.from_pretrained(tmp_path / "again").calibration["temperature"] == first


def test_several_classes_have_a_temperature_each(call, tmp_path):
    folder = save(tmp_path / "several", problem_type="multi_label_classification")
    rows, generator = texts(400, 1), np.random.default_rng(0)
    true = np.array([3.0, 0.6, 1.0])
    plain = logits(folder, rows)
    hits = generator.random((400, 3)) < expit(plain / true)
    # The last class is always answered rightly: no temperature fits it best.
    hits[:, 2] = plain[:, 2] > 0
    lines = [
        {"text": text, "label": [name for name, hit in zip(NAMES, row, strict=True) if hit]}
        for text, row in zip(rows, hits, strict=True)
    ]
    file = write_json_lines(tmp_path / "several.jsonl", lines)
    code, out, err = call(model=folder, file=file)
    assert code == 2 and "add --per_class" in err
    code, out, err = call("--per_class", "--precision", "0.8", model=folder, file=file)
    assert (code, err) == (0, "")
    fitted = AutoConfig.from_pretrained(tmp_path / "new").calibration["temperature"]
    assert [fitted["red"], fitted["green"]] == pytest.approx(true[:2], rel=0.3) and fitted["blue"] == 1
    wanted = plain / np.array([fitted[name] for name in NAMES])
    np.testing.assert_allclose(logits(tmp_path / "new", rows), wanted, atol=1e-6 * np.abs(wanted).max())
    assert numbers(out, "red")[0] == f"{fitted['red']:.3f}" and numbers(out, "blue")[:2] == ["none", "fits"]
    assert numbers(out, "red")[1] == f"{log_loss(hits[:, 0], expit(plain[:, 0])):.3f}"
    assert "1 of 3 classes" in out
    answers = pipeline("text-classification", model=str(tmp_path / "new"), top_k=None)(rows[:3])
    for row, answer in enumerate(answers):
        scores = {each["label"]: each["score"] for each in answer}
        assert scores["red"] == pytest.approx(expit(wanted[row, 0]), abs=1e-5)


def test_a_threshold_for_each_class(call, trained):
    code, out, _ = call("--per_class", "--precision", "0.55", "--test_file", trained / "test.csv")
    assert code == 0
    rows, labels = rows_of(trained / "test.csv")
    temperature = float(re.search(r"Temperature ([\d.]+)", out)[1])
    found = softmax(logits(trained / "model", rows) / temperature, axis=1)
    shown = 0
    for index, name in enumerate(NAMES):
        cells = numbers(out, f"{name:<14}on these rows")
        own = found.argmax(axis=1) == index
        if cells != ["none"]:
            taken = own & (found.max(axis=1) >= float(cells[0]))
            assert cells[1:3] == [str(taken.sum()), f"{taken.sum() / own.sum():.3f}"]
            assert cells[3] == f"{(labels[taken] == index).mean():.3f}" and float(cells[3]) >= 0.55
            shown += 1
    assert shown


def test_a_precision_that_no_threshold_reaches_is_said(call, trained, tmp_path):
    code, out, _ = call("--precision", "0.97")
    assert code == 0 and numbers(out, "              by the bound") == ["none"]
    assert "No threshold has a precision of 0.97 with 95 % confidence: the highest lower bound is 0." in joined(out)
    # Where the surest rows are wrong, none has it on these rows either.
    rows, labels = rows_of(trained / "validation.csv")
    surest = np.argsort(-softmax(logits(trained / "model", rows), axis=1).max(axis=1))[:20]
    labels[surest] = logits(trained / "model", rows).argmin(axis=1)[surest]
    wrong = zip(rows, (NAMES[label] for label in labels), strict=True)
    file = write_csv(tmp_path / "wrong.csv", ("text", "label"), wrong)
    code, out, _ = call("--precision", "0.97", file=file, out=tmp_path / "other")
    assert code == 0 and numbers(out, "all classes   on these rows") == ["none"]
    assert "No threshold has a precision of 0.97 on these rows; the highest is 0." in joined(out)


@pytest.mark.parametrize("kind", ["in parts", "bfloat16"])
def test_weights_of_other_kinds(call, trained, tmp_path, kind):
    model = AutoModelForSequenceClassification.from_pretrained(trained / "model")
    if kind == "bfloat16":
        model.to(torch.bfloat16)
    folder = tmp_path / "kind"
    model.save_pretrained(folder, max_shard_size="50KB" if kind == "in parts" else "1GB")
    AutoTokenizer.from_pretrained(trained / "model").save_pretrained(folder)
    assert (folder / "model.safetensors.index.json").exists() == (kind == "in parts")
    code, out, err = call(model=folder)
    assert (code, err) == (0, "")
    saved = load_file(tmp_path / "new" / "model.safetensors")
    temperature = AutoConfig.from_pretrained(tmp_path / "new").calibration["temperature"]
    for name, weight in model.state_dict().items():
        wanted = (weight.double() / temperature).to(weight.dtype) if name.startswith("classifier.") else weight
        assert torch.equal(saved[name], wanted), name
    assert f"(torch.{'bfloat16' if kind == 'bfloat16' else 'float32'})" in joined(out)


def test_the_default_folder_lies_beside_the_model(trained, tmp_path, monkeypatch, capsys):
    shutil.copytree(trained / "model", tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    assert main(["calibrate", ".", str(trained / "validation.csv"), "--max_seq_length", "32"]) == 0
    assert (tmp_path / "mine-calibrated" / "model.safetensors").is_file()
    # A second time it would be written over, and what is calibrated is not calibrated again.
    assert main(["calibrate", ".", str(trained / "validation.csv")]) == 2
    assert "mine-calibrated is not empty; give a new or empty folder" in capsys.readouterr().err
    assert main(["calibrate", "../mine-calibrated", str(trained / "validation.csv")]) == 2
    assert "is calibrated already" in capsys.readouterr().err


def test_the_card_goes_along_and_says_what_was_done(call, trained, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(trained / "model", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "mixup": {"method": "amplify", "alpha": 1.0}}))
    card = '---\nlicense: mit\ntags:\n- mixup\n---\n\n# Mine\n\n```python\npipeline("x", model="mine")\n```\n'
    (folder / "README.md").write_text(card)
    assert call("--precision", "0.6", model=folder)[0] == 0
    written = ModelCard.load(tmp_path / "new" / "README.md")
    assert written.data.license == "mit" and written.data.tags == ["mixup"]
    assert 'pipeline("x", model="new")' in written.text and written.text.count("## Calibration") == 1
    config = AutoConfig.from_pretrained(tmp_path / "new")
    noted = config.calibration
    assert config.mixup == {"method": "amplify", "alpha": 1.0}
    assert f"those of `mine` divided by the temperature {noted['temperature']:.3f}" in written.text
    assert f"| NLL | {noted['before']['nll']:.4f} | {noted['after']['nll']:.4f} |" in written.text
    assert "400 rows of validation.csv" in written.text and str(tmp_path) not in written.text + json.dumps(noted)


def test_nothing_in_a_card_does_more_than_be_seen():
    evil = "a`b\n## c <b>|"
    same = dict.fromkeys(("nll", "ece", "brier"), 0.5)
    noted = {"temperature": {evil: 2.0}, "fitted_on": evil, "measured_on": evil, "before": same, "after": same}
    noted["thresholds"] = {"precision": 0.9, "by_class": {evil: {"on_these_rows": 0.5, "sure": None}}}
    text = calibrated_card(None, evil, evil, noted)
    assert "<b>" not in re.sub(r"``.*?``", "", text) and text.count("\n## ") == 1
    for line in text.splitlines():
        assert not line.startswith("|") or line.count("|") - line.count(r"\|") >= 3


def test_names_do_no_more_on_a_terminal_than_be_seen(call, trained, tmp_path):
    file = tmp_path / "e\x1b[2Jvil :heart: [red].csv"
    shutil.copy(trained / "validation.csv", file)
    code, out, err = call("--precision", "0.6", file=file)
    assert (code, err) == (0, "")
    assert r"400 rows of e\x1b[2Jvil :heart: [red].csv" in joined(out) and out.replace("\n", "").isprintable()
    assert "\x1b" not in (tmp_path / "new" / "README.md").read_text()


def test_training_on_removes_the_note(call, tmp_path, trained, run):
    assert call()[0] == 0
    file = trained / "validation.csv"
    run("--train_file", file, "--do_train", "--mixup_method", "amplify", model=tmp_path / "new", out=tmp_path / "on")
    config = json.loads((tmp_path / "on" / "config.json").read_text())
    assert "calibration" not in config and config["mixup"]["method"] == "amplify"


# ---- What it refuses ----


def refuse(call, wanted, *flags, **given):
    code, out, err = call(*flags, **given)
    assert (code, out) == (2, "")
    assert err.startswith("hf-mixup calibrate: ") and err.count("\n") == 1
    assert re.search(wanted, err), err


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--precision", "95"], "'95' is given, but it must be a number above 0 and below 1"),
        (["--precision", "nan"], "'nan' is given, but it must be a number above 0 and below 1"),
        (["--per_class"], "add --precision 0.95"),
        (["--test_file", "nowhere.csv"], "--test_file nowhere.csv does not exist"),
        (["--label_column_name", "color"], "has no label column 'color'"),
        (["--label_column_name", "red,green,blue"], "needs the one class of each row"),
        (["--text_column_names", "label"], "named both by"),
        (["--seed", "-1"], "'-1' should be a whole number of at least 0"),
        (["--max_seq_length", "2"], "leaves no token for each text"),
    ],
)
def test_wrong_flags(call, tmp_path, flags, wanted):
    refuse(call, wanted, *flags)
    assert not list(tmp_path.iterdir())


def test_wrong_rows(call, trained, tmp_path):
    rows, _ = rows_of(trained / "validation.csv")
    answers = [NAMES[each] for each in logits(trained / "model", rows).argmax(axis=1)]
    worst = [NAMES[each] for each in logits(trained / "model", rows).argmin(axis=1)]
    one_wrong = [*answers[:-1], worst[-1]]
    for number, (labels, wanted) in enumerate(
        [
            (["purple", *answers[1:]], r"row 1: the label 'purple' is not one of the labels of the model"),
            (["", *answers[1:]], "row 1 has no label"),
            (answers, "all 400 rows of .* are right, so that no temperature fits best; give more rows"),
            (one_wrong, "all of the 400 rows but one of .* are right"),
            (worst, "what the model says has nothing to do with its labels"),
        ]
    ):
        file = write_csv(tmp_path / f"{number}.csv", ("text", "label"), zip(rows, labels, strict=True))
        refuse(call, wanted, file=file)
    file = write_csv(tmp_path / "bare.csv", ("text", "title"), [("a film", "b")])
    refuse(call, "has no label column 'label'", file=file)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_models_that_it_cannot_calibrate(call, trained, tmp_path, tiny_bert_folder):
    refuse(call, "does not exist; give the folder of a trained model", model=tmp_path / "nowhere")
    refuse(call, "is a file; give the folder", model=trained / "test.csv")
    refuse(call, "has no trained classifier", model=tiny_bert_folder)
    refuse(call, "predicts a number", model=save(tmp_path / "score", num_labels=1, problem_type="regression"))

    def changed(name, **config):
        shutil.copytree(trained / "model", tmp_path / name)
        file = tmp_path / name / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
        return tmp_path / name

    refuse(call, "are quantized", model=changed("small", quantization_config={"quant_method": "bitsandbytes"}))
    adapter = changed("adapter")
    (adapter / "adapter_config.json").write_text("{}")
    refuse(call, "an adapter of peft and not a whole model; merge it", model=adapter)
    headless = changed("headless")
    weights = load_file(headless / "model.safetensors")
    body = {name: tensor for name, tensor in weights.items() if "classifier" not in name}
    save_file(body, headless / "model.safetensors", metadata={"format": "pt"})
    refuse(call, r"no trained weights for classifier\.bias, classifier\.weight", model=headless)
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, headless / "model.safetensors", metadata={"format": "pt"})
    refuse(call, "not finite numbers", model=headless)
    (headless / "README.md").write_bytes(b"\xff\xfe")
    weights["classifier.bias"][0] = 0.0
    save_file(weights, headless / "model.safetensors", metadata={"format": "pt"})
    refuse(call, "README.md is not UTF-8 text", model=headless)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_is_not_written_to(call, trained, tmp_path):
    refuse(call, "is not empty; give a new or empty folder", out=trained / "model")
    (tmp_path / "file").write_text("mine")
    refuse(call, "is a file or a link", out=tmp_path / "file")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    refuse(call, "is a file or a link", out=tmp_path / "link")
    assert not list((tmp_path / "empty").iterdir())
    assert call(out=tmp_path / "empty")[0] == 0


def test_a_failure_leaves_nothing(call, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hf_mixup.compare.figures.save_png", full)
    code, out, err = call()
    assert (code, out) == (1, "") and "could not be written (no space left on device)" in err
    # As if the layer that is divided were another one.
    monkeypatch.setattr("hf_mixup.calibrate.main.divide_logits", lambda layer, temperatures: None)
    monkeypatch.setattr("hf_mixup.compare.figures.save_png", lambda figure, file: None)
    refuse(call, "do not divide with the weights of its last linear layer")
    assert not list(tmp_path.iterdir())


# ---- Real weights and data ----


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_model_that_mixed_much_on_wrong_labels_is_calibrated(data_folder, minilm_folder, tmp_path, capsys):
    """With 40 % wrong labels mixing leaves a model that is far less sure than it is right."""
    rows = pd.read_csv(data_folder / "trec_coarse" / "train.csv").sample(500, random_state=1)
    train, validation = rows[:300].copy(), rows[300:]
    wrong = train.sample(frac=0.4, random_state=2).index
    names = sorted(set(rows["label"]))
    train.loc[wrong, "label"] = [names[(names.index(label) + 1) % len(names)] for label in train.loc[wrong, "label"]]
    train.to_csv(tmp_path / "train.csv", index=False)
    validation.to_csv(tmp_path / "validation.csv", index=False)
    flags = ["--mixup_method=amplify-code", "--mixup_alpha=1", "--mixup_ratio=beta-max", "--learning_rate=2e-4"]
    flags += ["--num_train_epochs=4", "--per_device_train_batch_size=16", "--pad_to_max_length=false"]
    flags += ["--save_strategy=no", "--report_to=none", "--disable_tqdm=true", "--do_train", "--max_seq_length=48"]
    flags += [f"--train_file={tmp_path / 'train.csv'}", f"--output_dir={tmp_path / 'mixed'}"]
    run_glue_mixup.main(["--model_name_or_path", minilm_folder, *flags])
    assert main(["calibrate", str(tmp_path / "mixed"), str(tmp_path / "validation.csv")]) == 0
    held_out = pd.read_csv(data_folder / "trec_coarse" / "test.csv")[:250]
    measured = {}
    for name in ("mixed", "mixed-calibrated"):
        classify = pipeline("text-classification", model=str(tmp_path / name))
        answers = classify(held_out["sentence"].tolist(), batch_size=32)
        right = np.array([answer["label"] for answer in answers]) == held_out["label"].to_numpy()
        sure = np.array([answer["score"] for answer in answers])
        bins = np.minimum((sure * 15).astype(int), 14)
        measured[name] = sum(abs((right - sure)[bins == each].sum()) for each in range(15)) / len(sure), right.mean()
    assert measured["mixed"][1] == measured["mixed-calibrated"][1] > 0.5
    assert measured["mixed-calibrated"][0] < 0.9 * measured["mixed"][0]
