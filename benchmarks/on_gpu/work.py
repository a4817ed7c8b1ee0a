"""The process of one part: `python -m on_gpu.work JSON`, told what to check, tells each result in a line of JSON.

`begin` names the check that comes, so that its parent knows which one ended the process or takes too long. Whatever
else is printed goes to stderr. It ends when its standard input does, which its parent holds.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from on_gpu.setting import Number, Setting, Skip

LONGEST_TRACEBACK = 6000


def main(given: str) -> None:
    told = json.loads(given)
    tell = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    threading.Thread(target=end_with_parent, daemon=True).start()
    paths = {name: Path(told["setting"].pop(name)) for name in ("scratch", "out")}
    setting = Setting(**told["setting"], **paths)
    torch.set_num_threads(setting.threads)

    def line(**content: Any) -> None:
        tell.write(json.dumps(content) + "\n")
        tell.flush()

    checks = import_module(told["module"]).checks(setting)
    line(checks=list(checks))
    for name, check in checks.items():
        if name in told["done"]:
            continue
        line(begin=name)
        start = time.perf_counter()
        result = outcome(check)
        line(check=name, **result, seconds=round(time.perf_counter() - start, 2))
        if result["status"] == "error" and setting.cuda and not is_usable():
            # Whatever follows would fail too; the parent goes on with a new process.
            return


def outcome(check: Any) -> dict[str, Any]:
    """What a check came to: passed, failed, unfinished, skipped, or an error with its traceback."""
    try:
        measured = dict(check())
    except Skip as reason:
        return {"status": "skipped", "reason": str(reason)}
    except Exception:
        return {"status": "error", "traceback": traceback.format_exc()[-LONGEST_TRACEBACK:]}
    return judged(measured)


def judged(measured: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers with the most that they may be; NaN is never within it."""
    numbers = {name: each for name, each in measured.items() if isinstance(each, Number)}
    told = {name: each for name, each in measured.items() if name not in numbers and name != "unfinished"}
    passed = all(number.most is None or number.value <= number.most for number in numbers.values())
    status = "failed" if not passed else "unfinished" if measured.get("unfinished") else "passed"
    limits = {name: number.most for name, number in numbers.items() if number.most is not None}
    values = {name: float(number.value) if math.isfinite(number.value) else None for name, number in numbers.items()}
    return {"status": status, "measured": values, "at_most": limits, "told": told}


def is_usable() -> bool:
    """Whether the device still answers: an assert inside a kernel ends it for the process."""
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def end_with_parent() -> None:
    while os.read(0, 1):
        pass
    # This process leads its group: what it started ends too.
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1])
