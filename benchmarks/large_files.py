"""Memory and start-up of large files: stock run_glue.py and this script, from 10,000 to 2,000,000 rows.

    python benchmarks/large_files.py --stock run_glue.py --output docs/results/large_files.jsonl

`--stock` names run_glue.py of transformers' examples. For each number of rows it writes a CSV file of short texts in
two classes, and each side trains one step on it with the same flags, twice: with an empty cache of `datasets` (cold),
and with the cache that the first run left (warm). Each run is a fresh process, and the sides take turns. Both run
offline; for stock, which loads its metric also where nothing is evaluated, the working folder has a metric `accuracy`
of its own.

One JSON line a run; runs that the file holds already are not made again. The peak is that of all memory, in which
pages of mapped files count too; these the system takes back when it needs them. So the peak of the other pages, which
are the process's own (`RssAnon`), is noted beside it; it is looked at every 20 milliseconds, on Linux alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from hf_mixup.compare.run import where_it_ran
from hf_mixup.demo.run import minilm_folder

ROOT = Path(__file__).resolve().parents[1]
ROWS = (10_000, 100_000, 400_000, 2_000_000)
SIDES = ("stock", "hf_mixup")
STATES = ("cold", "warm")
SETTINGS = {
    "max_steps": 1,
    "max_seq_length": 32,
    "per_device_train_batch_size": 8,
    "use_cpu": "true",
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": "true",
}
WORDS = 8
CHUNK = 50_000
METRIC = '''"""A metric that is loaded and never computed."""
import datasets
import evaluate


class Accuracy(evaluate.Metric):
    def _info(self):
        numbers = datasets.Features({"predictions": datasets.Value("int32"), "references": datasets.Value("int32")})
        return evaluate.MetricInfo(description="", citation="", features=numbers)
'''


def write_rows(path: Path, rows: int, words: list[str]) -> None:
    """Write a CSV file of texts of random words, in two classes."""
    generator = np.random.default_rng(rows)
    with path.open("w", encoding="utf-8") as file:
        file.write("sentence,label\n")
        for start in range(0, rows, CHUNK):
            drawn = generator.choice(words, (min(CHUNK, rows - start), WORDS))
            file.writelines(f"{' '.join(text)},{number % 2}\n" for number, text in enumerate(drawn.tolist()))


def words_of(model: str) -> list[str]:
    """Words that are one token each."""
    known = AutoTokenizer.from_pretrained(model).get_vocab()
    return sorted(word for word in known if word.isascii() and word.isalpha())


def run(side: str, folder: Path, options: argparse.Namespace) -> dict:
    """Train one step in a process of its own, and say what it took."""
    script = options.stock if side == "stock" else ROOT / "run_glue_mixup.py"
    files = {"train_file": folder / "train.csv", "validation_file": folder / "validation.csv"}
    with tempfile.TemporaryDirectory(dir=folder) as out:
        flags = {**SETTINGS, **files, "model_name_or_path": options.model, "output_dir": f"{out}/model"}
        command = [sys.executable, str(script.resolve()), "--do_train"]
        command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        places = {"HF_DATASETS_CACHE": str(folder / side), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        with open(f"{out}/log", "w+", encoding="utf-8") as log:
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={**os.environ, **places})
            anonymous: list[float] = []
            watcher = threading.Thread(target=lambda: anonymous.extend(anonymous_mib(process.pid)))
            watcher.start()
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            watcher.join()
            if status != 0:
                log.seek(0)
                raise RuntimeError(f"{' '.join(command)} failed:\n{log.read()[-3000:]}")
        results = json.loads(Path(out, "model", "all_results.json").read_text(encoding="utf-8"))
    return {
        "seconds": round(seconds, 2),
        "train_seconds": results["train_runtime"],
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mib": round(usage.ru_maxrss / 1024, 1),
        "anonymous_mib": round(max(anonymous, default=float("nan")), 1),
    }


def anonymous_mib(pid: int) -> Iterator[float]:
    """The memory that is the process's own and no page of a file, until it ends."""
    while True:
        try:
            lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        found = [int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:")]
        # A process that has ended, and was not waited for yet, has no memory.
        if not found:
            return
        yield found[0]
        time.sleep(0.02)


def table(lines: list[dict]) -> Table:
    """What each run took."""
    names = ("seconds", "cpu_seconds", "peak_mib", "anonymous_mib")
    found = Table("rows", "cache", "side", "round", *names)
    for line in lines:
        key = (f"{line['rows']:,}", line["state"], line["side"], str(line["round"]))
        found.add_row(*key, *(f"{line[name]:.1f}" for name in names))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stock", type=Path, required=True, help="run_glue.py of transformers' examples")
    parser.add_argument("--rows", nargs="+", type=int, default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=1, help="how often each size is measured")
    parser.add_argument("--model", help="the folder of the model (default: MiniLM)")
    parser.add_argument("--output", type=Path, required=True, help="JSON lines are appended to it")
    options = parser.parse_args()
    options.model = str(Path(options.model or minilm_folder()).resolve())
    lines = options.output.read_text(encoding="utf-8").splitlines() if options.output.exists() else []
    done = {(line["rows"], line["round"]) for line in map(json.loads, lines)}
    for rows, number in [(rows, number) for rows in options.rows for number in range(1, options.rounds + 1)]:
        if (rows, number) not in done:
            new = measured(rows, number, options)
            with options.output.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in new)
            Console().print(table(new))


def measured(rows: int, number: int, options: argparse.Namespace) -> list[dict]:
    """The lines of all runs on a file."""
    command = f"python benchmarks/large_files.py --stock run_glue.py --rows {rows} --rounds {options.rounds}"
    origin = where_it_ran() | {"command": f"{command} --output docs/results/{options.output.name}"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = words_of(options.model)
        write_rows(folder / "train.csv", rows, words)
        write_rows(folder / "validation.csv", 100, words)
        (folder / "accuracy").mkdir()
        (folder / "accuracy" / "accuracy.py").write_text(METRIC, encoding="utf-8")
        # Who begins changes from round to round.
        sides = SIDES if number % 2 else SIDES[::-1]
        return [
            {"rows": rows, "state": state, "side": side, "round": number, **run(side, folder, options), **origin}
            for state in STATES
            for side in sides
        ]


if __name__ == "__main__":
    main()
