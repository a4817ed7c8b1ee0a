"""The command line and the files of settings."""

import json
from dataclasses import dataclass, field

import pytest

from hf_mixup.errors import UsageError
from hf_mixup.glue.arguments import parse_arguments, split_names
from hf_mixup.trainer import MixupTrainingArguments


@dataclass
class SomeArguments:
    model_name_or_path: str = field()
    pad_to_max_length: bool = field(default=True)
    max_seq_length: int = field(default=128)
    text_column_names: str | None = field(default=None)


TYPES = (SomeArguments, MixupTrainingArguments)


def parse(*argv):
    return parse_arguments(argv, TYPES)[0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--accelerator_config", '{"a":' * 20_000], "--accelerator_config/--accelerator-config: {"),
        (["--accelerator_config", '{"a"'], "is not valid JSON"),
        (["--accelerator_config", "{deep.json}"], "is nested too deeply"),
        (["--lr_scheduler_kwargs", "nowhere.json"], "'nowhere.json' should be a JSON object"),
        (["--lr_scheduler_kwargs", '{"a": ' + "9" * 5000 + "}"], "has the number 9999"),
        (["--fsdp_config", '{"a": [' + "1," * 10_001 + "1]}"], "holds more than 10,000 values"),
    ],
)
def test_a_mapping_that_is_none_is_one_sentence_with_its_flag(tmp_path, words, sentence):
    write(tmp_path / "deep.json", '{"a":' * 20_000)
    words = [str(tmp_path / word[1:-1]) if word == "{deep.json}" else word for word in words]
    with pytest.raises(UsageError) as caught:
        parse("--model_name_or_path", "m", "--output_dir", str(tmp_path), *words)
    assert sentence in str(caught.value) and words[0] in str(caught.value) and len(str(caught.value)) < 500


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def test_flags_with_both_spellings_and_negations():
    some, training = parse("--model-name-or-path", "m", "--no_pad_to_max_length", "--learning_rate=1e-4", "--do_train")
    assert (some.model_name_or_path, some.pad_to_max_length, training.learning_rate) == ("m", False, 1e-4)
    assert training.do_train


def test_yaml_file_with_overrides_from_the_command_line(tmp_path):
    path = write(
        tmp_path / "run.yaml",
        "model_name_or_path: m\n"
        "learning_rate: 1e-4\n"  # YAML reads this as text
        "eval_strategy: no\n"  # and this as false
        "pad_to_max_length: false\n"
        "do_train: true\n"
        "run_name: null\n"
        "text_column_names: [question, answer]\n"
        "mixup_method: amplify\n"
        "mixup_layers: 2\n"
        "label_names: [labels, more]\n"
        "lr_scheduler_kwargs: {num_cycles: 2}\n"
        "seed: 5\n",
    )
    some, training = parse("--config", path, "--seed", "7", "--pad_to_max_length", "true")
    assert (some.model_name_or_path, some.pad_to_max_length, some.text_column_names) == ("m", True, "question,answer")
    assert (training.learning_rate, training.eval_strategy, training.seed) == (1e-4, "no", 7)
    assert training.do_train and training.run_name is None
    assert (training.mixup_method, training.mixup_layers) == ("amplify", "2")
    assert training.label_names == ["labels", "more"]
    assert training.lr_scheduler_kwargs == {"num_cycles": 2}


def test_the_flag_wins_wherever_it_stands(tmp_path):
    path = write(tmp_path / "run.yml", {"model_name_or_path": "m", "seed": 5})
    assert parse("--seed", "7", f"--config={path}")[1].seed == 7
    assert parse("--config", path)[1].seed == 5


def test_a_json_file_as_the_only_argument_is_stock_style(tmp_path):
    path = write(tmp_path / "args.json", {"model_name_or_path": "m", "do_eval": True, "learning_rate": 0.001})
    some, training = parse(path)
    assert (some.model_name_or_path, training.do_eval, training.learning_rate) == ("m", True, 0.001)


def test_flags_of_old_in_a_file(tmp_path):
    content = "model_name_or_path: m\nevaluation_strategy: no\nwarmup_ratio: 0.1\noverwrite_output_dir: true\n"
    (_, training), notices = parse_arguments(["--config", write(tmp_path / "old.yaml", content)], TYPES)
    assert (training.eval_strategy, training.warmup_steps, training.overwrite_output_dir) == ("no", 0.1, True)
    assert len(notices) == 2


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "required: --model_name_or_path"),
        (
            ["--model_name_or_path", "m", "--mixup_metod", "amplify"],
            "unknown flag --mixup_metod; did you mean --mixup_method?",
        ),
        (["--model_name_or_path", "m", "--evaluaton_strategy=no"], "did you mean --evaluation_strategy?"),
        (["--model_name_or_path", "m", "word"], "belongs to no flag"),
        (["--model_name_or_path", "m", "--learning_rate", "fast"], "argument --learning_rate"),
        (["--model_name_or_path", "m", "--mixup_method", "amplfy"], "amplify"),
        (["--model_name_or_path", "m", "--mixup_method", "amplify", "--mixup_alpha", "0"], "alpha"),
        (["--model_name_or_path", "m", "--mixup_method", "amplify", "--mixup_site", "head"], "site"),
        (["--model_name_or_path", "m", "--eval_strategy", "sometimes"], "eval_strategy"),
        (["--model_name_or_path", "m", "--load_best_model_at_end", "--eval_strategy", "epoch"], "save"),
        (["--config"], "--config needs"),
        (["--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["--config", "settings.toml"], "should end in .yaml"),
    ],
)
def test_mistakes_are_one_sentence(argv, sentence):
    with pytest.raises(UsageError) as caught:
        parse(*argv)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "a.yaml",
            "mixup_methd: amplify\n",
            "mixup_methd, which is no flag of this script; did you mean mixup_method?",
        ),
        ("a.yaml", "config: other.yaml\n", "the key config"),
        ("a.yaml", "- seed\n", "one mapping"),
        ("a.yaml", "seed: [1\n", "is not valid YAML: expected ',' or ']', but got '<stream end>' in line 2"),
        ("a.yaml", "seed: 1\n\tlog: x\n", "in line 2"),
        ("a.yaml", "mixup: {alpha: 1}\n", "the key mixup, which is no flag of this script; keys are flat"),
        ("a.yaml", "!!python/object/apply:os.system ['true']\n", "is not valid"),
        ("a.json", "{'seed': 1}", "is not valid"),
    ],
)
def test_mistakes_in_a_file_are_one_sentence(tmp_path, name, content, sentence):
    path = write(tmp_path / name, content)
    with pytest.raises(UsageError) as caught:
        parse("--model_name_or_path", "m", "--config", path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_flag_is_named_without_its_value():
    with pytest.raises(UsageError) as caught:
        parse("--model_name_or_path", "m", "--tokn=hf_secret", "hf_secret")
    assert "hf_secret" not in str(caught.value)


def test_column_names():
    assert split_names(None, "--x") is None
    assert split_names("a, b c", "--x") == ("a", "b c")
    for text in ("a,,b", "a,a", ""):
        with pytest.raises(UsageError, match="--x"):
            split_names(text, "--x")


@pytest.mark.parametrize("settings", [{"k" * 5000: 1}, {"learning_rate": "x" * 5000}, {"eval_strategy": "x" * 5000}])
def test_long_settings_are_cut_in_messages(tmp_path, settings):
    path = write(tmp_path / "run.json", {"model_name_or_path": "m", **settings})
    with pytest.raises(UsageError) as caught:
        parse("--config", path)
    assert len(str(caught.value)) < 1200
    with pytest.raises(UsageError) as caught:
        split_names("a," * 3000, "--text_column_names")
    assert len(str(caught.value)) < 400


def test_a_list_is_given_once():
    words = ["--model_name_or_path=m", "--output_dir=o", "--label_names", "one"]
    with pytest.raises(UsageError, match="--label_names is given twice; give it once, with all values after it"):
        parse(*words, "--label-names=two")
    assert parse(*words, "two")[1].label_names == ["one", "two"]
