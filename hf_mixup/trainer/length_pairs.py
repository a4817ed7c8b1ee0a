"""Batches of texts of alike length whose mixup partners still come from the whole training set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_mixup.mixing.checks import check_whole


class LengthGroupedPairSampler(Sampler[int]):
    """Draws pairs over the whole data set first, and only then puts pairs of alike length into a batch.

    Each epoch draws a uniformly random matching: every row is in one pair, and every other row is equally likely to
    be its partner; of an odd number of rows one is left alone, and comes last. The pairs are sorted by their longer
    text, in parts of at most 50 batches drawn at random (transformers' `LengthGroupedSampler` does that with rows),
    and the batches are shuffled, but for that with the longest text: it comes first, so that too little memory shows
    at once. Rows 2i and 2i + 1 of a batch are a pair, which is what `mixup_partner="neighbour"` mixes.

    The order follows from seed and epoch alone, so that a resumed run and all processes have the same.

    Args:
        lengths: the number of tokens of each row.
        batch_size: the rows of a batch of one process; even.
        seed: of the draws, >= 0.
        num_processes: as many batches are trained on at the same time, and are of alike length too.

    Raises:
        ValueError: an odd batch size, or a wrong length, seed or number of processes.

    Example:
        >>> sorted(LengthGroupedPairSampler([9, 2, 8, 1, 7, 3], batch_size=2, seed=0))
        [0, 1, 2, 3, 4, 5]
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, num_processes: int = 1) -> None:
        check_even(batch_size)
        check_whole("seed", seed, lowest=0)
        check_whole("num_processes", num_processes)
        self.lengths = np.asarray(lengths)
        if self.lengths.ndim != 1 or (self.lengths.size and self.lengths.dtype.kind not in "iu"):
            raise ValueError(
                f"lengths are {self.lengths.dtype} of shape {list(self.lengths.shape)}: give the number of tokens of "
                "each row, such as [9, 2, 8]."
            )
        self.rows = batch_size * num_processes
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration is for, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        # The rest is random rows, and not the shortest: it is trained on last, or by --dataloader_drop_last never.
        count = len(order) // self.rows
        order, rest = np.split(order, [count * self.rows])
        pairs = order.reshape(-1, 2)
        parts = np.arange(len(pairs)) // (self.rows // 2 * min(max(count // 4, 1), 50))
        pairs = pairs[np.lexsort([-self.lengths[pairs].max(axis=1), parts])]
        batches = generator.permutation(pairs.reshape(count, self.rows))
        if count:
            longest = self.lengths[batches].max(axis=1).argmax()
            batches[[0, longest]] = batches[[longest, 0]]
        return iter([*batches.flatten().tolist(), *rest.tolist()])


def check_even(batch_size: int) -> None:
    """Raise a ValueError for batches that would cut a pair apart."""
    check_whole("batch_size", batch_size)
    if batch_size % 2:
        raise ValueError(
            "mixup_partner='neighbour' with train_sampling_strategy='group_by_length' puts pairs into batches, and "
            f"{batch_size} rows would cut one apart: give an even per_device_train_batch_size."
        )


class TellEpoch(TrainerCallback):
    """Tells the sampler which epoch begins.

    `Trainer` tells the data loader that skips what a resumed run has done already; of several processes, that one
    does not reach the sampler (Accelerate 1.15), which would repeat the order of the first epoch.
    """

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: DataLoader | None = None,
        **kwargs: Any,
    ) -> None:
        """Called at the start of an epoch, or of what is left of one."""
        if hasattr(train_dataloader, "set_epoch"):
            train_dataloader.set_epoch(int(state.epoch or 0))
