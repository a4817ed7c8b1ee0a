"""The examples run, and what they show is true."""

import importlib.util
import json

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

from tests.data_files import write_csv
from tests.launching import ROOT, python, torchrun
from tests.tiny import SENTENCES, tiny_config, wordpiece_tokenizer

EXAMPLES = ROOT / "examples"
# peft asks a model for an attribute that transformers has renamed.
peft_warns = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
WITHOUT_LIBRARY = """
import sys
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

base, adapter, texts, target = sys.argv[1], sys.argv[2], sys.argv[3].split("|"), sys.argv[4]
model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
model = PeftModel.from_pretrained(model, adapter).eval()
with torch.no_grad():
    logits = model(**AutoTokenizer.from_pretrained(base)(texts, padding=True, return_tensors="pt")).logits
torch.save(logits, target)
assert not [name for name in sys.modules if name.startswith("hf_mixup")]
"""
# An example with SGD in place of AdamW, which turns the rounding noise of a gradient that is 0 into full steps.
BY_SGD = """
import runpy
import sys
import torch

torch.optim.AdamW = torch.optim.SGD
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Accelerate keeps one state for a process, and other tests leave theirs behind."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def no_dropout(tmp_path):
    """A base model without dropout: with it, a row's activations depend on the batch that it is in."""
    torch.manual_seed(0)
    tokenizer = wordpiece_tokenizer()
    config = tiny_config("bert", num_labels=2, dropout=0.0, vocab_size=len(tokenizer))
    BertForSequenceClassification(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def write_rows(path, count):
    texts = [f"{sentence} {end}" for end in ("now", "again") for sentence in SENTENCES]
    return write_csv(path, ("text", "label"), [(text, "ab"[i % 2]) for i, text in enumerate(texts[:count])])


@pytest.fixture
def data(tmp_path):
    """14 rows, of which 11 are trained on: neither 2, 4 nor 8 divides them."""
    return write_rows(tmp_path / "train.csv", 14)


def logits_of(model, base, texts):
    with torch.no_grad():
        return model.eval()(**AutoTokenizer.from_pretrained(base)(texts, padding=True, return_tensors="pt")).logits


# ---- The plain loop ----


def loop_flags(base, data, output, **options):
    flags = {"model": base, "train_file": data, "output_dir": output, "epochs": 2, "learning_rate": 1e-3, **options}
    return [str(part) for name, value in flags.items() for part in (f"--{name}", value)]


def test_in_the_plain_loop_mixup_is_three_lines():
    lines = (EXAMPLES / "accelerate_loop.py").read_text(encoding="utf-8").splitlines()
    marked = [line.strip() for line in lines if line.endswith("# mixup")]
    assert [line.split("(")[0] for line in marked] == [
        "plans.append",
        "outputs = model",
        "losses, weights = objective",
    ]


@pytest.mark.parametrize("method", ["amplify", "nonlinear", "batchmixup"])
def test_the_plain_loop_trains_and_saves_a_plain_checkpoint(method, tmp_path, tiny_bert_folder, data, capsys):
    flags = loop_flags(tiny_bert_folder, data, tmp_path / "out", method=method, batch_size=4, accumulation=2)
    accuracy = example("accelerate_loop").main(flags)
    printed = capsys.readouterr().out
    assert "epoch 2: mean training loss" in printed and f"accuracy {accuracy:.3f} on 3 rows" in printed
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert type(model) is BertForSequenceClassification and model.config.id2label == {0: "a", 1: "b"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["mixup"]["method"] == method


def test_accumulation_in_the_plain_loop_changes_nothing(tmp_path, no_dropout, data, monkeypatch):
    monkeypatch.setattr(torch.optim, "AdamW", torch.optim.SGD)
    loop = example("accelerate_loop")
    for batch_size, accumulation in ((8, 1), (4, 2), (2, 4)):
        # A micro-batch has partners of its own, so the equality holds for plain batches.
        shape = {"method": "none", "batch_size": batch_size, "accumulation": accumulation, "learning_rate": 0.05}
        loop.main(loop_flags(no_dropout, data, tmp_path / str(batch_size), **shape))
    for batch_size in (4, 2):
        assert_same_training(tmp_path / str(batch_size), tmp_path / "8", no_dropout)


def test_the_plain_loop_says_what_is_wrong_with_a_file(tmp_path, capsys):
    loop = example("accelerate_loop")
    with pytest.raises(SystemExit):
        loop.main(["--train_file", str(tmp_path / "missing.csv")])
    assert "missing.csv is not a file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="has the columns sentence, y: name two text and label"):
        loop.main(["--train_file", write_csv(tmp_path / "other.csv", ("sentence", "y"), [("a fox", 1)])])


@pytest.mark.slow
def test_the_plain_loop_learns_its_built_in_set(tmp_path):
    assert example("accelerate_loop").main(["--output_dir", str(tmp_path / "out"), "--method", "embedmix"]) >= 0.75


@pytest.mark.slow
def test_the_plain_loop_in_two_processes(tmp_path, no_dropout, monkeypatch):
    script, by_sgd = EXAMPLES / "accelerate_loop.py", tmp_path / "by_sgd.py"
    by_sgd.write_text(BY_SGD)
    # 12 rows to train on: with a number that 2 x 2 does not divide, Accelerate would take some of them twice.
    data = write_rows(tmp_path / "train.csv", 16)
    shape, plain = {"batch_size": 2, "accumulation": 2}, {"method": "none", "learning_rate": 0.05}
    torchrun(2, by_sgd, script, *loop_flags(no_dropout, data, tmp_path / "two", **plain, **shape))
    torchrun(2, script, *loop_flags(no_dropout, data, tmp_path / "mixed", method="amplify", **shape))
    monkeypatch.setattr(torch.optim, "AdamW", torch.optim.SGD)
    example("accelerate_loop").main(loop_flags(no_dropout, data, tmp_path / "one", **plain, batch_size=8))
    assert_same_training(tmp_path / "two", tmp_path / "one", no_dropout)
    mixed = AutoModelForSequenceClassification.from_pretrained(tmp_path / "mixed")
    assert type(mixed) is BertForSequenceClassification


def assert_same_training(folder, expected_folder, base_folder):
    """Equal weights, which training has moved much further than the comparison forgives."""
    files = (path / "model.safetensors" for path in (folder, expected_folder, base_folder))
    weights, expected, base = map(load_file, files)
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, atol=2e-6, rtol=1e-4, msg=name)
    assert max((value - base[name]).abs().max().item() for name, value in expected.items()) > 1e-3


# ---- LoRA ----


@peft_warns
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_adapters_train_with_mixup_and_nothing_else_changes(family, tmp_path, request):
    folder = request.getfixturevalue(f"tiny_{family}_folder")
    base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).base_model.state_dict()
    lora = example("lora")
    trainer = lora.main(["--model", folder, "--output_dir", str(tmp_path), "--epochs", "2"])
    assert any("mixup_lambda" in entry for entry in trainer.state.log_history)
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or "classifier" in name for name in trained)
    changed = [name for name, value in trainer.model.state_dict().items() if "lora_B" in name and value.any()]
    assert len(changed) == 2 * 3
    for name, value in trainer.model.get_base_model().base_model.state_dict().items():
        if "lora_" not in name:
            assert torch.equal(value, base[name.replace(".base_layer", "")]), name
    texts = list(lora.REQUESTS)
    loaded = lora.load(folder, str(tmp_path), num_labels=2)
    assert torch.equal(logits_of(loaded, folder, texts), logits_of(trainer.model, folder, texts))


@peft_warns
@pytest.mark.slow
def test_an_adapter_loads_in_a_process_without_this_library(tmp_path, tiny_distilbert_folder):
    trainer = example("lora").main(["--model", tiny_distilbert_folder, "--output_dir", str(tmp_path), "--epochs", "2"])
    texts = ["where is the city", "send the money back"]
    python("-c", WITHOUT_LIBRARY, tiny_distilbert_folder, tmp_path, "|".join(texts), tmp_path / "logits.pt")
    logits = torch.load(tmp_path / "logits.pt", weights_only=True)
    assert torch.equal(logits, logits_of(trainer.model, tiny_distilbert_folder, texts))


# ---- A Trainer of one's own ----


def test_a_trainer_of_ones_own_keeps_what_it_does_and_mixes(tmp_path, tiny_bert_folder):
    trainer = example("own_trainer").main(["--model", tiny_bert_folder, "--output_dir", str(tmp_path)])
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert log and all(entry["mixup_applied"] > 0 for entry in log)
    # Three blocks, the embeddings below, pooler and classifier above.
    rates = {len(group["params"]): group["initial_lr"] for group in trainer.optimizer.param_groups}
    assert sorted(group["initial_lr"] for group in trainer.optimizer.param_groups) == pytest.approx(
        [1e-4 * 0.9**power for power in (4, 3, 2, 1, 0)]
    )
    assert rates[5] == pytest.approx(1e-4 * 0.9**4)
    assert type(AutoModelForSequenceClassification.from_pretrained(tmp_path)) is BertForSequenceClassification


# ---- All ----


@peft_warns
@pytest.mark.parametrize(("name", "read"), [("lora", "adapter"), ("own_trainer", "model")])
def test_an_example_prints_its_results(name, read, tmp_path, tiny_bert_folder, capsys):
    module = example(name)
    capsys.readouterr()
    module.main(["--model", tiny_bert_folder, "--output_dir", str(tmp_path), "--epochs", "2"])
    said = capsys.readouterr().out.splitlines()
    assert any(line.endswith(f"saved in {tmp_path}") for line in said)
    if read == "adapter":
        model = module.load(tiny_bert_folder, str(tmp_path), num_labels=2)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    rows = logits_of(model, tiny_bert_folder, list(module.NEW)).softmax(dim=-1)
    answers = [f"{['refund', 'delivery'][row.argmax()]} ({row.max():.2f})" for row in rows]
    assert said[-2:] == [f"{text}  ->  {answer}" for text, answer in zip(module.NEW, answers, strict=True)]


@pytest.mark.parametrize("name", ["accelerate_loop", "lora", "own_trainer"])
def test_by_default_an_example_writes_below_the_one_folder_that_git_ignores(name):
    assert str(example(name).parse([]).output_dir) == f"out/{name}"
    assert "/out/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
