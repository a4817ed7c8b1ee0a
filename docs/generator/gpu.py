"""What `benchmarks/gpu.py` found on a GPU: a section of three pages; without its lines they say "not run"."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from benchmarks.on_gpu.lines import STATES, latest, why
from docs.generator.tables import DOCS, mixed_words, table
from hf_mixup.compare.blocks import Section
from hf_mixup.compare.evidence import Evidence
from hf_mixup.compare.report import markdown
from hf_mixup.compare.results import Results
from hf_mixup.compare.sections import sections

# A copy of the folder that benchmarks/gpu.py writes, without its log.
FOUND = DOCS / "results" / "gpu"
HEAD = "## On a GPU\n\n"
NOT_RUN = "Not run on a GPU yet: `python benchmarks/gpu.py OUT` {does} there.\n"
SAME_ON_CPU = "With `--cpu` it does the same on a CPU, with small sizes; a test runs that.\n"
# What the parts show, in the words of the page on launching.
PARTS = {
    "training": "whole trainings: waits for the device, fp16, bf16, tf32, NaN, resuming, checkpointing, no memory",
    "numerics": "every method and family: forward, loss and gradients against float64 on the CPU",
    "compiled": "`torch.compile` by inductor: frames and values",
    "launched": "`torchrun` and NCCL in one process, set up by `ddp.yaml` and `fsdp2.yaml`",
    "kernels": "the mix, its plan's way to the device, the kernels of attention",
    "labels": "wrong labels, which are refused on the host",
    "shapes": "two steps of BERT-large, ModernBERT-base and Qwen3-0.6B with random weights",
}
REASONING = """
What rests on reasoning, and on the tests on CPUs: several GPUs and several machines, DeepSpeed on GPUs, offload.
"""


def lines(folder: Path = FOUND) -> list[dict]:
    """The lines of the folder, which may be missing.

    Raises:
        ValueError: they are of a CPU.
    """
    path = folder / "gpu.jsonl"
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    if any(line["kind"] == "call" and line["device"] != "cuda" for line in found):
        raise ValueError(f"{path} holds lines of a CPU, made with --cpu: put lines of a GPU there.")
    return found


def pages() -> dict[Path, str]:
    """The page on launching, whose section is generated and the rest written by hand."""
    path = DOCS / "distributed.md"
    return {path: with_section(path.read_text(encoding="utf-8"), checked())}


def with_section(page: str, section: str) -> str:
    """The page with the section in place of the one that it has."""
    before, head, rest = page.partition(HEAD)
    if not head:
        raise ValueError(f"The page has no section {HEAD.strip()!r}: write one.")
    _, next_head, after = rest.partition("\n## ")
    return before + section + next_head + after


def checked(folder: Path = FOUND) -> str:
    """What was checked on a GPU, by part, and what did not pass."""
    parts = latest(lines(folder))
    if not parts.keys() & PARTS.keys():
        return HEAD + NOT_RUN.format(does="checks one GPU, by itself and launched,") + SAME_ON_CPU + REASONING
    cells, wrong = [], []
    for part, text in PARTS.items():
        found = parts.get(part, {})
        states = Counter(line["status"] for line in found.values())
        cells.append((text, *(states[state] for state in STATES)))
        others = {name: line for name, line in found.items() if line["status"] != "passed"}
        wrong += [(name, line["status"], _cell(why(line))) for name, line in others.items()]
    text = f"{_where(folder)}, by the checks of `benchmarks/gpu.py`:\n\n" + table(("what", *STATES), cells)
    if wrong:
        text += "\nWhat did not pass:\n\n" + table(("check", "came to", "why"), wrong)
    return HEAD + text + _origin(folder) + REASONING


def timed(folder: Path = FOUND) -> str:
    """Step time, memory and added kernels on a GPU."""
    found = [line["told"]["line"] for line in latest(lines(folder)).get("timing", {}).values() if "told" in line]
    if not found:
        return HEAD + NOT_RUN.format(does="measures steps")
    head = ("method", "model", "blocks", "batch x length", "steps", "pairs", "plain step, ms", "time", "95 % interval")
    head += ("at most", "peak memory", "launches added", "waits added", "added, of the device's time", "most of it")
    cells = []
    for line in found:
        options, (low, high) = line["options"], line["ratio_interval_95"]
        row = [f"`{mixed_words(line)}`", options["model"], options["depth"] or "all"]
        row += [f"{options['batch']} x {options['length']}", "compiled" if options["compile"] else "eager"]
        row += [options["pairs"], f"{1000 * line['plain_step_median_seconds']:.1f}", f"{line['ratio_median']:.3f}"]
        row += [f"{low:.3f} to {high:.3f}", f"{line['ratio_target']:.3f}"]
        row += [f"{line['memory_ratio']:.3f}" if "memory_ratio" in line else ""]
        row += [*line.get("added_per_step", {"launches": "", "waits": ""}).values()]
        cells.append([*row, *_operators(line)])
    text = (
        f"{_where(folder)}, in bfloat16. A method meets its limit where the interval reaches below it. Sides of one "
        "shape are measured in one process; compiled models have four blocks, so that they are compiled in time.\n\n"
    )
    return HEAD + text + table(head, cells) + _origin(folder)


def compared(folder: Path = FOUND) -> str:
    """What came out of the grids that were run on a GPU."""
    files = sorted((folder / "evidence").glob("*.jsonl"))
    if not files:
        return HEAD + NOT_RUN.format(does="runs the planned grids")
    text = HEAD + (
        "The weights are those of MiniLM in half precision, with the word pieces of these data sets alone, trained in "
        "float32: these runs are not to be mixed with those above.\n\n"
    )
    for file in files:
        found = Evidence(Results(file).lines.values())
        machines = "; ".join(dict.fromkeys(line["machine"] for line in found.lines))
        failed = sum(found.failed.values())
        parts = sections(found, file.name)
        tables = [each for part in parts if part.title in ("Results", "What came out") for each in part.tables]
        notes = [note for part in parts if part.title == "Results" for note in part.text]
        _, _, body = markdown([Section("found", notes, tables)], "").partition("## found\n")
        grid = f"[{file.stem}.yaml](../benchmarks/grids/{file.stem}.yaml)"
        text += f"### {file.stem}\n\n{grid}: {len(found.runs)} runs, {failed} failed, on {machines}.\n\n"
        text += f"{body.strip()}\n\n"
    return text


def _where(folder: Path) -> str:
    """The cards of the lines."""
    cards = dict.fromkeys(line["card"] for line in lines(folder) if line["kind"] == "check")
    return f"On {', '.join(cards)}"


def _origin(folder: Path) -> str:
    """With what the lines were made."""
    calls = [line for line in lines(folder) if line["kind"] == "call"]
    machines = dict.fromkeys(call["machine"] for call in calls)
    versions = dict.fromkeys(", ".join(f"{key} {value}" for key, value in call["versions"].items()) for call in calls)
    commands = dict.fromkeys(call["command"] for call in calls)
    commits = dict.fromkeys(f"{call['commit'][:12]} (files {call['code']})" for call in calls)
    return (
        f"\nMachine: {'; '.join(machines)}. Versions: {'; '.join(versions)}. Commit {', '.join(commits)}. Raw output: "
        "[results/gpu/gpu.jsonl](results/gpu/gpu.jsonl), by\n\n```bash\n" + "\n".join(commands) + "\n```\n"
    )


def _operators(line: dict) -> tuple[str, str]:
    """The time of the operators that a mixed step adds, as shares of those of a plain one."""
    if "operators" not in line:
        return "", ""
    plain = line["plain_seconds"]
    shares = {each["name"].removeprefix("aten::"): each["seconds"] / plain for each in line["operators"]}
    most = [f"{name} {share:.2%}" for name, share in shares.items() if abs(share) >= 5e-5]
    return f"{line['added_seconds'] / plain:.2%}", ", ".join(most[:3])


def _cell(text: str) -> str:
    """A text that breaks no table."""
    return " ".join(text.split()).replace("|", "\\|")
