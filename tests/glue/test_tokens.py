"""Texts that are too long: the rows that stock makes, both ends of a text, uncut lengths, and the cache."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from pathlib import Path

import dill
import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets
from datasets.fingerprint import Hasher
from tokenizers import processors
from transformers import ByT5Tokenizer

from hf_mixup.errors import UsageError
from hf_mixup.glue.tokens import LENGTH, Encoder, length_sentence, lengths_of
from tests.tiny import SENTENCES, bpe_tokenizer, wordpiece_tokenizer

SHORT, LONG = 16, " ".join(SENTENCES)
MARKED = f"[SEP] </s> [PAD] <s> {LONG} [SEP] <s>"
FIRST = ["a film", "", LONG, SENTENCES[0], SENTENCES[1] * 2, MARKED, LONG[::-1], "the moon"]
SECOND = ["", "who wrote", SENTENCES[2], LONG, SENTENCES[3] * 3, "moon", LONG, LONG]
PAIR = {"first": FIRST, "second": SECOND}


def with_template(single, pair):
    """A byte-level tokenizer with special tokens where the templates have them."""
    tokenizer = bpe_tokenizer()
    names = [("<s>", 0), ("</s>", 2)]
    template = processors.TemplateProcessing(single=single, pair=pair, special_tokens=names)
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([processors.ByteLevel(), template])
    return tokenizer


def without_template(post_processor):
    tokenizer = bpe_tokenizer()
    tokenizer.backend_tokenizer.post_processor = post_processor
    return tokenizer


FAST = {
    "bert": wordpiece_tokenizer,
    "distilbert": lambda: wordpiece_tokenizer(model_input_names=["input_ids", "attention_mask"]),
    "ids alone": lambda: wordpiece_tokenizer(model_input_names=["input_ids"]),
    "roberta": bpe_tokenizer,
    "llama": lambda: with_template("<s> $A", "<s> $A <s>:1 $B:1"),
    "xlnet": lambda: with_template("$A </s> <s>:2", "$A </s> $B:1 </s>:1 <s>:2"),
    "gpt2": lambda: without_template(processors.ByteLevel(trim_offsets=False)),
    "no template": lambda: without_template(None),
}
SLOW = {"byt5": ByT5Tokenizer}


@pytest.fixture(params=FAST)
def fast(request):
    return FAST[request.param]()


@pytest.fixture(params=["one text", "pairs"])
def columns(request):
    return ("first",) if request.param == "one text" else ("first", "second")


def uncut(tokenizer, columns):
    """The whole rows, by a tokenizer of their own."""
    return copy.deepcopy(tokenizer)(*(PAIR[column] for column in columns), verbose=False)["input_ids"]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("padding", ["max_length", False])
@pytest.mark.parametrize("kind", [*FAST, *SLOW])
def test_cut_rows_are_those_of_stock_and_have_their_whole_length(kind, columns, padding, side):
    tokenizer = (FAST | SLOW)[kind]()
    tokenizer.truncation_side = tokenizer.padding_side = side
    stock = copy.deepcopy(tokenizer)
    wanted = stock(*(PAIR[column] for column in columns), padding=padding, max_length=SHORT, truncation=True)
    encoded = Encoder(tokenizer, columns, SHORT, padding)(PAIR)
    lengths = encoded.pop(LENGTH)
    assert encoded == dict(wanted) and list(encoded) == list(wanted)
    assert lengths == [len(ids) for ids in uncut(tokenizer, columns)]
    assert min(lengths) < SHORT < max(lengths)
    if tokenizer.is_fast:
        # tokenizer.json is saved with what was last in force.
        assert tokenizer.backend_tokenizer.to_str() == stock.backend_tokenizer.to_str()


@pytest.mark.parametrize("padding", ["max_length", False])
def test_texts_of_exactly_the_length_and_one_more(fast, columns, padding):
    whole = uncut(fast, columns)
    for limit in sorted({len(ids) for ids in whole if len(ids) > 8})[:3]:
        for max_length in (limit, limit - 1):
            encoded = Encoder(fast, columns, max_length, padding, "head_tail")(PAIR)
            assert encoded[LENGTH] == list(map(len, whole))
            for ids, entire in zip(encoded["input_ids"], whole, strict=True):
                if len(entire) <= max_length:
                    assert ids[: len(entire)] == entire
                else:
                    assert len(ids) == max_length


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("padding", ["max_length", False])
def test_both_ends_of_each_long_text_are_kept(fast, columns, padding, side):
    fast.truncation_side = fast.padding_side = side
    stock = copy.deepcopy(fast)
    plain = stock(*(PAIR[column] for column in columns), padding=padding, max_length=SHORT, truncation=True)
    encoded = Encoder(fast, columns, SHORT, padding, "head_tail")(PAIR)
    lengths = encoded.pop(LENGTH)
    assert lengths == [len(ids) for ids in uncut(fast, columns)] and list(encoded) == list(plain)
    # All columns but the ids are stock's: the special tokens and the types of both texts are where they were.
    assert {name: encoded[name] for name in plain if name != "input_ids"} == {
        name: plain[name] for name in plain if name != "input_ids"
    }
    bare = [stock(PAIR[column], add_special_tokens=False)["input_ids"] for column in columns]
    were_cut = 0
    for row, (ids, cut) in enumerate(zip(encoded["input_ids"], plain["input_ids"], strict=True)):
        if lengths[row] <= SHORT:
            assert ids == cut
            continue
        of_text = plain.sequence_ids(row)
        for text, whole in enumerate(own[row] for own in bare):
            places = [place for place, own in enumerate(of_text) if own == text]
            kept, room = [ids[place] for place in places], len(places)
            if len(whole) == room:
                assert kept == whole
                continue
            were_cut += 1
            head = math.ceil(room / 4)
            assert kept[:head] == whole[:head]
            assert kept[head:] == whole[len(whole) - (room - head) :]
        others = [place for place, own in enumerate(of_text) if own is None]
        assert [ids[place] for place in others] == [cut[place] for place in others]
    assert were_cut >= 2


def test_a_quarter_of_the_room_is_that_of_the_paper():
    """128 and 382 tokens of 510, between two special ones."""
    tokenizer = wordpiece_tokenizer()
    text = "the " * 300 + "moon " * 300
    words = tokenizer.convert_tokens_to_ids(["the", "moon"])
    ids = Encoder(tokenizer, ("text",), 512, "max_length", "head_tail")({"text": [text.strip()]})["input_ids"][0]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert ids[1:-1] == [words[0]] * (128 + 82) + [words[1]] * 300


def test_both_ends_are_of_fast_tokenizers():
    with pytest.raises(UsageError, match="--long_texts head_tail needs a fast tokenizer"):
        Encoder(ByT5Tokenizer(), ("text",), 16, long_texts="head_tail")


# ---- The cache of datasets ----


@pytest.mark.parametrize("columns", [("first",), ("first", "second")])
def test_the_fingerprint_is_that_of_a_new_tokenizer_whatever_was_encoded(tiny_bert_folder, columns):
    from transformers import AutoTokenizer

    def load():
        return Encoder(AutoTokenizer.from_pretrained(tiny_bert_folder), columns, SHORT, "max_length")

    first = load()
    before = Hasher.hash(first)
    first(PAIR)
    assert Hasher.hash(first) == before == Hasher.hash(load())
    first.tokenizer(LONG * 3, max_length=5, truncation=True, padding=True)
    first.tokenizer(LONG * 3)
    assert Hasher.hash(first) == before
    # What is hashed is a copy: the tokenizer still has what was in force.
    first(PAIR)
    in_force = first.tokenizer.backend_tokenizer.to_str()
    Hasher.hash(first)
    assert first.tokenizer.backend_tokenizer.to_str() == in_force


def test_the_fingerprint_of_a_tokenizer_in_python():
    assert Hasher.hash(Encoder(ByT5Tokenizer(), ("a",), 9)) == Hasher.hash(Encoder(ByT5Tokenizer(), ("a",), 9))


def test_the_tokens_of_another_version_are_not_used(monkeypatch):
    encoder = Encoder(wordpiece_tokenizer(), ("a",), 9)
    before = Hasher.hash(encoder)
    monkeypatch.setattr("hf_mixup.__version__", "9.9")
    assert Hasher.hash(encoder) != before


def test_every_setting_has_a_fingerprint_of_its_own():
    encoder = Encoder(wordpiece_tokenizer(), ("first",), SHORT, "max_length")
    left, added = wordpiece_tokenizer(), wordpiece_tokenizer()
    left.truncation_side = "left"
    added.add_tokens(["hovercraft"])
    changes = (
        {"max_length": SHORT + 1},
        *({"padding": False}, {"long_texts": "head_tail"}, {"text_columns": ("second",)}),
        *({"tokenizer": left}, {"tokenizer": added}, {"tokenizer": bpe_tokenizer()}),
    )
    others = [dataclasses.replace(encoder, **change) for change in changes]
    assert len({Hasher.hash(one) for one in (encoder, *others)}) == 1 + len(changes)


@pytest.mark.parametrize("long_texts", ["cut", "head_tail"])
def test_a_pickled_encoder_encodes_the_same(fast, columns, long_texts):
    encoder = Encoder(fast, columns, SHORT, "max_length", long_texts)
    wanted = encoder(PAIR)
    assert dill.loads(dill.dumps(encoder))(PAIR) == wanted


def test_map_takes_it_and_its_lengths_are_an_array(tmp_path):
    encoder = Encoder(wordpiece_tokenizer(), ("first", "second"), SHORT, False)
    rows = Dataset.from_dict(PAIR)
    encoded = rows.map(encoder, batched=True, batch_size=3, remove_columns=rows.column_names)
    assert encoded.column_names == ["input_ids", "token_type_ids", "attention_mask", LENGTH]
    wanted = [len(ids) for ids in uncut(encoder.tokenizer, ("first", "second"))]
    np.testing.assert_array_equal(lengths_of(encoded), wanted)
    # The same of one file and of several, as --preprocessing_num_workers makes them.
    encoded.save_to_disk(tmp_path)
    mapped = Dataset.load_from_disk(tmp_path)
    np.testing.assert_array_equal(lengths_of(mapped), wanted)
    np.testing.assert_array_equal(lengths_of(concatenate_datasets([mapped, mapped])), wanted * 2)
    if Path("/proc/self/maps").exists():
        assert Path("/proc/self/maps").read_text().count(str(tmp_path)) == 1


# ---- The sentence ----


def test_the_sentence_of_texts_that_are_cut():
    train = np.array([200] * 12 + [87] * 300 + [40] * 4688)
    sentence = length_sentence({"train": train, "validation": np.full(800, 30)}, 128)
    assert sentence == (
        "Cut to 128 tokens (--max_seq_length): 12 of 5,000 train texts (0.2%); 95% of all texts need at most 87 "
        "tokens."
    )
    two = length_sentence({"train": train, "validation": np.array([129, *[3] * 9999])}, 128)
    assert two.startswith(
        "Cut to 128 tokens (--max_seq_length): 12 of 5,000 train texts (0.2%), 1 of 10,000 validation texts (below "
        "0.1%); "
    )


def test_the_sentence_of_texts_that_all_fit():
    assert length_sentence({"train": np.arange(1, 101)}, 128) == (
        "No text is cut at 128 tokens (--max_seq_length): the longest one has 100, 95% of the texts at most 95."
    )


def test_both_ends_are_named_where_more_than_one_text_in_twenty_is_cut():
    many, few = np.array([300] * 6 + [9] * 94), np.array([300] * 5 + [9] * 95)
    assert "--long_texts head_tail" in length_sentence({"train": many}, 128)
    assert "--long_texts" not in length_sentence({"train": few}, 128)
    told = length_sentence({"train": many}, 128, "head_tail")
    assert told == (
        "Cut to 128 tokens (--max_seq_length), the first and the last part of a text: 6 of 100 train texts (6.0%); "
        "95% of all texts need at most 300 tokens."
    )


def test_ninety_five_percent_is_the_smallest_length_that_is_enough():
    for rows in (1, 7, 19, 20, 21, 40, 1000):
        lengths = np.random.default_rng(rows).integers(3, 90, rows)
        told = int(re.search(r"at most (\d+)", length_sentence({"train": lengths}, 100))[1])
        counted = [number for number in sorted(lengths) if 100 * sum(lengths <= number) >= 95 * rows]
        assert told == counted[0]
