"""Batches of alike length, with partners from the whole training set."""

import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from transformers import DataCollatorWithPadding
from transformers.trainer_pt_utils import LengthGroupedSampler

from hf_mixup import MixupTrainer, MixupTrainingArguments
from hf_mixup.mixing.partners import neighbour_partner
from hf_mixup.trainer import LengthGroupedPairSampler
from tests.tiny import tiny_model, wordpiece_tokenizer
from tests.trainer.runs import STRONG

PAIRS = {"mixup_partner": "neighbour", "train_sampling_strategy": "group_by_length"}


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def partners_in(order):
    """Who stands beside whom: rows 0 and 1, 2 and 3, and so on; the last of an odd number beside itself."""
    partner = {}
    for place, row in enumerate(order):
        beside = place + 1 if place % 2 == 0 else place - 1
        partner[row] = order[beside] if beside < len(order) else row
    return partner


def by_loops(lengths, batch_size, seed, processes, epoch):
    """The order that the sampler's description gives, with the same draws."""
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths)).tolist()
    rows = batch_size * processes
    count = len(order) // rows
    in_part = min(50, max(1, count // 4)) * rows
    batches = []
    for start in range(0, count * rows, in_part):
        part = order[start : min(start + in_part, count * rows)]
        pairs = [(part[i], part[i + 1]) for i in range(0, len(part), 2)]
        pairs.sort(key=lambda pair: -max(lengths[pair[0]], lengths[pair[1]]))
        part = [row for pair in pairs for row in pair]
        batches += [part[i : i + rows] for i in range(0, len(part), rows)]
    batches = [batches[number] for number in generator.permutation(count)]
    longest = [max(lengths[row] for row in batch) for batch in batches]
    if batches:
        first = longest.index(max(longest))
        batches[0], batches[first] = batches[first], batches[0]
    return [row for batch in batches for row in batch] + order[count * rows :]


@given(
    lengths=st.lists(st.integers(1, 30), max_size=300),
    batch_size=st.sampled_from([2, 4, 6, 32]),
    processes=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 5),
)
def test_each_row_once_in_the_order_of_loops(lengths, batch_size, processes, seed, epoch):
    sampler = LengthGroupedPairSampler(lengths, batch_size, seed, processes)
    order = epoch_of(sampler, epoch)
    assert sorted(order) == list(range(len(lengths))) and len(sampler) == len(lengths)
    assert order == by_loops(lengths, batch_size, seed, processes, epoch)


@pytest.mark.parametrize("rows", [8, 9])
def test_every_row_is_equally_likely_to_be_the_partner(rows):
    # Lengths that would settle who is with whom if rows were grouped and not pairs.
    sampler = LengthGroupedPairSampler([10 * row + 1 for row in range(rows)], batch_size=2, seed=0)
    counts, epochs = np.zeros((rows, rows)), 4000
    for epoch in range(epochs):
        for row, partner in partners_in(epoch_of(sampler, epoch)).items():
            counts[row, partner] += 1
    possible = ~np.eye(rows, dtype=bool) if rows % 2 == 0 else np.ones((rows, rows), dtype=bool)
    assert (counts[~possible] == 0).all() and (counts == counts.T).all()
    for row in range(rows):
        assert stats.chisquare(counts[row, possible[row]]).pvalue > 1e-3
    # Stock grouping nearly always puts the same rows side by side.
    generator = torch.Generator().manual_seed(0)
    stock = LengthGroupedSampler(2, lengths=[10 * row + 1 for row in range(8)] * 25, generator=generator)
    together = partners_in(list(stock))
    assert np.mean([row % 8 == partner % 8 for row, partner in together.items()]) > 0.5


@given(st.integers(1, 40))
def test_neighbours_are_each_others_partners(rows):
    partner = neighbour_partner(np.random.default_rng(0), rows).tolist()
    assert partner == [partners_in(range(rows))[row] for row in range(rows)]
    assert [partner[partner[row]] for row in range(rows)] == list(range(rows))


def padding(lengths, order, batch_size):
    """The share of padding in all that the model reads, counted batch by batch."""
    read = 0
    for start in range(0, len(order), batch_size):
        batch = [lengths[row] for row in order[start : start + batch_size]]
        read += max(batch) * len(batch)
    return 1 - sum(lengths) / read


def test_padding_is_little_beside_that_of_random_batches():
    generator = np.random.default_rng(0)
    lengths = (3 + generator.gamma(2.5, 8, size=4001)).astype(int).tolist()
    random = padding(lengths, generator.permutation(len(lengths)).tolist(), 32)
    stock = padding(lengths, list(LengthGroupedSampler(32, lengths=lengths)), 32)
    ours = padding(lengths, list(LengthGroupedPairSampler(lengths, 32, seed=0)), 32)
    # A pair cannot have less than its longer text.
    pairs = generator.permutation(len(lengths) - 1).reshape(-1, 2)
    least = 1 - np.mean(lengths) / np.mean([max(lengths[one], lengths[two]) for one, two in pairs])
    assert stock < least < ours < least + 0.06 < random - 0.15


# ---- In the trainer ----


def texts(rows=43, **columns):
    """Rows of different lengths, unpadded; each begins with its own number."""
    lengths = [3 + (7 * row) % 19 for row in range(rows)]
    ids = [[row + 5] * length for row, length in enumerate(lengths)]
    mask = [[1] * length for length in lengths]
    return Dataset.from_dict(
        {"input_ids": ids, "attention_mask": mask, "label": [row % 3 for row in range(rows)], **columns}
    )


def trainer_of(folder, dataset, method="amplify", **options):
    arguments = MixupTrainingArguments(
        output_dir=str(folder),
        mixup_method=method,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        dataloader_pin_memory=False,
        **{"per_device_train_batch_size": 8, **PAIRS, **options},
    )
    tokenizer = wordpiece_tokenizer()
    collator = DataCollatorWithPadding(tokenizer)
    model = tiny_model("bert")
    return MixupTrainer(model, arguments, train_dataset=dataset, processing_class=tokenizer, data_collator=collator)


def test_batches_are_those_of_the_sampler(tmp_path):
    dataset = texts()
    lengths = [len(ids) for ids in dataset["input_ids"]]
    for options, seed in (({"seed": 3}, 3), ({"seed": 3, "data_seed": 4}, 4)):
        loader = trainer_of(tmp_path, dataset, **options).get_train_dataloader()
        for epoch in range(2):
            rows = [batch["input_ids"][:, 0] - 5 for batch in loader]
            assert torch.cat(rows).tolist() == by_loops(lengths, 8, seed, 1, epoch)


def test_the_column_of_lengths_is_read(tmp_path):
    lengths = [50 - row for row in range(43)]
    loader = trainer_of(tmp_path, texts(length=lengths), seed=1).get_train_dataloader()
    rows = torch.cat([batch["input_ids"][:, 0] - 5 for batch in loader]).tolist()
    assert rows == by_loops(lengths, 8, 1, 1, epoch=0)


class Recorder(MixupTrainer):
    """Keeps the rows that were mixed with each other."""

    def get_batch_samples(self, *args, **kwargs):
        batches, num_items = super().get_batch_samples(*args, **kwargs)
        for batch in batches:
            row = batch["input_ids"][:, 0] - 5
            if batch["mixup"] is not None:
                self.pairs += zip(row.tolist(), row[batch["mixup"].partner].tolist(), strict=True)
        return batches, num_items


@pytest.mark.parametrize(
    "options",
    [
        STRONG,
        {"mixup_method": "amplify-code", "mixup_label_weight": "compounded", "mixup_alpha": 1.0},
        {"mixup_method": "attentionmix", "mixup_attention_head": "1"},
        {"mixup_method": "ssmix"},
        {"mixup_method": "tmix", "mixup_clean": "average"},
        {"mixup_method": "nonlinear"},
    ],
    ids=lambda options: options["mixup_method"],
)
def test_methods_mix_the_pairs(tmp_path, options):
    options = {**options, "gradient_accumulation_steps": 2, "max_steps": 3, "mixup_prob": 1.0}
    method = options.pop("mixup_method")
    trainer = trainer_of(tmp_path, texts(), method, **options)
    trainer.__class__, trainer.pairs = Recorder, []
    trainer.train()
    order = by_loops([len(ids) for ids in texts()["input_ids"]], 8, 42, 1, epoch=0)
    expected = partners_in(order)
    assert len(trainer.pairs) >= 24
    assert all(expected[row] == partner for row, partner in trainer.pairs)


def test_an_odd_batch_is_refused(tmp_path):
    expected = "7 rows would cut one apart: give an even per_device_train_batch_size"
    with pytest.raises(ValueError, match=expected):
        trainer_of(tmp_path, texts(), per_device_train_batch_size=7)
    with pytest.raises(ValueError, match=expected):
        LengthGroupedPairSampler([1, 2, 3], batch_size=7, seed=0)
    # Without the grouping, or without partners, there is nothing to cut.
    trainer_of(tmp_path, texts(), per_device_train_batch_size=7, train_sampling_strategy="random")
    trainer_of(tmp_path, texts(), per_device_train_batch_size=7, mixup_partner="random")


@pytest.mark.parametrize("method", ["amplify", "none"])
def test_predictions_keep_the_order_of_the_rows(tmp_path, method):
    options = {} if method == "amplify" else {"mixup_partner": None}
    trainer = trainer_of(tmp_path, texts(), method, per_device_eval_batch_size=4, **options)
    prediction = trainer.predict(texts())
    assert prediction.label_ids.tolist() == texts()["label"]
    rows = [torch.tensor([ids]) for ids in texts()["input_ids"]]
    alone = [trainer.model(input_ids=row).logits.detach() for row in rows]
    np.testing.assert_allclose(prediction.predictions, torch.cat(alone), atol=1e-5)
    assert trainer.args.train_sampling_strategy == "group_by_length"


def test_the_order_of_the_batches_is_not_that_of_their_lengths():
    lengths = list(range(1, 3201))
    order = list(LengthGroupedPairSampler(lengths, 8, seed=0))
    longest = [max(lengths[row] for row in order[start : start + 8]) for start in range(0, 3200, 8)]
    assert abs(stats.spearmanr(longest, np.arange(len(longest))).statistic) < 3 / math.sqrt(len(longest))
