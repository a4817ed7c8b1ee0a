"""The documentation says what the code does: generated pages are current, examples run, links lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from hf_mixup.methods import METHODS, Mixup
from hf_mixup.mixing import StepKey
from hf_mixup.modeling.auto import MODELS
from tests import tiny
from tests.methods import test_every_method
from tests.modeling import test_families

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_current():
    for path, text in load(ROOT / "docs" / "generate.py").pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is old: run python docs/generate.py"


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
