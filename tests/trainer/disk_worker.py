"""Runs the script on a small file system with ever more room, and again with enough; a line of JSON for each level.

    unshare --map-root-user --mount python disk_worker.py FOLDER STEP EARLIER FLAGS...

STEP is the room, in KiB, by which the levels differ; EARLIER is 1 if a run has finished there before.
"""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import run_glue_mixup


def call(argv):
    """The exit code of the script, or the error that it let through; and what it wrote to stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        try:
            code = run_glue_mixup.cli(argv)
        except Exception as error:
            code = repr(error)
    return code, said.getvalue().splitlines()


def results(out):
    """The content of the results files."""
    return {path.name: path.read_text() for path in out.glob("*_results.json")}


def level(folder, room, earlier, flags):
    """What happens with this room, in KiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", folder], check=True)
    out, argv = folder / "out", [*flags, "--output_dir", str(folder / "out")]
    try:
        if earlier:
            assert call(argv)[0] == 0
        before = results(out)
        with (folder / "fill").open("wb") as fill:
            fill.write(bytes(shutil.disk_usage(folder).free - 1024 * room))
        code, said = call(argv)
        left = results(out)
        (folder / "fill").unlink()
        broken = [name for name, text in left.items() if not text.endswith("}")]
        lost = sorted(set(before) - set(left))
        return {"room": room, "code": code, "said": said, "lost": lost + broken, "again": call(argv)[0]}
    finally:
        subprocess.run(["umount", folder], check=True)


def main(folder, step, earlier, *flags):
    room, code = 0, None
    while code != 0:
        found = level(Path(folder), room, int(earlier), flags)
        sys.stdout.write(f"{json.dumps(found)}\n")
        room, code = room + int(step), found["code"]


if __name__ == "__main__":
    main(*sys.argv[1:])
