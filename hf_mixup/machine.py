"""The machine that a run is made on, in words."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """The name of the processor, or of its kind where the system does not tell."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
