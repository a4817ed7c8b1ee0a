"""From texts to tokens: what becomes of texts that are longer than --max_seq_length, and how many there are."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

import hf_mixup
from hf_mixup.errors import UsageError

# What may become of a text that is too long: `cut` is what transformers does.
LONG_TEXTS = ("cut", "head_tail")
# The column with the number of tokens that a row needs uncut, special ones included.
LENGTH = "tokens_of_whole_text"
_SHARE = 0.95


@dataclass(frozen=True)
class Encoder:
    """Turns the texts of rows into tokens, as a function for `datasets.Dataset.map(batched=True)`.

    Rows that fit are exactly those that `tokenizer(*texts, padding=padding, max_length=max_length, truncation=True)`
    returns. With `long_texts="cut"` all rows are: a long text loses tokens at the tokenizer's `truncation_side`.

    With `long_texts="head_tail"` a text that is too long keeps its first and its last tokens, whatever the
    `truncation_side`: of `room` tokens the first `ceil(room / 4)` and the last ones for the rest. So Sun et al. 2019,
    "How to Fine-Tune BERT for Text Classification?" (https://arxiv.org/abs/1905.05583), section 5.3.1, keep 128 and
    382 of 510. The room is what the tokenizer leaves for the text beside the special tokens, which stay; two texts
    share it as the tokenizer does (the longer one loses tokens first), and each of them keeps its two ends.

    The fingerprint that `datasets` computes of it depends on the settings, the files of the tokenizer and the version
    of this library alone, not on what the tokenizer was used for before.

    Args:
        tokenizer: of either kind for `cut`, a fast one for `head_tail`.
        text_columns: the column of the texts, or the two of the pairs.
        max_length: the most tokens of a row, special ones included; at least one more than there are special tokens.
        padding: `"max_length"` pads every row to `max_length`, False pads none.
        long_texts: `cut` or `head_tail`.
        text_delimiter: joins the texts of all columns to one; None: two columns are a pair.

    Raises:
        UsageError: at construction, if a tokenizer that is not fast should keep both ends.

    Example:
        >>> encoder = Encoder(tokenizer, ("sentence",), max_length=128)  # doctest: +SKIP
        >>> encoded = dataset.map(encoder, batched=True, remove_columns=dataset.column_names)  # doctest: +SKIP
        >>> int(max(encoded[LENGTH]))  # doctest: +SKIP
        187
    """

    tokenizer: PreTrainedTokenizerBase
    text_columns: tuple[str, ...]
    max_length: int
    padding: str | bool = False
    long_texts: str = "cut"
    text_delimiter: str | None = None

    def __post_init__(self) -> None:
        if self.long_texts == "head_tail" and not self.tokenizer.is_fast:
            raise UsageError(
                "--long_texts head_tail needs a fast tokenizer, and this one is written in Python; leave out "
                "--use_fast_tokenizer false, or --long_texts head_tail if the model has no fast one"
            )

    def __call__(self, rows: Mapping[str, list[str]]) -> dict[str, list]:
        """Encode rows.

        Returns:
            the columns of the tokenizer, and `LENGTH`.
        """
        texts = [rows[column] for column in self.text_columns]
        if self.text_delimiter is not None:
            texts = [list(map(self.text_delimiter.join, zip(*texts, strict=True)))]
        batch = self.tokenizer(
            *texts, padding=self.padding, max_length=self.max_length, truncation=True, return_attention_mask=True
        )
        lengths = [sum(mask) for mask in batch["attention_mask"]]
        # The others are shorter and were not cut.
        full = [row for row, length in enumerate(lengths) if length == self.max_length]
        if full and self.tokenizer.is_fast:
            for row, whole in zip(full, self._whole_texts(batch.encodings, texts, full), strict=True):
                places = _places(batch.encodings[row])
                lengths[row] += sum(map(len, whole)) - sum(map(len, places))
                if self.long_texts == "head_tail" and lengths[row] > self.max_length:
                    _put_both_ends(batch["input_ids"][row], places, whole)
        elif full:
            uncut = self.tokenizer(*([column[row] for row in full] for column in texts), verbose=False)
            for row, ids in zip(full, uncut["input_ids"], strict=True):
                lengths[row] = len(ids)
        if "attention_mask" not in self.tokenizer.model_input_names:
            del batch["attention_mask"]
        return {**batch, LENGTH: lengths}

    def _whole_texts(self, encodings: list[Any], texts: list[list[str]], rows: list[int]) -> list[list[list[int]]]:
        """The uncut ids of the one or two texts of each of these rows, without special tokens.

        What was cut off a single text is in `overflowing`. Of pairs there is each combination of two parts, many of
        them, and it is faster to encode the row once more.
        """
        if len(texts) == 1:
            step = -1 if self.tokenizer.truncation_side == "left" else 1
            parts = ([encodings[row], *encodings[row].overflowing][::step] for row in rows)
            return [[[token for part in own for token in _unmasked(part)]] for own in parts]
        backend = self.tokenizer.backend_tokenizer
        truncation = backend.truncation
        backend.no_truncation()
        try:
            uncut = backend.encode_batch([tuple(column[row] for column in texts) for row in rows])
        finally:
            # tokenizer.json is saved with it.
            backend.enable_truncation(**truncation)
        return [_by_text(encoding) for encoding in uncut]

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled, and what `datasets` knows the rows by in its cache: nothing of earlier calls."""
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.deprecation_warnings = {}
        if tokenizer.is_fast:
            tokenizer.backend_tokenizer.no_truncation()
            tokenizer.backend_tokenizer.no_padding()
        # Classes are pickled by their names, so that their code does not count.
        return {**self.__dict__, "tokenizer": tokenizer, "version": hf_mixup.__version__}


def _unmasked(encoding: Any) -> list[int]:
    """The ids of an encoding that are neither special tokens nor padding."""
    return [token for token, special in zip(encoding.ids, encoding.special_tokens_mask, strict=True) if not special]


def _places(encoding: Any) -> list[list[int]]:
    """The positions of the tokens of each text of an encoding."""
    places: list[list[int]] = [[] for _ in range(encoding.n_sequences)]
    for place, text in enumerate(encoding.sequence_ids):
        if text is not None:
            places[text].append(place)
    return places


def _by_text(encoding: Any) -> list[list[int]]:
    """The ids of each text of an encoding, without special tokens."""
    ids = encoding.ids
    return [[ids[place] for place in own] for own in _places(encoding)]


def _put_both_ends(ids: list[int], places: list[list[int]], whole: list[list[int]]) -> None:
    """Write the first and the last tokens of each whole text into its places in a row."""
    for own, text in zip(places, whole, strict=True):
        head = -(-len(own) // 4)
        kept = text[:head] + text[len(text) - (len(own) - head) :]
        for place, token in zip(own, kept, strict=True):
            ids[place] = token


def lengths_of(encoded: Dataset) -> NDArray[np.int64]:
    """Return the column `LENGTH` of rows that an `Encoder` made, `[rows]`.

    It is read through a mapping of its own, which is gone afterwards: pages of a mapped file count as memory as long
    as it is mapped, and a column lies among the pages of all others.

    Args:
        encoded: what `datasets.Dataset.map` returned.

    Example:
        >>> lengths_of(dataset.map(encoder, batched=True))  # doctest: +SKIP
        array([12, 187,  9])
    """
    parts = [Dataset.from_file(file["filename"]) for file in encoded.cache_files] or [encoded]
    return np.concatenate([part.data.column(LENGTH).to_numpy() for part in parts])


def length_sentence(lengths: Mapping[str, np.ndarray], max_length: int, long_texts: str = "cut") -> str:
    """Say in one line how many texts were cut, and which length is enough for 95 % of them.

    Args:
        lengths: the uncut lengths `[rows]` of each split; at least one text.
        max_length: the length that texts were cut to.
        long_texts: what was done with texts that are longer. Only where more than 5 % of the texts were cut at one
            end, `--long_texts head_tail` is named.

    Example:
        >>> length_sentence({"train": np.array([5, 9, 12, 7]), "validation": np.array([6, 8])}, 16)
        'No text is cut at 16 tokens (--max_seq_length): the longest one has 12, 95% of the texts at most 12.'
        >>> length_sentence({"train": np.array([5, 9, 12, 7]), "validation": np.array([6, 8])}, 10)
        'Cut to 10 tokens (--max_seq_length): 1 of 4 train texts (25.0%); 95% of all texts need at most 12 tokens. \
--long_texts head_tail keeps the first and last part of a long text.'
    """
    together = np.concatenate(list(lengths.values()))
    enough = int(np.quantile(together, _SHARE, method="inverted_cdf"))
    cut = {split: int(np.count_nonzero(own > max_length)) for split, own in lengths.items()}
    if not any(cut.values()):
        return (
            f"No text is cut at {max_length:,} tokens (--max_seq_length): the longest one has {together.max():,}, "
            f"{_SHARE:.0%} of the texts at most {enough:,}."
        )
    numbers = ", ".join(
        f"{number:,} of {len(lengths[split]):,} {split} texts ({_percent(number / len(lengths[split]))})"
        for split, number in cut.items()
        if number
    )
    kept = ", the first and the last part of a text" if long_texts == "head_tail" else ""
    sentence = (
        f"Cut to {max_length:,} tokens (--max_seq_length){kept}: {numbers}; {_SHARE:.0%} of all texts need at most "
        f"{enough:,} tokens."
    )
    if long_texts == "cut" and enough > max_length:
        sentence += " --long_texts head_tail keeps the first and last part of a long text."
    return sentence


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 else "below 0.1%"
