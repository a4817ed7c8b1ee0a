"""Kills runs of the script from outside, by SIGKILL, and resumes them until the last one ends by itself.

Usage: kill_worker.py FOLDER SEED KILLS_BETWEEN KILLS_IN_SAVES FLAG...

One run with the FLAGs goes through undisturbed, to FOLDER/straight; another one, to FOLDER/killed, is killed so many
times after a random training pass, and so many times while a checkpoint is half written, in random order. What is
left at each death is printed as a line of JSON. A run is a fork of this process, which has imported everything.
"""

import gc
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

import run_glue_mixup
from hf_mixup import MixupTrainer


def start(flags, log):
    """Fork a run; returns its process id and a pipe that gets a byte at each training pass."""
    passes, tell = os.pipe()
    pid = os.fork()
    if pid:
        os.close(tell)
        return pid, passes
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    training_step = MixupTrainer.training_step

    def telling(*args, **kwargs):
        os.write(tell, b".")
        return training_step(*args, **kwargs)

    MixupTrainer.training_step = telling
    code = 70
    try:
        code = run_glue_mixup.cli(flags)
    finally:
        sys.stdout.flush()
        os._exit(code)


def half_written(folder):
    return [path.name for path in folder.glob("checkpoint-*") if not (path / "checksums.json").exists()]


def stop_in_save(pid, out, chance):
    """Hold a run at a random moment of a save; where the checkpoint is whole by then, hold it in the next one."""
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if half_written(out):
            time.sleep(chance.uniform(0, 0.02))
            os.kill(pid, signal.SIGSTOP)
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if half_written(out):
                return
            os.kill(pid, signal.SIGCONT)


def kill(pid, passes, out, chance, in_save):
    """Kill a run at a random moment; returns what it leaves, or None if it ended before."""
    seen = sum(len(os.read(passes, 1)) for _ in range(chance.randint(1, 12)))
    if in_save:
        stop_in_save(pid, out, chance)
    else:
        time.sleep(chance.uniform(0, 0.03))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        return None
    # Those of a model are in a folder of their own until all of them are whole.
    files = {name: sorted(path.name for path in (out / name).rglob("*")) for name in half_written(out)}
    return {"in_save": in_save, "passes": seen, "half_written": files}


def finish(flags, log):
    """Let a run go to its end; returns its exit code."""
    pid, passes = start(flags, log)
    while os.read(passes, 1):
        pass
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(folder, seed, between, in_saves, *flags):
    torch.set_num_threads(1)
    gc.freeze()
    folder, chance = Path(folder), random.Random(int(seed))
    log, out = folder / "log.txt", folder / "killed"
    assert finish([*flags, "--output_dir", str(folder / "straight")], log) == 0
    moments = [False] * int(between) + [True] * int(in_saves)
    chance.shuffle(moments)
    here = [*flags, "--output_dir", str(out)]
    resume = [*here, "--resume_from_checkpoint", "true"]
    for in_save in moments:
        # Without a whole checkpoint the script refuses to resume, before it trains.
        pid, passes = start(resume, log)
        if not os.read(passes, 1):
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
            pid, passes = start(here, log)
        left = kill(pid, passes, out, chance, in_save)
        os.close(passes)
        sys.stdout.write(f"{json.dumps(left)}\n")
    assert finish(resume, log) == 0


if __name__ == "__main__":
    main(*sys.argv[1:])
