"""The documentation says what the code does: generated pages are current, examples run, links lead somewhere."""

import json
import re
import shlex
from pathlib import Path
from statistics import mean

import pytest
import torch

import run_glue_mixup
from docs import generate
from docs.generator import claims, results
from hf_mixup.compare.evidence import Evidence
from hf_mixup.compare.grid import make_grid
from hf_mixup.errors import UsageError
from hf_mixup.glue.settings import read_settings
from hf_mixup.methods import METHODS, Mixup
from hf_mixup.mixing import StepKey
from hf_mixup.modeling.auto import MODELS
from tests import tiny
from tests.compare.test_report import run_line
from tests.methods import test_every_method
from tests.modeling import test_families
from tests.script import QUIET

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_the_generated_pages_are_current():
    for path, text in generate.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is old: run python docs/generate.py"


def test_the_claims_count_what_the_runs_say():
    # Three seeds: half the calibration error before scaling and the same after it; fewer wrong labels learned.
    measures = {
        "none": {
            "ece": 0.2,
            "ece_scaled": 0.05,
            "flipped_rows_memorized": 0.5,
            "clean_rows_accuracy": 0.9,
            "temperature": 1.5,
        },
        "amplify": {"ece": 0.1, "ece_scaled": 0.05, "flipped_rows_memorized": 0.3, "clean_rows_accuracy": 0.8},
    }
    wrong = {"noise": 0.4, "wrong_train_labels": 1600}
    evidence = Evidence(
        run_line(0.8 if method == "none" else 0.7, method, seed, measures=own, **wrong)
        for seed in (1, 2, 3)
        for method, own in measures.items()
    )
    found, twice = {"grid": evidence}, {"grid": evidence, "the same": evidence}
    before, after, temperatures, table = claims.calibration_claim(found).split("\n\n")
    assert before == (
        "As trained, with wrong labels: clearly lower in 1 of 1 comparisons, 1 of them for a method that is clearly "
        "less accurate than `none`, and clearly higher in 0; 0.50 to 0.50 times the error of `none`, the median is "
        "0.50; at most half in 1, 1 of them for a method that is clearly less accurate."
    )
    assert after == (
        "After temperature scaling, with wrong labels: clearly lower in 0 of 1 comparisons and clearly higher in 0; "
        "1.00 to 1.00 times the error of `none`, the median is 1.00; at most half in 0."
    )
    assert temperatures.startswith(
        "Plain fine-tuning is itself too sure, with a temperature above 1, in 1 of 1 settings."
    )
    assert table.splitlines()[2:] == [
        "| [trec](evidence/grid.md) | 4000 | 40% | `amplify` | 3 | 20.0 | 10.0 | 0.50 | -10.0 [-10.0, -10.0] | better "
        "| 5.0 | 5.0 | 1.00 | +0.0 [+0.0, +0.0] | not clear |"
    ]
    words, _, table = claims.noise_claim(found).partition("\n\n")
    assert words == (
        "Of 1 comparisons on wrong labels the accuracy is clearly better in 0 and clearly worse in 1; fewer wrong "
        "labels are learned in 1, of the right ones too in 1 of these; more in 0."
    )
    plain, mixed = (line.strip("| ").split(" | ") for line in table.splitlines()[2:])
    where = ["[trec](evidence/grid.md)", "4000", "40%"]
    assert plain[:7] == [*where, "`none`", "3", "80.0 / 80.0 / 80.0", "80.0"]
    assert mixed[:7] == [*where, "`amplify`", "3", "70.0 / 70.0 / 70.0", "70.0"] and mixed[8] == "worse"
    assert mixed[9:12] == ["30.0", "-20.0 [-20.0, -20.0]", "better"]
    assert mixed[12:] == ["80.0", "-10.0 [-10.0, -10.0]", "worse"]
    # The same runs in a second file count once, right labels say nothing of wrong ones, and training otherwise
    # without mixup is shown beside the others and not counted.
    assert claims.noise_claim(twice) == claims.noise_claim(found)
    assert claims.calibration_claim(twice) == claims.calibration_claim(found)
    lines = [*evidence.runs, *(run_line(0.8, method, 1, task="rte") for method in measures)]
    shorter = {"method": "none:num_train_epochs=1", "measures": measures["none"], **wrong}
    lines += [run_line(0.9, seed=seed, **shorter) for seed in (1, 2, 3)]
    words, _, table = claims.noise_claim({"grid": Evidence(lines)}).partition("\n\n")
    assert words.startswith("Of 1 comparisons") and len(table.splitlines()) == 5 and "rte" not in table
    assert "none:num_train_epochs" not in claims.calibration_claim({"grid": Evidence(lines)})
    # A method without a seed in common with none is compared with nothing.
    lines = [*evidence.runs, run_line(0.9, "tmix", 4, measures=measures["amplify"], **wrong)]
    # Batches of alike length are of no claim.
    grouped = "amplify:train_sampling_strategy=group_by_length"
    lines += [run_line(0.9, grouped, seed, measures=measures["amplify"], **wrong) for seed in (1, 2, 3)]
    assert claims.noise_claim({"grid": Evidence(lines)}).startswith("Of 1 comparisons")
    assert "tmix" not in claims.calibration_claim({"grid": Evidence(lines)})


def test_the_words_of_the_ten_lines_hold():
    # The page takes its numbers from the runs, its words do not change with them: here is what they rest on.
    def runs(name):
        lines = (ROOT / "docs" / "results" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        return [run for run in map(json.loads, lines) if run.get("status") == "done"]

    def by_seed(name, method, get, noise=None):
        return {
            run["cell"]["seed"]: 100 * get(run)
            for run in runs(name)
            if run["cell"]["method"] == method and noise in (None, run["cell"]["noise"])
        }

    def gain(name, method, get, noise=None):
        own, plain = by_seed(name, method, get, noise), by_seed(name, "none", get, noise)
        assert own.keys() == plain.keys()
        return mean(own[seed] - plain[seed] for seed in plain)

    def accuracy(run):
        return run["metrics"]["accuracy"]

    def learned(run):
        return run["measures"]["flipped_rows_memorized"]

    much, shorter = "amplify-code:alpha=0.4:ratio=beta-max", "none:num_train_epochs=4"
    right, some, many = (gain("label_noise", much, accuracy, noise) for noise in (0.0, 0.2, 0.4))
    assert right < 0 < many and right < some < many
    page = (ROOT / "docs" / "when_to_mix.md").read_text(encoding="utf-8")
    confirmed = gain("label_noise_confirmation", much, accuracy)
    assert f"{right:+.1f} [" in page and f"{many:+.1f} [" in page and f"{confirmed:+.1f} [" in page
    assert gain("label_noise_confirmation", shorter, accuracy) < confirmed
    assert len(by_seed("label_noise_confirmation", much, accuracy)) == 10
    assert not by_seed("label_noise_confirmation", much, accuracy).keys() & by_seed("alpha", much, accuracy).keys()
    assert gain("label_noise_confirmation", much, learned) < -10 and gain("label_noise_hausa", much, learned) < -10
    assert gain("label_noise_hausa", much, accuracy) < 0
    strong = [
        value
        for alpha in ("1", "2")
        for value in by_seed("alpha", f"amplify-code:alpha={alpha}:ratio=beta-max", accuracy).values()
    ]
    assert f"{sum(value < 60 for value in strong)} of the {len(strong)} runs" in page
    errors, scaled = (
        gain("label_noise_confirmation", much, lambda run, name=name: run["measures"][name])
        for name in ("ece", "ece_scaled")
    )
    assert scaled < 0 < errors
    lines = [run for run in runs("core_methods") if run["cell"]["task"] != "rte"]
    means = {
        method: mean(accuracy(run) for run in lines if run["cell"]["method"] == method)
        for method in {run["cell"]["method"] for run in lines}
    }
    assert means.keys() == METHODS.keys()
    assert set(sorted(means, key=means.get)[:3]) == {"batchmixup", "batchmixup-code", "attentionmix"}


@pytest.mark.slow
def test_the_grids_of_the_evidence_can_be_run_and_are_counted_as_they_are(data_folder, monkeypatch):
    monkeypatch.chdir(data_folder)
    files = sorted((ROOT / "benchmarks" / "grids").glob("*.yaml"))
    assert {file.stem for file in files} == results.GRIDS.keys()
    for file in files:
        settings = read_settings(str(file), "grid file")
        assert {cell.key for cell in results.cells_of(settings)} == {cell.key for cell in make_grid(settings).cells()}


def test_every_method_has_a_page_and_a_line():
    table = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, method in METHODS.items():
        assert f"`{name}`" in table and f"`{name}`" in readme
        if method.paper:
            assert method.paper.url in table


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_example_of_adding_a_method_works(monkeypatch):
    text = (ROOT / "docs" / "add_a_method.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.setattr("hf_mixup.methods.METHODS", dict(METHODS))
    monkeypatch.setattr(test_every_method, "FORMULAS", dict(test_every_method.FORMULAS))
    names: dict = {}
    for block in blocks:
        exec(compile(block, "add_a_method.md", "exec"), names)
    from hf_mixup import methods
    from hf_mixup.trainer import MixupTrainingArguments

    monkeypatch.setattr("hf_mixup.trainer.arguments.METHODS", methods.METHODS)
    method = MixupTrainingArguments(output_dir="unused", mixup_method="middle").mixup()
    plan = Mixup(method, num_layers=12).plan({}, torch.zeros(4), StepKey(0))
    assert (plan.site, plan.layers, plan.attention_mask, plan.clean_weight) == ("hidden", (6,), "union", 0.5)
    assert plan.weight.shape == (4, 1, 1) and (plan.label_weight >= 0.5).all()
    monkeypatch.setattr(test_every_method, "METHODS", methods.METHODS)
    test_every_method.test_logits_and_loss_equal_the_formula("bert", "middle", rows=5)


def test_the_example_of_adding_a_family_works(monkeypatch, tmp_path):
    text = (ROOT / "docs" / "add_a_family.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    for table in (MODELS, tiny.CONFIGS, tiny.PAD, tiny.PARENTS):
        # Taken out again after the test.
        monkeypatch.setitem(table, "data2vec-text", None)
    names: dict = {}
    for block in blocks:
        exec(compile(block, "add_a_family.md", "exec"), names)
    tiny.PARENTS["data2vec-text"] = MODELS["data2vec-text"].parent_class
    test_families.test_initial_weights_logits_and_checkpoints_are_the_parents("data2vec-text", tmp_path)
    test_families.test_the_data_columns_are_the_parents("data2vec-text")
    for site, layers in (("word_embeddings", ()), ("hidden", (2,)), ("attention", (1, 2, 3)), ("pooled", ())):
        test_families.test_every_site_equals_hooks_on_the_parent("data2vec-text", site, layers, "sdpa")
    test_families.test_attentionmix_reads_the_attention_of_the_parent("data2vec-text", layer=2, head=3)


def test_the_files_and_commands_of_the_page_on_files_work(monkeypatch, tmp_path, tiny_bert_folder):
    text = (ROOT / "docs" / "your_files.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    commands = 0
    for language, name, content in re.findall(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if name:
            Path(name).write_text(content.replace("distilbert-base-uncased", tiny_bert_folder), encoding="utf-8")
        elif language == "python":
            exec(compile(content, "your_files.md", "exec"), {})
        elif language == "csv":
            assert Path("out/mine/predictions.csv").read_text(encoding="utf-8").startswith(content)
        else:
            for line, command in re.findall(r"^# (.*)\n((?:.*\\\n)*.*)\n", content, re.MULTILINE):
                check_command_on_files(line, shlex.split(command.replace("\\\n", "")))
                commands += 1
    assert commands > 20 and commands == text.count("python run_glue_mixup.py")


def check_command_on_files(line: str, words: list[str]) -> None:
    """Run a command of the page, and compare with what its comment says: a refusal, a score or the classes."""
    argv = ["--max_steps", "1", "--save_strategy", "no", "--max_seq_length", "16", *QUIET, *words[2:]]
    kind, _, rest = line.partition(": ")
    if kind == "refused":
        with pytest.raises(UsageError, match=re.escape(rest)):
            run_glue_mixup.main(argv)
        return
    run_glue_mixup.main(argv)
    config = json.loads(Path("out/mine/config.json").read_text(encoding="utf-8"))
    problem, names = config["problem_type"], list(config["id2label"].values())
    if kind == "a score":
        assert (problem, len(names)) == ("regression", 1)
    else:
        several = kind == "classes of which a row has any number"
        assert several or kind == "classes"
        assert problem == ("multi_label_classification" if several else "single_label_classification")
        assert names == rest.split(", ")
