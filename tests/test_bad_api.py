"""Mistakes in calls of the library: each gets a sentence with what was given, what is allowed and how to mend it."""

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from hf_mixup import METHODS, MixupBertForSequenceClassification, MixupTrainer, MixupTrainingArguments
from hf_mixup.methods import Method, Mixup
from hf_mixup.mixing import (
    BatchPlan,
    BatchWeights,
    Objective,
    PairPlan,
    Ratio,
    StepKey,
    balanced_class_weights,
    infer_problem_type,
    mix_targets,
    weighted_mean,
)
from hf_mixup.mixing.partners import PARTNERS
from hf_mixup.mixing.ratios import Spans
from hf_mixup.mixing.schedules import coin, within
from hf_mixup.mixing.targets import compounded_share
from tests.tiny import tiny_dataset, tiny_model

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
        ({"evaluation_strategy": "epoch"}, TypeError, ["'evaluation_strategy' (did you mean 'eval_strategy'?)"]),
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
    for number in (1, np.float64(1), np.float32(1), np.int64(1)):
        assert MixupTrainingArguments(output_dir=str(tmp_path), **AMPLIFY, mixup_alpha=number).mixup().ratio.alpha == 1
    for weights in ("1,2.5", "[1, 2.5]", [1, 2.5], (1, 2.5)):
        assert MixupTrainingArguments(str(tmp_path), class_weights=weights).parse_class_weights() == [1, 2.5]
    for head, expected in ((3, 3), ("3", 3), ("average", None), (np.int64(3), 3)):
        assert METHODS["attentionmix"].with_options(attention_head=head).ratio.head == expected


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
        (lambda: METHODS["amplify"].resolve_layers("12"), ValueError, ["num_layers='12'", "a whole number"]),
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
        (lambda: compounded_share(torch.tensor(0.9), 0), ValueError, ["layers=0", "a whole number of at least 1"]),
        (
            lambda: mix_targets(torch.tensor([0, 4]), torch.tensor([1, 0]), torch.tensor([0.7, 0.7])),
            ValueError,
            ["targets of torch.int64 cannot be mixed", "targets.float()"],
        ),
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
    ],
)
def test_methods_ratios_and_targets(call, error, parts):
    raises_one_sentence(call, error, *parts)


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


def trainer(folder, model=None, dataset=None, options=None, **settings):
    arguments = MixupTrainingArguments(
        output_dir=str(folder), disable_tqdm=True, use_cpu=True, max_steps=2, save_strategy="no", **(options or {})
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
