"""Step time, memory and added kernels, by `step_time.py` and `added_operators.py`, in one process that has the device.

The scripts start a new process for each number, which would take longer than the steps. One process is enough on a
GPU: torch counts its memory to the byte, from what is held already.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import added_operators
import step_time
import torch

from hf_mixup.methods import METHODS
from on_gpu.setting import Check, Number, Setting, Skip

MIXING = [name for name, method in METHODS.items() if method.site]
FIVE = ("amplify", "embedmix", "attentionmix", "ssmix", "tmix")


def checks(setting: Setting) -> dict[str, Check]:
    """Eager steps of all methods, compiled steps, then large batches.

    Compiled models have four blocks of the shape, so that several methods can be compiled in a minute.
    """
    small = "--model bert-base --batch 32 --length 128 --pairs 30 --bf16"
    large = "--model bert-base --batch 256 --length 128 --pairs 15 --bf16"
    groups = [
        (small, MIXING),
        (f"{small} --depth 4 --compile", FIVE),
        (large, (*FIVE, "amplify-code")),
        (f"{large} --depth 4 --compile", FIVE),
    ]
    if not setting.cuda:
        tiny = "--model tiny --batch 4 --length 16 --pairs 3 --cpu"
        groups = [(tiny, ("amplify", "ssmix")), (f"{tiny} --compile", FIVE[:1])]
    found: dict[str, Check] = {}
    for flags, methods in groups:
        for method in methods:
            options = parsed(setting, f"{flags} --mixup_method {method}")
            kind = "compiled" if options.compile else "eager"
            shape = f"{options.model} {options.batch} x {options.length}"
            found[f"{method}, {kind}, {shape}"] = partial(measured, setting, options)
    return found


def measured(setting: Setting, options: Namespace) -> dict[str, Any]:
    """The ratio of the times, whose interval must reach below the limit, and of the memory; the line for the docs."""
    if options.compile and not setting.cuda:
        raise Skip("needs CUDA: to compile on a CPU takes minutes")
    # Each method adds a frame or two to those of the methods before it.
    torch._dynamo.config.recompile_limit = 64
    sides = sides_of(options)
    mixed = sides.mixed_of(options)
    times, _ = step_time.alternate(options, [sides.plain, mixed])
    line = step_time.origin(command_of(options)) | step_time.times_of(options, times)
    # The tiny steps of a CPU are too short for limits.
    most = step_time.target(options) if setting.cuda else None
    numbers = {"time over plain, lower end of its interval": Number(line["ratio_interval_95"][0], most)}
    if setting.cuda and not options.compile:
        # That of a CPU's process holds what the sides before took.
        line |= step_time.memory_of([sides.memory, step_time.peak_memory(options, mixed=True)])
        numbers["peak memory over plain"] = Number(line["memory_ratio"], step_time.memory_target(options))
    if not options.compile:
        line["added_per_step"] = step_time.added_calls(sides.calls, step_time.calls_of(options, mixed))
        line |= added_operators.line_of(sides.operators, added_operators.calls_and_seconds_of(options, mixed))
    return {**numbers, "line": line}


class Sides:
    """The sides of one shape: the plain one, and a mixed one whose model and optimizer all methods train."""

    def __init__(self, options: Namespace) -> None:
        self._options = options
        self.plain = step_time.Side(options, mixed=False)
        self._mixed = step_time.Side(options, mixed=True)

    def mixed_of(self, options: Namespace) -> step_time.Side:
        """The side that mixes by these options."""
        if options.mixup_method == self._options.mixup_method:
            return self._mixed
        return step_time.Side(options, mixed=True, like=self._mixed)

    @cached_property
    def memory(self) -> float:
        """The peak memory of plain steps."""
        return step_time.peak_memory(self._options, mixed=False)

    @cached_property
    def calls(self) -> dict[str, int]:
        """The kernel launches and waits of a plain step."""
        return step_time.calls_of(self._options, self.plain)

    @cached_property
    def operators(self) -> added_operators.Calls:
        """The operators of a plain step."""
        return added_operators.calls_and_seconds_of(self._options, self.plain)


_SIDES: dict[tuple[Any, ...], Sides] = {}


def sides_of(options: Namespace) -> Sides:
    """The sides of a shape, made once; only those of the last one are kept."""
    shape = tuple(getattr(options, name) for name in ("model", "depth", "batch", "length", "compile"))
    if shape not in _SIDES:
        _SIDES.clear()
        _SIDES[shape] = Sides(options)
    return _SIDES[shape]


def command_of(options: Namespace) -> str:
    """The command that measures the same, each number in a process of its own."""
    known = step_time.parser("Flags.")
    return step_time.command_of(options, known).replace(Path(sys.argv[0]).name, "step_time.py")


def parsed(setting: Setting, flags: str) -> Namespace:
    """The options of `step_time.py`."""
    words = f"{flags} --threads {setting.threads} --scratch {setting.folder('timing')}".split()
    return step_time.parser("Flags.").parse_args(words)
