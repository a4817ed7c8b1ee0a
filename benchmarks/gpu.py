"""Everything that is to be proved and measured on a GPU, in one call that stops in time.

    python benchmarks/gpu.py OUT --minutes 8
    python benchmarks/gpu.py OUT --minutes 8 --wheels WHEELS --model MODEL --data DATA
    python benchmarks/gpu.py OUT --cpu --minutes 6

On one GPU and without a network: first whether mixing is right (some processes side by side), then what a step costs
(alone), then, until the time is up, runs of the planned grids. OUT gets a line of JSON for each result (`gpu.jsonl`,
see `on_gpu/lines.py`), what all processes printed (`gpu.log`), and the files of results of the grids (`evidence/`).
The same call goes on with what is missing; lines of another commit are refused. `--cpu` does the same on a CPU with
small sizes, and says what it cannot do.

Correctness and time need neither `datasets` nor `evaluate`. The grids need both, which WHEELS may hold as wheels with
what they need; MODEL, a folder of small BERT weights; and DATA, the folder of the data sets.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
# As its own processes find them.
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]

from on_gpu.lines import BEGINNING, WRONG, Lines, checkout, tables  # noqa: E402

from hf_mixup.errors import OneSentenceParser, UsageError, as_one_line, first_line, whole_from  # noqa: E402
from hf_mixup.files import LOCK, alone, check_writable  # noqa: E402

# The share of the time, how many processes at once, and the parts, those that tell most first.
PHASES = {
    "correctness": (3.5, 3, ("training", "numerics", "compiled", "launched", "kernels", "labels", "shapes")),
    "timing": (2.5, 1, ("timing",)),
    "evidence": (2.0, 1, ("evidence",)),
}
MODULE = "on_gpu.{}"
# Where packages of the wheels go before those of the environment.
WITH_WHEELS = ("labels", "evidence")
# Seconds that a check may take before it counts as hanging, and that ended processes get.
LONGEST = {"cuda": 120, "cpu": 300}
PATIENCE = 2
LOG, LONGEST_LOG = "gpu.log", 1_000_000
MOST_JOBS = 256


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts, and print a table of all lines.

    Returns:
        The exit code: 0; 1 if a check failed or raised; 130 after Ctrl-C.

    Raises:
        SystemExit: code 2 after one sentence for a mistake of the user.
    """
    start = time.monotonic()
    parser = make_parser()
    options = parser.parse_args(argv)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpu-", ignore_cleanup_errors=True)))
        try:
            check(options)
            busy = f"another call writes to {options.out}: wait until it ends, or give another folder"
            stack.enter_context(alone(options.out / LOCK, busy))
            lines = Lines(options.out, call_of(options))
            # dill, of datasets, pickles modules outside of folders of this name by their content.
            site = install(options.wheels, scratch / "site-packages")
        except UsageError as error:
            parser.error(as_one_line(error))
        run = Run(options, lines, scratch, site)
        try:
            run.phases(start + 60 * options.minutes)
        except KeyboardInterrupt:
            run.stop()
            code = 130
        else:
            code = int(any(run.is_wrong(part) for part in options.parts))
    for table in tables(lines.lines):
        Console().print(table)
    return code


def make_parser() -> argparse.ArgumentParser:
    parser = OneSentenceParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder of the results")
    parser.add_argument("--minutes", type=float, default=8, help="when to stop (default: 8)")
    parts = [part for _, _, parts in PHASES.values() for part in parts]
    choices = dict.fromkeys([*PHASES, *parts])
    parser.add_argument("--parts", nargs="+", choices=choices, default=list(PHASES), help="only these (default: all)")
    parser.add_argument("--cpu", action="store_true", help="a CPU and small sizes")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="wheels of packages that are not installed")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="the weights for the grids")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="the data sets for the grids")
    cores = os.cpu_count() or 1
    parser.add_argument(
        "--jobs", type=whole_from(1, MOST_JOBS), default=max(1, cores // 2), help="runs of a grid at once"
    )
    return parser


def check(options: argparse.Namespace) -> None:
    """Check what was given, and put the parts of the phases in their places.

    Raises:
        UsageError: there is no GPU, or a folder does not hold what it should.
    """
    options.parts = [
        part for phase, (_, _, parts) in PHASES.items() for part in parts if {phase, part} & set(options.parts)
    ]
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"{options.out} is a file: give a new folder, or that of an earlier call")
    check_writable(options.out, str(options.out))
    if not options.minutes > 0:
        raise UsageError(f"--minutes should be above 0, got {options.minutes:g}")
    if not options.cpu and not torch.cuda.is_available():
        raise UsageError("torch finds no GPU with CUDA: run it on a machine that has one, or give --cpu")
    if options.model and not ((options.model / "config.json").is_file() and [*options.model.glob("*.safetensors")]):
        raise UsageError(f"--model {options.model} holds no weights: give a folder with config.json and *.safetensors")
    if options.data and not [*options.data.glob("*/train.csv")]:
        raise UsageError(f"--data {options.data} holds no data sets: give a folder of folders with train.csv")
    if options.wheels and not [*options.wheels.glob("*.whl")]:
        raise UsageError(f"--wheels {options.wheels} holds no wheels: give a folder with files that end in .whl")


def call_of(options: argparse.Namespace) -> dict[str, Any]:
    """The first line of a call."""
    from step_time import machine

    words = [f"--minutes {options.minutes:g}", *(["--cpu"] if options.cpu else [])]
    return {
        **checkout(),
        "device": "cpu" if options.cpu else "cuda",
        "card": card(options),
        "machine": machine(),
        "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")},
        "command": " ".join(["python benchmarks/gpu.py OUT", *words]),
        "parts": options.parts,
    }


def card(options: argparse.Namespace) -> str | None:
    """The name of the GPU."""
    return None if options.cpu else torch.cuda.get_device_name(0)


def install(wheels: Path | None, site: Path) -> Path | None:
    """The folder into which the wheels were installed, with nothing that they need.

    Raises:
        UsageError: they cannot be installed.
    """
    if wheels is None:
        return None
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(site)]
    done = subprocess.run([*pip, *map(str, sorted(wheels.glob("*.whl")))], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"--wheels {wheels} cannot be installed ({first_line(OSError(done.stderr))})")
    return site


class Run:
    """The processes of a call.

    Args:
        options: of the command line.
        lines: where the results go.
        scratch: a folder for files that nobody needs afterwards.
        site: the folder of packages from wheels.
    """

    def __init__(self, options: argparse.Namespace, lines: Lines, scratch: Path, site: Path | None) -> None:
        self.options, self.lines, self.scratch, self.site = options, lines, scratch, site
        self.device = "cpu" if options.cpu else "cuda"
        self.card = card(options)
        self._lock = threading.Lock()
        self._busy: set[subprocess.Popen] = set()
        self._slots: list[threading.Thread] = []
        # The checks of each part that this call need not try again.
        self._done: dict[str, set[str]] = {}
        self._stopped = False

    def phases(self, deadline: float) -> None:
        """Correctness and time, each with its share; then what they did not come to; then the evidence."""
        # Some seconds for the table.
        deadline -= 3
        asked = [(share, at_once, self._asked(parts)) for share, at_once, parts in PHASES.values()]
        shares = [share if parts else 0.0 for share, _, parts in asked]
        for number, (share, at_once, parts) in enumerate(asked[:-1]):
            now = time.monotonic()
            self._side_by_side(parts, at_once, now + (deadline - now) * share / max(share, sum(shares[number:])))
        for _, at_once, parts in asked:
            self._side_by_side(parts, at_once, deadline)

    def _asked(self, parts: Sequence[str]) -> list[str]:
        return [part for part in parts if part in self.options.parts]

    def is_wrong(self, part: str) -> bool:
        """Whether a check of a part failed or raised."""
        return any(line["status"] in WRONG for line in self.lines.of(part).values())

    def stop(self) -> None:
        """End all processes."""
        self._stopped = True
        for process in list(self._busy):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for slot in self._slots:
            slot.join(2 * PATIENCE)

    def _side_by_side(self, parts: Sequence[str], at_once: int, until: float) -> None:
        cores = os.cpu_count() or 1
        at_once = min(at_once, cores, len(parts))
        # The models for a CPU are tiny: more threads would only get in each other's way.
        threads = 1 if self.options.cpu else max(1, cores // max(1, at_once))
        waiting = deque(parts)

        def work() -> None:
            while waiting and time.monotonic() < until and not self._stopped:
                part = waiting.popleft()
                try:
                    self._part(part, threads, until)
                except Exception as error:
                    self._add(part, {"check": BEGINNING, "status": "error", "traceback": repr(error)})

        self._slots = [threading.Thread(target=work, daemon=True) for _ in range(at_once)]
        for slot in self._slots:
            slot.start()
        for slot in self._slots:
            slot.join()

    def _part(self, part: str, threads: int, until: float) -> None:
        """A part in processes of its own: a new one goes on where a check ended the one before."""
        done = self._done.setdefault(part, set(self.lines.done(part)))
        known = self.lines.of(part)
        while not (known and done >= known.keys()) and time.monotonic() < until and not self._stopped:
            before = len(done)
            self._process(part, threads, until, done)
            known = self.lines.of(part)
            if len(done) == before:
                return

    def _process(self, part: str, threads: int, until: float, done: set[str]) -> None:
        """Read what a process tells, until all checks are made; `done` grows by those that were tried."""
        log = self.scratch / f"{part}.log"
        with open(log, "wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "on_gpu.work", json.dumps(self._told(part, threads, until, done))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment(part, threads),
                start_new_session=True,
            )
        self._busy.add(process)
        # What goes wrong before the first check has a line of its own.
        current, since, buffer = BEGINNING, time.monotonic(), b""
        longest = LONGEST[self.device] if part != "evidence" else float("inf")
        hangs = False
        try:
            while True:
                left = min(until, since + longest) - time.monotonic()
                ready, _, _ = select.select([process.stdout], [], [], max(0.0, left))
                if not ready:
                    hangs = time.monotonic() < until
                    break
                chunk = os.read(process.stdout.fileno(), 1 << 16)
                if not chunk:
                    break
                *told, buffer = (buffer + chunk).split(b"\n")
                for line in map(json.loads, told):
                    since = time.monotonic()
                    current = line.get("begin")
                    if "checks" in line:
                        self._write({"kind": "part", "part": part, **line})
                    elif "check" in line:
                        done.add(line["check"])
                        self._add(part, line)
        finally:
            end(process)
            self._busy.discard(process)
            printed = self._keep(part, log)
        if current is not None and (hangs or time.monotonic() < until) and not self._stopped:
            why = f"it took longer than {longest:g} seconds" if hangs else f"code {process.returncode}"
            text = f"{printed[-3000:]}\nThe process of this check was ended, or ended by itself: {why}"
            self._add(part, {"check": current, "status": "error", "traceback": text})
            done.add(current)

    def _told(self, part: str, threads: int, until: float, done: Iterable[str]) -> dict[str, Any]:
        folders = {name: None if path is None else str(path.resolve()) for name, path in self._folders().items()}
        setting = {"device": self.device, "threads": threads, "until": until, "jobs": self.options.jobs}
        return {"module": MODULE.format(part), "done": list(done), "setting": setting | folders}

    def _folders(self) -> dict[str, Path | None]:
        options = self.options
        return {"scratch": self.scratch, "out": options.out, "model": options.model, "data": options.data}

    def _environment(self, part: str, threads: int) -> dict[str, str]:
        wheels = [self.site] if self.site and part in WITH_WHEELS else []
        paths = [*wheels, ROOT / "benchmarks", ROOT, os.environ.get("PYTHONPATH")]
        added = {
            "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path),
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            # A compiler that was ended leaves broken files, which the next one would take.
            "TORCHINDUCTOR_CACHE_DIR": str(self.scratch / f"inductor-{part}"),
            "TOKENIZERS_PARALLELISM": "false",
        }
        if part in PHASES["correctness"][2]:
            # Without it cuBLAS has no deterministic algorithms.
            added["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        return {**os.environ, **added}

    def _add(self, part: str, line: Mapping[str, Any]) -> None:
        self._write({"kind": "check", "part": part, "card": self.card, **line})

    def _write(self, line: dict[str, Any]) -> None:
        with self._lock:
            self.lines.append(line)

    def _keep(self, part: str, log: Path) -> str:
        """What a process printed, which is added to the log of the folder."""
        printed = log.read_text(encoding="utf-8", errors="replace")[-LONGEST_LOG:]
        with self._lock, open(self.options.out / LOG, "a", encoding="utf-8") as file:
            file.write(f"--- {part} ---\n{printed}\n")
        return printed


def end(process: subprocess.Popen) -> None:
    """End a process and what it started, if it has not ended by itself."""
    process.stdin.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
    process.wait()
    process.stdout.close()


if __name__ == "__main__":
    sys.exit(main())
