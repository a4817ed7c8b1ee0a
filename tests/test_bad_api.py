"""Mistakes in calls of the library: each gets a sentence with what was given, what is allowed and how to mend it."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification, TrainingArguments

from hf_mixup import (
    METHODS,
    AutoMixupModelForSequenceClassification,
    MixupBertForSequenceClassification,
    MixupTrainer,
    MixupTrainingArguments,
    save_on_sigterm,
)
from hf_mixup.methods import Method, Mixup
from hf_mixup.mixing import (
    AttentionProbe,
    BatchPlan,
    BatchWeights,
    Objective,
    PairPlan,
    Ratio,
    SpanPlan,
    StepKey,
    balanced_class_weights,
    infer_problem_type,
    mix,
    mix_targets,
    weighted_mean,
)
from hf_mixup.mixing.partners import PARTNERS
from hf_mixup.mixing.ratios import Spans
from hf_mixup.mixing.schedules import coin, within
from hf_mixup.mixing.targets import compounded_share
from hf_mixup.trainer import LengthGroupedPairSampler
from tests.tiny import same_weights, tiny_dataset, tiny_model

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
NAN, INFINITY = float("nan"), float("inf")


def raises_one_sentence(call, error, *parts):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    # Exactly the class: a RuntimeError from inside torch is no answer to a user.
    assert type(caught.value) is error
    for part in parts:
        assert part in message
    assert "\n" not in message and message.endswith(".") and ". " not in message
    assert len(message) < 500


AMPLIFY = {"mixup_method": "amplify"}
CONSTANT = {**AMPLIFY, "mixup_ratio": "constant"}


@pytest.mark.parametrize(
    ("options", "error", "parts"),
    [
        ({"mixup_method": "AMPLIFY-Code"}, ValueError, ["'AMPLIFY-Code' is unknown (did you mean 'amplify-code'?)"]),
        ({"mixup_method": None}, ValueError, ["mixup_method=None is unknown", "choose one of none, amplify"]),
        ({"mixup_method": ["amplify"]}, ValueError, ["mixup_method=['amplify'] is unknown"]),
        ({**AMPLIFY, "mixup_site": "attn"}, ValueError, ["mixup_site='attn' is unknown", "choose one of"]),
        ({**AMPLIFY, "mixup_site": ["hidden"]}, ValueError, ["mixup_site=['hidden'] is unknown"]),
        ({**AMPLIFY, "mixup_partner": ["roll"]}, ValueError, ["mixup_partner=['roll'] is unknown"]),
        ({**AMPLIFY, "mixup_partner": "rol"}, ValueError, ["(did you mean 'roll'?)"]),
        ({**AMPLIFY, "mixup_clean": False}, ValueError, ["mixup_clean=False is unknown", "none, average, alternate"]),
        ({**AMPLIFY, "mixup_ratio": 0.3}, ValueError, ["mixup_ratio=0.3 is unknown", "constant"]),
        ({**AMPLIFY, "mixup_per_sample": "false"}, ValueError, ["mixup_per_sample='false'", "give True or False"]),
        ({**AMPLIFY, "mixup_per_sample": 1}, ValueError, ["mixup_per_sample=1", "give True or False"]),
        ({**AMPLIFY, "mixup_alpha": "0.4"}, ValueError, ["mixup_alpha='0.4'", "give a finite number above 0"]),
        ({**AMPLIFY, "mixup_alpha": "1e-1"}, ValueError, ["mixup_alpha='1e-1'", "give a finite number above 0"]),
        ({**AMPLIFY, "mixup_alpha": NAN}, ValueError, ["mixup_alpha=nan", "give a finite number above 0"]),
        ({**AMPLIFY, "mixup_alpha": INFINITY}, ValueError, ["mixup_alpha=inf"]),
        ({**AMPLIFY, "mixup_alpha": -0.1}, ValueError, ["mixup_alpha=-0.1"]),
        ({**AMPLIFY, "mixup_alpha": True}, ValueError, ["mixup_alpha=True"]),
        ({**AMPLIFY, "mixup_alpha": [0.4]}, ValueError, ["mixup_alpha=[0.4]"]),
        ({**AMPLIFY, "mixup_draws": 2.5}, ValueError, ["mixup_draws=2.5", "a whole number of at least 1"]),
        ({**AMPLIFY, "mixup_draws": NAN}, ValueError, ["mixup_draws=nan", "a whole number"]),
        ({**AMPLIFY, "mixup_draws": "5"}, ValueError, ["mixup_draws='5'", "a whole number"]),
        ({**CONSTANT, "mixup_lambda": 1.5}, ValueError, ["mixup_lambda=1.5", "give a number from 0 to 1"]),
        ({**CONSTANT, "mixup_lambda": "half"}, ValueError, ["mixup_lambda='half'", "give a number from 0 to 1"]),
        ({**AMPLIFY, "mixup_prob": NAN}, ValueError, ["mixup_prob=nan", "give a number from 0 to 1"]),
        ({**AMPLIFY, "mixup_prob": "0.5"}, ValueError, ["mixup_prob='0.5'"]),
        ({**AMPLIFY, "mixup_prob": True}, ValueError, ["mixup_prob=True"]),
        ({**AMPLIFY, "mixup_updates": 1.5}, ValueError, ["mixup_updates=1.5", "a whole number of at least 1"]),
        ({**AMPLIFY, "mixup_updates": "2"}, ValueError, ["mixup_updates='2'"]),
        ({**AMPLIFY, "mixup_start": "0.5"}, ValueError, ["mixup_start='0.5'", "the start before the stop"]),
        ({**AMPLIFY, "mixup_stop": NAN}, ValueError, ["mixup_stop=nan", "fractions of the training"]),
        ({**AMPLIFY, "mixup_stop": 50}, ValueError, ["mixup_stop=50", "fractions of the training"]),
        (
            {**AMPLIFY, "mixup_clean": "average", "mixup_clean_weight": "0.5"},
            ValueError,
            ["mixup_clean_weight='0.5'", "above 0 and below 1"],
        ),
        ({**AMPLIFY, "mixup_layers": [1.7]}, ValueError, ["mixup_layers=[1.7]", "block numbers such as 4 or 4,8"]),
        ({**AMPLIFY, "mixup_layers": True}, ValueError, ["mixup_layers=True"]),
        ({**AMPLIFY, "mixup_layers": {4: "x"}}, ValueError, ["mixup_layers={4: 'x'}"]),
        ({**AMPLIFY, "mixup_layers": "4-8"}, ValueError, ["mixup_layers='4-8'"]),
        ({**AMPLIFY, "mixup_layers": 1.0}, ValueError, ["mixup_layers=1.0"]),
        (
            {"mixup_method": "attentionmix", "mixup_attention_head": 1.7},
            ValueError,
            ["mixup_attention_head=1.7", "the number of a head, from 0, or average"],
        ),
        ({"mixup_method": "attentionmix", "mixup_attention_head": -1}, ValueError, ["mixup_attention_head=-1"]),
        ({"mixup_method": "attentionmix", "mixup_attention_layer": "2"}, ValueError, ["mixup_attention_layer='2'"]),
        ({"mixup_method": "attentionmix", "mixup_attention_layer": 0}, ValueError, ["mixup_attention_layer=0"]),
        ({"mixup_method": "batchmixup", "mixup_points": 2.5}, ValueError, ["mixup_points=2.5", "a whole number"]),
        ({"mixup_method": "batchmixup", "mixup_temperature": "low"}, ValueError, ["mixup_temperature='low'"]),
        ({"class_weights": True}, ValueError, ["class_weights=True", "one number above 0 for each class"]),
        ({"class_weights": 2.5}, ValueError, ["class_weights=2.5"]),
        ({"class_weights": {1: 2.0}}, ValueError, ["class_weights={1: 2.0}"]),
        ({"class_weights": ["1", "2"]}, ValueError, ["class_weights=['1', '2']"]),
        ({"class_weights": [1, INFINITY]}, ValueError, ["class_weights=[1, inf]"]),
        ({"class_weights": ""}, ValueError, ["class_weights=''"]),
        ({"seed": -1}, ValueError, ["seed=-1", "a whole number from 0"]),
        ({"seed": "42"}, ValueError, ["seed='42'", "a whole number from 0"]),
        ({"mixup_aplha": 0.1}, TypeError, ["has no option 'mixup_aplha' (did you mean 'mixup_alpha'?)"]),
        ({"evaluation_strategy": "epoch"}, TypeError, ["'evaluation_strategy', which is now called eval_strategy."]),
        (
            {"warmup_ratio": 0.1},
            TypeError,
            ["no option 'warmup_ratio', which is now warmup_steps, where a number below 1 is a share of all steps."],
        ),
        ({"no_cuda": True}, TypeError, ["'no_cuda', which is now use_cpu=True."]),
        ({"group_by_length": True}, TypeError, ["which is now train_sampling_strategy='group_by_length'."]),
        ({"fp16_backend": "auto"}, TypeError, ["which is no longer needed: mixed precision always runs"]),
        ({"sharded_ddp": "simple"}, TypeError, ["sharded training is fsdp."]),
        ({"class_weights": {2.0, 1.0}}, ValueError, ["class_weights={1.0, 2.0}"]),
        ({**AMPLIFY, "mixup_lambda": 0.7}, ValueError, ["mixup_lambda=0.7 is not used", "add mixup_ratio='constant'"]),
        ({"mixup_lam": 0.5}, TypeError, ["'mixup_lam' (did you mean 'mixup_"]),
    ],
    ids=str,
)
def test_training_arguments(tmp_path, options, error, parts):
    raises_one_sentence(lambda: MixupTrainingArguments(output_dir=str(tmp_path), **options), error, *parts)


def test_what_is_allowed_in_several_spellings(tmp_path):
    for layers in ("4,8", " 4, 8 ", [4, 8], (8, 4), ["4", "8"], np.array([4, 8]).tolist(), range(4, 9, 4)):
        assert MixupTrainingArguments(output_dir=str(tmp_path), **AMPLIFY, mixup_layers=layers).mixup().layers == (
            4,
            8,
        )
    for layers in (np.array([8, 4]), torch.tensor([8, 4]), {8, 4}):
        arguments = MixupTrainingArguments(str(tmp_path), **AMPLIFY, mixup_layers=layers)
        assert arguments.mixup().layers == METHODS["amplify"].with_options(layers=layers).layers == (4, 8)
        assert json.loads(arguments.to_json_string())["mixup_layers"] in ([4, 8], [8, 4])
    for number in (1, np.float64(1), np.float32(1), np.int64(1)):
        arguments = MixupTrainingArguments(output_dir=str(tmp_path), **AMPLIFY, mixup_alpha=number)
        assert arguments.mixup().ratio.alpha == 1 and json.loads(arguments.to_json_string())["mixup_alpha"] == 1
    for weights in ("1,2.5", "[1, 2.5]", [1, 2.5], (1, 2.5), np.array([1, 2.5]), torch.tensor([1, 2.5])):
        assert MixupTrainingArguments(str(tmp_path), class_weights=weights).parse_class_weights() == [1, 2.5]
    for head, expected in ((3, 3), ("3", 3), ("average", None), (np.int64(3), 3)):
        assert METHODS["attentionmix"].with_options(attention_head=head).ratio.head == expected


def test_numbers_of_numpy_are_noted_in_a_config_like_pythons():
    options = {"alpha": np.float32(0.5), "draws": np.int64(3), "prob": np.float32(0.5), "per_sample": np.bool_(True)}
    settings = Mixup(METHODS["amplify"].with_options(**options), num_layers=np.int64(2)).settings()
    noted = {"method": "amplify", "site": "attention", "layers": [1, 2], "prob": 0.5, "per_sample": True}
    noted["ratio"] = {"kind": "max-of-n", "alpha": 0.5, "draws": 3}
    assert json.loads(json.dumps(settings)) == noted


@pytest.mark.parametrize(
    "ids", [[3, 0, 2], (0, 2, 3), {0, 2, 3}, torch.tensor([0, 2, 3]), np.array([2, 3, 0]), map(int, "023")], ids=type
)
def test_special_ids_in_several_kinds(ids):
    assert sorted(Mixup(METHODS["ssmix"], 2, special_ids=ids).special_ids.tolist()) == [0, 2, 3]


def test_an_unknown_method_is_a_key_error_of_one_sentence():
    for name, part in (("embed-mix", "method='embed-mix' is unknown (did you mean 'embedmix'?)"), (["a"], "['a']")):
        with pytest.raises(KeyError) as caught:
            METHODS[name]
        message = str(caught.value)
        assert message.startswith("method=") and part in message
        assert message.endswith(f"choose one of {', '.join(METHODS)}.")
    assert "embed-mix" not in METHODS and METHODS.get("embed-mix") is None and METHODS["tmix"].name == "tmix"
    assert list(METHODS) == [each.name for each in METHODS.values()] == [*dict(METHODS)]


def method(**options):
    return lambda: Method(
        **{"name": "own", "summary": "", "site": "pooled", "ratio": Ratio("beta", alpha=1.0)} | options
    )


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (
            lambda: METHODS["amplify"].with_options(alpah=0.4),
            TypeError,
            ["with_options has no option 'alpah' (did you mean 'alpha'?)", "choose from site, layers"],
        ),
        (lambda: METHODS["amplify"].with_options(name="other"), TypeError, ["no option 'name'"]),
        (lambda: METHODS["tmix"].with_options(one_layer=False), TypeError, ["no option 'one_layer'"]),
        (lambda: METHODS["amplify"].with_options(per_sample="no"), ValueError, ["mixup_per_sample='no'"]),
        (lambda: METHODS["amplify"].with_options(layers=[None]), ValueError, ["mixup_layers=[None]"]),
        (lambda: METHODS["amplify"].with_options(site=np.array(["hidden"])), ValueError, ["mixup_site=array(["]),
        (lambda: METHODS["amplify"].with_options(ratio=["beta"]), ValueError, ["mixup_ratio=['beta'] is unknown"]),
        (
            lambda: METHODS["amplify"].with_options(lam=0.7),
            ValueError,
            ["mixup_lambda=0.7 is not used by mixup_ratio='max-of-n'", 'with_options ratio="constant")'],
        ),
        (lambda: METHODS["embedmix"].with_options(draws=3), ValueError, ["mixup_draws=3", "ratio='max-of-n'"]),
        (lambda: METHODS["amplify"].resolve_layers("12"), ValueError, ["num_layers='12'", "a whole number"]),
        (method(name=None), TypeError, ["name=None is a NoneType"]),
        (method(site="hidden", layers=4), ValueError, ["layers=4 is not allowed", "a tuple of blocks such as (4, 8)"]),
        (method(site="hidden", layers="4,8"), ValueError, ["layers='4,8' is not allowed"]),
        (method(site="hidden", layers=(4, "8")), ValueError, ["layers=(4, '8') is not allowed"]),
        (method(site="hidden", layers=torch.tensor([4, 8])), ValueError, ["layers=tensor([4, 8]) is not allowed"]),
        (method(site="head"), ValueError, ["mixup_site='head' is unknown", "choose one of"]),
        (method(ratio=None), ValueError, ["ratio=None is not allowed", "give a Ratio"]),
        (method(ratio=0.3), ValueError, ["ratio=0.3 is not allowed"]),
        (method(site="hidden"), ValueError, ["layers=() does not fit site='hidden'", "'all' or a tuple of blocks"]),
        (method(layers="all"), ValueError, ["layers='all' does not fit site='pooled'"]),
        (lambda: Ratio("beta", alpha="1"), ValueError, ["mixup_alpha='1'"]),
        (lambda: Ratio(["beta"], alpha=1.0), ValueError, ["mixup_ratio=['beta'] is unknown"]),
        (lambda: Ratio("beta-mx", alpha=1.0), ValueError, ["(did you mean 'beta-max'?)"]),
        (lambda: Ratio("max-of-n", alpha=1.0, draws=5.0), ValueError, ["mixup_draws=5.0", "a whole number"]),
        (lambda: Ratio("constant", lam=torch.tensor(0.5)), ValueError, ["mixup_lambda=tensor(0.5000)"]),
        (lambda: BatchWeights("pairs", points="15", alpha=0.4), ValueError, ["mixup_points='15'"]),
        (lambda: Ratio("beta", alpha=1.0).draw(0, 3), TypeError, ["generator=0", "np.random.default_rng(SEED)"]),
        (lambda: Ratio("beta", alpha=1.0).draw(np.random.default_rng(0), "3"), ValueError, ["size='3'"]),
        (
            lambda: BatchWeights("softmax-beta", 3, 1.0, 1.0).draw(np.random.default_rng(0), 4, None),
            ValueError,
            ["features=None", "a whole number"],
        ),
        (lambda: Spans(window=1.0), ValueError, ["window=1.0", "above 0 and below 1"]),
        (lambda: Spans(window="10%"), ValueError, ["window='10%'"]),
        *(
            (lambda draw=draw: draw(np.random.default_rng(0), -1), ValueError, ["batch_size=-1", "at least 1"])
            for draw in PARTNERS.values()
        ),
        (lambda: PARTNERS["flip"](None, 2.0), ValueError, ["batch_size=2.0", "a whole number"]),
        (lambda: coin(np.random.default_rng(0), NAN), ValueError, ["probability=nan", "from 0 to 1"]),
        (lambda: within(50, 0.0, 1.0), ValueError, ["progress=50", "from 0 to 1"]),
        (
            lambda: Mixup(METHODS["sentmix"], 2).plan({}, torch.arange(4), StepKey(1), progress=300),
            ValueError,
            ["progress=300", "from 0 to 1"],
        ),
        (lambda: Mixup("embedmix", 3), TypeError, ["method='embedmix' is a str", "METHODS['embedmix']"]),
        (lambda: Mixup(None, 3), TypeError, ["method=None is a NoneType", "such as METHODS['amplify']"]),
        (lambda: Mixup(METHODS["sentmix"], "3"), ValueError, ["num_layers='3'"]),
        (lambda: Mixup(METHODS["nonlinear"], 3), ValueError, ["draws a weight for each feature: give hidden_size"]),
        (lambda: Mixup(METHODS["batchmixup"], 3), ValueError, ["give hidden_size"]),
        (lambda: Mixup(METHODS["nonlinear"], 3, hidden_size=8.0), ValueError, ["hidden_size=8.0"]),
        (lambda: Mixup(METHODS["attentionmix"], 3, num_heads="12"), ValueError, ["num_heads='12'"]),
        *(
            (lambda ids=ids: Mixup(METHODS["ssmix"], 3, special_ids=ids), ValueError, ["special_ids=", "[0, 2, 3]"])
            for ids in (7, "[CLS]", [0, None], [0.5], torch.tensor(3), {"a": 1}, None, [-1])
        ),
        (lambda: Mixup(METHODS["ssmix"], 3, special_ids=set()), ValueError, ["must know the special tokens"]),
        (lambda: plan_of(key=0), TypeError, ["key=0 is a int", "StepKey(seed=42, step=0)"]),
        (lambda: plan_of(key=(42, 0, 0, 0)), TypeError, ["key=(42, 0, 0, 0) is a tuple"]),
        (lambda: plan_of(key=StepKey("1")), ValueError, ["seed='1'"]),
        (lambda: plan_of(labels=[0, 1]), TypeError, ["labels=[0, 1] is a list", "a tensor [batch, ...]"]),
        (lambda: plan_of(labels=torch.tensor(1)), ValueError, ["labels of shape [] have no rows"]),
        (lambda: plan_of(labels=torch.tensor([])), ValueError, ["labels of shape [0] have no rows"]),
        (lambda: plan_of(batch=None), TypeError, ["batch=None", "the model's inputs by name"]),
        (lambda: plan_of(progress=None), ValueError, ["progress=None"]),
        (lambda: compounded_share(torch.tensor(0.9), 0), ValueError, ["layers=0", "a whole number of at least 1"]),
        (
            lambda: mix_targets(torch.tensor([0, 4]), torch.tensor([1, 0]), torch.tensor([0.7, 0.7])),
            ValueError,
            ["targets of torch.int64 cannot be mixed", "targets.float()"],
        ),
        (lambda: mix_targets([0.0, 4.0], torch.tensor([1, 0]), torch.ones(2)), TypeError, ["targets=[0.0, 4.0]"]),
        (
            lambda: mix_targets(torch.ones(3), torch.tensor([1, 0]), torch.ones(2)),
            ValueError,
            ["targets [3], partner [2] and label_weight [2]", "one partner and one weight for each row"],
        ),
        (lambda: balanced_class_weights([0, 3], 3), ValueError, ["The label 3 is not one of the 3 classes"]),
        (lambda: balanced_class_weights([0, -1], 3), ValueError, ["The label -1 is not one of the 3 classes"]),
        (lambda: balanced_class_weights([-100, -100], 3), ValueError, ["need rows with a label"]),
        (lambda: balanced_class_weights([], 3), ValueError, ["need rows with a label"]),
        (
            lambda: balanced_class_weights([[0.5, 0.5]], 2),
            ValueError,
            ["float64 of shape [1, 2]", "one class id a row"],
        ),
        (lambda: balanced_class_weights(["a", "b"], 2), ValueError, ["one class id a row, as a whole number"]),
        (lambda: balanced_class_weights([0], 0), ValueError, ["num_labels=0"]),
        (lambda: infer_problem_type("3", torch.tensor([0])), ValueError, ["num_labels='3'"]),
        (lambda: infer_problem_type(3, [0, 2]), TypeError, ["labels=[0, 2] is a list"]),
        (lambda: weighted_mean([1.0], torch.ones(1)), TypeError, ["losses=[1.0]"]),
        (lambda: weighted_mean(torch.ones(1), torch.ones(1), 4), TypeError, ["total_weight=4"]),
        (lambda: LengthGroupedPairSampler([4, 3], "2", 0), ValueError, ["batch_size='2'"]),
        (lambda: LengthGroupedPairSampler(["a b", "c"], 2, 0), ValueError, ["lengths are <U3", "[9, 2, 8]"]),
        (lambda: LengthGroupedPairSampler([4, 3], 2, None), ValueError, ["seed=None"]),
        (lambda: save_on_sigterm(None).__enter__(), TypeError, ["trainer=None", "such as a MixupTrainer"]),
    ],
)
def test_methods_ratios_and_targets(call, error, parts):
    raises_one_sentence(call, error, *parts)


SWAP, SHARE = torch.tensor([1, 0]), torch.tensor(0.75)
HIDDEN = {"site": "hidden", "layers": (1, 2)}


def plan_of(**given):
    arguments = {"batch": {}, "labels": torch.arange(4), "key": StepKey(1), "progress": 0.0}
    return Mixup(METHODS["sentmix"], 2).plan(**arguments | given)


def pair_plan(**options):
    return PairPlan(**{"partner": SWAP, "weight": SHARE, "site": "pooled"} | options)


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda: pair_plan(site="hidden", layers=2), ValueError, ["layers=2 is not allowed", "(4, 8) or (4,)"]),
        (lambda: pair_plan(site="hidden", layers="2"), ValueError, ["layers='2' is not allowed"]),
        (lambda: pair_plan(site="hidden", layers=None), ValueError, ["layers=None is not allowed"]),
        (lambda: pair_plan(weight=0.75), ValueError, ["weight must be a floating-point tensor, got float"]),
        (lambda: pair_plan(weight=torch.zeros(2, 3)), ValueError, ["weight of shape [2, 3]"]),
        (lambda: pair_plan(clean_weight="0.5"), ValueError, ["clean_weight='0.5'"]),
        (lambda: pair_plan(**HIDDEN, drawn=1), TypeError, ["drawn=1 is a int", "torch.tensor(4)"]),
        (lambda: pair_plan(**HIDDEN, drawn=torch.tensor(1.0)), ValueError, ["drawn of torch.float32 is no block"]),
        (lambda: pair_plan(**HIDDEN, drawn=torch.tensor(3)), ValueError, ["drawn=3 and", "do not fit layers=(1, 2)"]),
        (
            lambda: pair_plan(**HIDDEN, drawn=torch.tensor(1), drawn_layer=2),
            ValueError,
            ["drawn=1 and drawn_layer=2 do not fit"],
        ),
        (lambda: pair_plan(**HIDDEN, drawn=torch.tensor(1), drawn_layer="1"), ValueError, ["drawn_layer='1'"]),
        (lambda: pair_plan(weight=None, probe=(1, 0)), TypeError, ["probe=(1, 0) is a tuple", "AttentionProbe"]),
        (lambda: pair_plan(weight=None, probe=AttentionProbe("1", 0)), ValueError, ["the layer of the probe='1'"]),
        (lambda: pair_plan(weight=None, probe=AttentionProbe(1, -1)), ValueError, ["the head of the probe=-1"]),
        (lambda: pair_plan(inverse=[1, 0]), TypeError, ["inverse=[1, 0] is a list", "torch.argsort(partner)"]),
        # It would give the gradients to the wrong rows.
        (
            lambda: PairPlan(torch.tensor([1, 2, 0]), SHARE, "pooled", inverse=torch.tensor([1, 2, 0])),
            ValueError,
            ["inverse is not the inverse permutation of partner"],
        ),
        (lambda: pair_plan().mix(torch.zeros(2, 4), "poled"), ValueError, ["(did you mean 'pooled'?)"]),
        (lambda: pair_plan().mix([[0.0], [4.0]], "pooled"), TypeError, ["states=[[0.0], [4.0]] is a list"]),
        # Two of these four rows would be left out.
        (lambda: pair_plan().mix(torch.zeros(4, 3), "pooled"), ValueError, ["states of shape [4, 3]", "for 2 rows"]),
        (lambda: pair_plan(**HIDDEN).skip_padding([[1, 1]]), TypeError, ["attention_mask=[[1, 1]]"]),
        (lambda: pair_plan(**HIDDEN).skip_padding(torch.ones(3, 5)), ValueError, ["shape [3, 5] does not fit"]),
        (
            lambda: pair_plan(weight=None, probe=AttentionProbe(1, 0), **HIDDEN).skip_padding(torch.ones(2, 5)),
            ValueError,
            ["A plan with a probe has no weight"],
        ),
        (lambda: BatchPlan([[0.5, 0.5]]), ValueError, ["weights must be a floating-point tensor, got list"]),
        (lambda: BatchPlan(torch.ones(3, 2) / 2, dot_product="no"), ValueError, ["dot_product='no'"]),
        (lambda: BatchPlan(torch.ones(3, 2) / 2).mix(torch.zeros(3, 4), "pooled"), ValueError, ["for 2 rows"]),
        (lambda: SpanPlan(SWAP, [0, 2]), TypeError, ["special_ids=[0, 2] is a list"]),
        (lambda: SpanPlan(SWAP, torch.tensor([0.5])), ValueError, ["special_ids must be an int64 tensor"]),
        (lambda: SpanPlan(SWAP, torch.tensor([0]), window="0.1"), ValueError, ["window='0.1'"]),
        (lambda: mix(torch.ones(2), SWAP, 0.75), TypeError, ["weight=0.75 is a float", "torch.tensor(0.7)"]),
        (lambda: mix(np.ones(2), SWAP, SHARE), TypeError, ["states=array([1., 1.])"]),
        (lambda: mix(torch.ones(3), SWAP, SHARE), ValueError, ["states of torch.float32 and shape [3]", "shape [2]"]),
        (lambda: mix(torch.ones(2).long(), SWAP, SHARE), ValueError, ["states of torch.int64", "give floats"]),
        (lambda: mix(torch.ones(2, 3), SWAP, torch.ones(2)), ValueError, ["weight of torch.float32 and shape [2]"]),
        (lambda: mix(torch.ones(2, 3), SWAP, torch.tensor(1)), ValueError, ["weight of torch.int64"]),
        (lambda: mix(torch.ones(2), SWAP, SHARE, inverse=torch.tensor([0])), ValueError, ["inverse of shape [1]"]),
    ],
)
def test_plans(call, error, parts):
    raises_one_sentence(call, error, *parts)


def test_models():
    inputs = {"input_ids": torch.tensor([[2, 7, 3], [2, 8, 3]])}
    for wrong in ("amplify", "pooled", METHODS["amplify"], Mixup(METHODS["amplify"], 3), SHARE):
        for labels in (None, torch.tensor([0, 1])):
            call = partial(tiny_model("bert"), **inputs, labels=labels, mixup=wrong)
            raises_one_sentence(call, TypeError, "mixup=", "as Mixup.plan(...) returns it")
    for wrong in ("bert-base-uncased", None, {"model_type": "bert"}):
        call = partial(AutoMixupModelForSequenceClassification.from_config, wrong)
        raises_one_sentence(call, TypeError, f"config={wrong!r}", "from_pretrained")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"problem_type": "single_label"}, ["(did you mean 'single_label_classification'?)", "choose one of"]),
        ({"problem_type": SINGLE, "label_smoothing": 1.0}, ["label_smoothing=1.0", "from 0 and below 1"]),
        ({"problem_type": SINGLE, "label_smoothing": NAN}, ["label_smoothing=nan"]),
        ({"problem_type": SINGLE, "label_smoothing": "0.1"}, ["label_smoothing='0.1'"]),
        ({"problem_type": SINGLE, "class_weights": [1.0, 2.0]}, ["class_weights=[1.0, 2.0]", "give a float tensor"]),
        ({"problem_type": SINGLE, "class_weights": torch.tensor([1, 2])}, ["class_weights=tensor([1, 2])"]),
        ({"problem_type": SINGLE, "class_weights": torch.tensor([1.0, -2.0])}, ["weights from 0"]),
        ({"problem_type": SINGLE, "class_weights": torch.tensor([1.0, NAN])}, ["weights from 0"]),
        ({"problem_type": SINGLE, "class_weights": torch.ones(1, 3)}, ["float tensor [classes]"]),
    ],
    ids=str,
)
def test_objectives(options, parts):
    raises_one_sentence(lambda: Objective(**options), ValueError, *parts)


def pairs(rows, **options):
    return PairPlan(torch.arange(rows).roll(1), torch.tensor(0.7), "logits", **options)


@pytest.mark.parametrize(
    ("problem_type", "logits", "labels", "plan", "parts"),
    [
        (SINGLE, [2, 3], torch.tensor([0, 3]), None, ["label 3 of row 1", "class ids from 0 to 2, or -100"]),
        (SINGLE, [2, 3], torch.tensor([-1, 2]), None, ["label -1 of row 0", "class ids from 0 to 2"]),
        (SINGLE, [2, 3], torch.tensor([-1, 2]), pairs(2), ["label -1 of row 0"]),
        (SINGLE, [2, 3], torch.tensor([0.0, 2.0]), None, ["torch.float32 and shape [2]", "class ids as int64 [rows]"]),
        (SINGLE, [2, 3], torch.tensor([0, 2]).int(), None, ["labels of torch.int32", "as int64"]),
        (SINGLE, [2, 3], torch.tensor([[0], [2]]), None, ["torch.int64 and shape [2, 1]"]),
        (SINGLE, [2, 3], torch.ones(2, 2) / 2, None, ["shape [2, 2]", "soft labels as floats [rows, 3]"]),
        (SINGLE, [1, 2], torch.tensor([[0.5, 0.75]]), None, ["label [0.5, 0.75] of row 0", "sum to 1"]),
        (SINGLE, [1, 2], torch.tensor([[-0.5, 1.5]]), None, ["label [-0.5, 1.5] of row 0", "from 0 on"]),
        (SINGLE, [1, 2], torch.tensor([[NAN, 1.0]]), None, ["label [nan, 1.0] of row 0"]),
        (SINGLE, [3, 3], torch.tensor([0, 1]), None, ["shape [3, 3] do not fit 2 labels", "floats [2, classes]"]),
        (SINGLE, [3], torch.tensor([0, 1]), None, ["shape [3] do not fit 2 labels"]),
        (SINGLE, [2, 3], torch.tensor(1), None, ["do not fit 0 labels"]),
        (SINGLE, [2, 3], torch.tensor([0, 1]), pairs(3), ["The plan is for 3 rows, but there are 2 labels"]),
        (SINGLE, [2, 3], torch.tensor([0, 1]), pairs(2, clean_weight=0.5), ["and the plan", "floats [4, classes]"]),
        (
            SINGLE,
            [2, 3],
            torch.tensor([0, 1]),
            BatchPlan(torch.ones(5, 2) / 2),
            ["do not fit 2 labels and the plan", "floats [5, classes]"],
        ),
        (MULTI, [2, 3], torch.tensor([0, 1]), None, ["shape [2]", "0 or 1 for each class", "[rows, 3]"]),
        (MULTI, [1, 2], torch.tensor([[0.0, 2.0]]), None, ["label [0.0, 2.0] of row 0", "numbers from 0 to 1"]),
        (REGRESSION, [2, 1], torch.ones(2, 3), None, ["shape [2, 3]", "regression with 1 outputs"]),
        (REGRESSION, [2, 1], torch.tensor([1.0, INFINITY]), None, ["label inf of row 1", "give finite numbers"]),
    ],
)
def test_logits_and_labels(problem_type, logits, labels, plan, parts):
    raises_one_sentence(lambda: Objective(problem_type)(torch.zeros(logits), labels, plan), ValueError, *parts)


def test_label_weights_and_class_weights_that_do_not_fit():
    objective, labels, logits = Objective(SINGLE), torch.tensor([0, 1]), torch.zeros(2, 3)
    asking = Mixup(METHODS["attentionmix"].with_options(partner="flip"), 2).plan({}, labels, StepKey(1))
    call = {
        "give the label_weight of its output": lambda: objective(logits, labels, asking),
        "label_weight of shape [3] does not fit 2": lambda: objective(logits, labels, pairs(2), torch.ones(3)),
        "class_weights has 2 numbers, but the logits have 3": lambda: Objective(SINGLE, torch.ones(2))(logits, labels),
        "label 2 of row 1": lambda: Objective(SINGLE, torch.ones(2)).weights(torch.tensor([0, 2])),
        "losses [2] and weights [3]": lambda: weighted_mean(torch.ones(2), torch.ones(3)),
        "logits of torch.int64": lambda: objective(torch.zeros(2, 3).long(), labels),
    }
    for part, wrong in call.items():
        raises_one_sentence(wrong, ValueError, part)
    of_another_type = {
        "logits=None": lambda: objective(None, labels),
        "labels=[0, 1]": lambda: objective(logits, [0, 1]),
        "plan='amplify'": lambda: objective(logits, labels, "amplify"),
        "label_weight=0.7": lambda: objective(logits, labels, pairs(2), 0.7),
    }
    for part, wrong in of_another_type.items():
        raises_one_sentence(wrong, TypeError, part)


def trainer(folder, model=None, dataset=None, options=None, **settings):
    arguments = MixupTrainingArguments(
        **{"output_dir": str(folder), "disable_tqdm": True, "use_cpu": True, "max_steps": 2, "save_strategy": "no"}
        | (options or {})
    )
    settings = {"train_dataset": tiny_dataset() if dataset is None else dataset, **settings}
    return MixupTrainer(tiny_model("bert") if model is None else model, arguments, **settings)


@pytest.mark.parametrize(
    ("labels", "model", "parts"),
    [
        ([0, 1, 5], {}, ["train_dataset['label']: label 5 of row 2 is not allowed", "class ids from 0 to 2"]),
        ([0, -1, 1], {}, ["label -1 of row 1", "or -100 for a row without label"]),
        ([-100, -100], {}, ["No row of the train_dataset has a label", "'label' are -100"]),
        ([0, None, 1], {}, ["Row 1 of the train_dataset has no label in its column 'label'"]),
        (["positive", "negative"], {}, ["labels such as 'positive'", "give class ids"]),
        ([[0.0, 1.0], [1.0]], {"num_labels": 2}, ["labels such as [0.0, 1.0]", "lists of the same length"]),
        ([0.5, 1.5], {}, ["shape [2] do not fit multi_label_classification with 3 classes"]),
        ([[0.0, 1.0]], {}, ["shape [1, 2] do not fit multi_label_classification with 3 classes"]),
        (
            [[1, 0, 1]],
            {"problem_type": SINGLE},
            ["label [1.0, 0.0, 1.0] of row 0", "sum to 1", f"set problem_type='{MULTI}'"],
        ),
        ([[0.9, 0.9, 0.0]], {"problem_type": SINGLE}, ["label [0.8999999761581421, 0.", "sum to 1"]),
        ([1.0, NAN], {"num_labels": 1}, ["label nan of row 1", "give finite numbers"]),
    ],
    ids=str,
)
def test_labels_of_the_train_dataset(tmp_path, labels, model, parts):
    dataset = tiny_dataset(rows=len(labels), label=labels)
    for options in ({}, AMPLIFY):
        wrong = trainer(tmp_path, tiny_model("bert", **model), dataset, options)
        start = [parameter.clone() for parameter in wrong.model.parameters()]
        raises_one_sentence(wrong.train, ValueError, *parts)
        assert wrong.state.global_step == 0
        assert all(torch.equal(*pair) for pair in zip(start, wrong.model.parameters(), strict=True))


def test_labels_that_only_the_collator_makes_are_left_to_it(tmp_path):
    def collate(rows):
        batch = {name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "attention_mask")}
        return {**batch, "labels": torch.tensor([["low", "mid", "high"].index(row["label"]) for row in rows])}

    dataset = tiny_dataset(rows=6, label=["low", "mid", "high"] * 2)
    assert trainer(tmp_path, dataset=dataset, data_collator=collate).train().global_step == 2
    shifted = tiny_dataset(rows=6, label=[1, 2, 3] * 2)
    shifted.set_transform(lambda rows: {**rows, "label": [label - 1 for label in rows["label"]]})
    assert trainer(tmp_path, dataset=shifted).train().global_step == 2


@pytest.mark.parametrize("labels", [[True, False], [0, -100, 2], np.array([0, 1], dtype=np.int32)], ids=str)
def test_labels_that_can_be_trained_with(tmp_path, labels):
    dataset = tiny_dataset(rows=len(labels), label=labels)
    assert trainer(tmp_path, dataset=dataset, options=AMPLIFY).train().global_step == 2


def test_trainers(tmp_path):
    plain = tiny_model("bert", mixup=False)
    for call, error, parts in (
        (
            lambda: trainer(tmp_path, plain, options=AMPLIFY),
            ValueError,
            ["cannot train a BertForSequenceClassification", "AutoMixupModelForSequenceClassification"],
        ),
        (
            lambda: MixupTrainer(plain, TrainingArguments(str(tmp_path))),
            TypeError,
            ["got TrainingArguments", "MixupTrainingArguments"],
        ),
        (lambda: MixupTrainer(plain, {"output_dir": "out"}), TypeError, ["got dict"]),
        (
            lambda: MixupTrainer("bert-base-uncased", MixupTrainingArguments(str(tmp_path))),
            TypeError,
            ["got model='bert-base-uncased'", "from_pretrained"],
        ),
        (
            lambda: MixupTrainer(MixupBertForSequenceClassification, MixupTrainingArguments(str(tmp_path))),
            TypeError,
            ["from_pretrained"],
        ),
        (
            lambda: trainer(tmp_path, dataset=tiny_dataset().remove_columns("label")).train(),
            ValueError,
            ["no labels: name the column 'label' or 'labels'"],
        ),
        (
            lambda: trainer(tmp_path, options={**AMPLIFY, "mixup_layers": [9]}),
            ValueError,
            ["mixup_layers=9 does not fit", "1 to 3"],
        ),
    ):
        raises_one_sentence(call, error, *parts)


class Own(torch.nn.Module):
    """A module of the user's own around a mixup model."""

    def __init__(self, **options):
        super().__init__()
        self.inner = tiny_model("bert", **options)

    def forward(self, input_ids, attention_mask=None, token_type_ids=None, labels=None, mixup=None):
        return self.inner(input_ids, attention_mask, token_type_ids, labels=labels, mixup=mixup)


def test_a_mixup_model_inside_a_module_of_ones_own_trains_like_that_model_alone_and_resumes(tmp_path):
    options = {**AMPLIFY, "mixup_ratio": "beta", "mixup_alpha": 1.0}
    alone = trainer(tmp_path / "alone", options=options)
    alone.train()
    wrapped = trainer(tmp_path / "own", Own(), options=options | {"save_strategy": "steps", "save_steps": 1})
    wrapped.train()
    assert same_weights(wrapped.model.inner, alone.model)
    assert wrapped.model.inner.config.mixup == alone.model.config.mixup
    wrapped.model.inner.save_pretrained(tmp_path / "plain")
    plain = BertForSequenceClassification.from_pretrained(tmp_path / "plain")
    assert same_weights(plain, alone.model) and plain.config.mixup["method"] == "amplify"
    shutil.rmtree(tmp_path / "own" / "checkpoint-2")
    again = trainer(tmp_path / "own", Own(seed=7), options=options | {"save_strategy": "steps", "save_steps": 1})
    again.train(resume_from_checkpoint=True)
    assert same_weights(again.model.inner, alone.model)


class Deaf(Own):
    def forward(self, input_ids, attention_mask=None, labels=None):
        return self.inner(input_ids, attention_mask, labels=labels)


class KeepsThePlan(Own):
    def forward(self, input_ids, attention_mask=None, labels=None, **kwargs):
        return self.inner(input_ids, attention_mask, labels=labels)


class GivesLogits(Own):
    def forward(self, input_ids, attention_mask=None, labels=None, mixup=None):
        return self.inner(input_ids, attention_mask, labels=labels, mixup=mixup).logits


def test_a_module_of_ones_own_that_keeps_the_plan_to_itself(tmp_path):
    strong = {**AMPLIFY, "mixup_ratio": "beta", "mixup_alpha": 1.0}
    parts = "forward of Deaf takes no 'mixup'", "mixup=None"
    raises_one_sentence(lambda: trainer(tmp_path, Deaf(), options=strong), ValueError, *parts)
    for wrong, gave in ((KeepsThePlan, "SequenceClassifierOutput"), (GivesLogits, "Tensor")):
        training = trainer(tmp_path, wrong(), options=strong).train
        raises_one_sentence(training, TypeError, f"gave a {gave} without label_weight", "mixup=mixup")
    for wrong in (7, "", [1], {"a": 1}, torch.tensor([1, 2])):
        error = ValueError if wrong == "" else TypeError
        training = trainer(tmp_path).train
        with pytest.raises(error, match="resume_from_checkpoint|cannot be resumed from"):
            training(resume_from_checkpoint=wrong)
