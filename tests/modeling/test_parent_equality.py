"""Without a plan a mixup model is its parent class, and what it saves is a plain checkpoint."""

import inspect
import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, Trainer, TrainingArguments, XLNetConfig
from transformers.utils import find_labels

from hf_mixup import AutoMixupModelForSequenceClassification
from hf_mixup.mixing import BatchPlan, PairPlan
from tests.tiny import MIXUP_CLASSES, PARENTS, same_weights, tiny_batch, tiny_config, tiny_model

PLAN = PairPlan(torch.tensor([1, 2, 3, 4, 0]), torch.tensor(0.8), "attention", layers=(1, 2, 3))


def test_initial_weights_keys_and_logits_are_the_parents(family):
    parent, mixup = tiny_model(family, mixup=False), tiny_model(family)
    assert isinstance(mixup, type(parent))
    assert same_weights(parent, mixup)
    batch = tiny_batch(family)
    assert torch.equal(parent.eval()(**batch).logits, mixup.eval()(**batch).logits)
    labelled = parent(**batch, labels=torch.tensor([0, 1, 2, 1, 0]))
    assert torch.equal(labelled.loss, mixup(**batch, labels=torch.tensor([0, 1, 2, 1, 0])).loss)


def test_the_dropout_stream_is_the_parents(family):
    batch = tiny_batch(family)
    outputs = []
    for mixup in (False, True):
        model = tiny_model(family, mixup=mixup)
        torch.manual_seed(3)
        outputs.append(model(**batch).logits)
    assert torch.equal(*outputs)


def test_a_checkpoint_loads_as_the_parent_in_plain_transformers(family, tmp_path):
    model = tiny_model(family).eval()
    model.config.mixup = {"method": "amplify"}
    model.save_pretrained(tmp_path)
    assert type(model) is MIXUP_CLASSES[family]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [PARENTS[family].__name__]
    assert config["mixup"] == {"method": "amplify"}
    assert not list(tmp_path.glob("*.py")) and (tmp_path / "model.safetensors").exists()

    plain, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert type(plain) is PARENTS[family]
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    batch = tiny_batch(family)
    assert torch.equal(plain.eval()(**batch).logits, model(**batch).logits)


def test_the_auto_class_finds_the_family(family, tmp_path):
    parent = tiny_model(family, mixup=False)
    parent.save_pretrained(tmp_path)
    model = AutoMixupModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3)
    assert type(model) is MIXUP_CLASSES[family]
    assert same_weights(parent, model)
    given = AutoMixupModelForSequenceClassification.from_pretrained(
        tmp_path, config=AutoConfig.from_pretrained(tmp_path, id2label={0: "a", 1: "b", 2: "c"})
    )
    assert given.config.id2label[2] == "c"
    eager = AutoMixupModelForSequenceClassification.from_config(tiny_config(family), attn_implementation="eager")
    assert type(eager) is MIXUP_CLASSES[family] and eager.config._attn_implementation == "eager"


def test_an_unknown_family_is_an_error_that_lists_the_supported():
    with pytest.raises(ValueError, match=r"'xlnet' has no mixup class: supported are albert, bert, camembert"):
        AutoMixupModelForSequenceClassification.from_config(XLNetConfig(n_layer=1, d_model=8, n_head=2, d_inner=8))
    with pytest.raises(TypeError, match="from_pretrained"):
        AutoMixupModelForSequenceClassification()


def test_trainer_sees_the_parents_signature(family, tmp_path):
    parent, mixup = PARENTS[family], MIXUP_CLASSES[family]
    expected = [name for name in inspect.signature(parent.forward).parameters if name != "kwargs"]
    found = [name for name in inspect.signature(mixup.forward).parameters if name not in ("mixup", "kwargs")]
    assert found == expected
    assert find_labels(mixup) == find_labels(parent) == ["labels"]
    arguments = TrainingArguments(output_dir=str(tmp_path))
    assert Trainer(tiny_model(family), arguments).label_names == ["labels"]


def test_labels_do_not_go_with_a_plan(family):
    with pytest.raises(ValueError, match="leave them out of the mixed forward pass"):
        tiny_model(family)(**tiny_batch(family), labels=torch.tensor([0, 1, 2, 1, 0]), mixup=PLAN)


def test_a_plan_for_another_batch_or_model_is_refused(family):
    model, batch = tiny_model(family), tiny_batch(family)
    with pytest.raises(ValueError, match="The plan is for 2 rows, but the batch has 5"):
        model(**batch, mixup=PairPlan(torch.tensor([1, 0]), torch.tensor(0.5), "pooled"))
    with pytest.raises(ValueError, match="The plan is for 4 rows, but the batch has 5"):
        model(**batch, mixup=BatchPlan(torch.full((3, 4), 0.25)))
    with pytest.raises(ValueError, match="The plan names block 4, but the model has 3"):
        model(**batch, mixup=PairPlan(PLAN.partner, PLAN.weight, "attention", layers=(4,)))


def test_the_output_as_a_tuple(family):
    model = tiny_model(family).eval()
    batch = tiny_batch(family)
    outputs = model(**batch, mixup=PLAN)
    logits, label_weight, pooled = model(**batch, mixup=PLAN, return_dict=False)
    assert torch.equal(logits, outputs.logits) and torch.equal(label_weight, outputs.label_weight)
    assert torch.equal(pooled, outputs.pooled)
    assert outputs.loss is None


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("site", ["attention", "attention_block", "hidden"])
def test_gradient_checkpointing_changes_nothing(family, site, reentrant):
    batch = tiny_batch(family)
    plan = PairPlan(PLAN.partner, PLAN.weight, site, layers=(1, 3))
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model(family)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        torch.manual_seed(1)
        model(**batch, mixup=plan).logits.square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_sharding_keeps_the_swapped_blocks_whole(family):
    names = {type(module).__name__ for module in tiny_model(family).modules()}
    model = tiny_model(family)
    block = {"bert": "MixupBertLayer", "roberta": "MixupRobertaLayer", "distilbert": "MixupTransformerBlock"}[family]
    assert block in model._no_split_modules
    assert set(model._no_split_modules) <= names
