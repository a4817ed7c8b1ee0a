"""Files of settings that are too large, too deep or malformed: one sentence each, and quickly."""

from __future__ import annotations

import json
import time

import pytest
import yaml

import run_glue_mixup
from hf_mixup.cli import main
from hf_mixup.errors import UsageError
from hf_mixup.glue.settings import option_text, read_settings

ANCHORS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGED = "a: &a {k0: 1, k1: 2, k2: 3}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
FAULTS = {
    "nested anchors": ("a.yaml", f"{ANCHORS}seed: *i\n", "holds more than 10,000 values"),
    "an anchor in itself": ("a.yaml", "seed: &a [*a]\n", "nested in more than 20 levels"),
    "merged keys": ("a.yaml", f"{MERGED}seed: 1\n", "holds more than 10,000 values"),
    "deep lists": ("a.yaml", f"seed: {'[' * 20_000}{']' * 20_000}\n", "nested in more than 20 levels"),
    "lists of 30 levels": ("a.yaml", f"seed: {'[' * 30}{']' * 30}\n", "nested in more than 20 levels"),
    "deep lists in JSON": ("a.json", f'{{"seed": {"[" * 20_000}{"]" * 20_000}}}', "is nested too deeply"),
    "objects of 30 levels in JSON": ("a.json", '{"a": ' * 30 + "1" + "}" * 30, "nested in more than 20 levels"),
    "many values": ("a.yaml", f"seed: [{'1, ' * 10_001}]\n", "holds more than 10,000 values"),
    "many bytes": ("a.yaml", f"# {'x' * 2**20}\nseed: 1\n", "has more than 1,048,576 bytes"),
    "a number of 5,000 digits": ("a.yaml", f"seed: {'9' * 5000}\n", "has the number 99999999999999999999... (5,000"),
    "the same in JSON": ("a.json", f'{{"seed": {"9" * 5000}}}', "has the number 99999999999999999999... (5,000"),
    "a number in base 16": ("a.yaml", f"seed: 0x{'f' * 5000}\n", "has the number 0xffff"),
    "a number in base 60": ("a.yaml", f"seed: 1{':59' * 5000}\n", "has the number 1:59"),
    "not UTF-8": ("a.yaml", b"\xff\xfes\x00", "is not UTF-8 text"),
    "a control character": ("a.yaml", "seed: \x07", "is not valid YAML"),
    "a truth that is none": ("a.yaml", "seed: !!bool perhaps\n", "is not valid YAML"),
    "a number without digits": ("a.yaml", 'seed: !!int ""\n', "is not valid YAML"),
    "a time that is none": ("a.yaml", "seed: !!timestamp soon\n", "is not valid YAML"),
    "a month 13": ("a.yaml", "seed: 2026-13-13\n", "is not valid YAML"),
    "an anchor that is not there": ("a.yaml", "seed: *a\n", "is not valid YAML"),
    "two documents": ("a.yaml", "seed: 1\n---\nseed: 2\n", "is not valid YAML"),
    "nothing": ("a.yaml", "", "should hold one mapping"),
    "code": ("a.yaml", "seed: !!python/object/apply:os.getpid []\n", "is not valid YAML"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_no_settings_is_one_sentence(tmp_path, capsys, fault):
    name, content, sentence = FAULTS[fault]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.process_time()
    with pytest.raises(UsageError) as caught:
        read_settings(str(path), "file of settings")
    assert time.process_time() - start < 5
    assert sentence in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500
    # The two commands that read such files.
    for call, prefix in (
        (lambda: run_glue_mixup.cli(["--config", str(path)]), "the file of settings"),
        (lambda: main(["compare", str(path), "--output", str(tmp_path / "out.jsonl")]), "hf-mixup compare: the grid"),
    ):
        assert call() == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(prefix) and sentence in line


def test_a_folder_and_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.yaml"):
        with pytest.raises(UsageError, match="cannot be read"):
            read_settings(str(path), "grid file")


def test_a_file_without_an_end_is_read_to_its_limit(tmp_path):
    (tmp_path / "a.yaml").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="has more than 1,048,576 bytes"):
        read_settings(str(tmp_path / "a.yaml"), "grid file")


def test_anchors_and_merged_keys_of_a_moderate_size_are_what_pyyaml_makes_of_them(tmp_path):
    text = "base: &base {lr: 1.0e-4, sizes: [all, 8-shot]}\nfirst: {<<: *base, lr: 2}\nsecond: [*base, *base]\n"
    (tmp_path / "a.yaml").write_text(text)
    assert read_settings(str(tmp_path / "a.yaml"), "grid file") == yaml.safe_load(text)


def test_an_option_has_no_null_character():
    for value in ("a\0b", ["a", "\0"]):
        with pytest.raises(UsageError, match=r"^output_dir has the character .x00, which no setting takes"):
            option_text(value, "output_dir")


def test_options_are_flat(tmp_path):
    for value, text in ((3, "3"), (1e-5, "1e-05"), (True, "true"), ([4, 8], "4,8"), ("no", "no"), ([], "")):
        assert option_text(value, "x") == text
    assert json.loads(option_text({"a": {"b": [1]}}, "x", mapping=True)) == {"a": {"b": [1]}}
    for value, what in (
        ([[1]], "is a list with a list in it"),
        ([{"a": 1}], "is a list with a mapping in it"),
        ({"a": 1}, "is a mapping"),
        ([None], "is a list with an empty value in it"),
        ([None, 1], "is a list with an empty value in it"),
        (b"a", "is a bytes"),
        ({1, 2}, "is a set"),
    ):
        with pytest.raises(UsageError, match=f"^x should be a value or a flat list of values, but {what}$"):
            option_text(value, "x")
