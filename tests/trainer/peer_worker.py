"""Runs of the script in two processes, of which one fails or is killed; prints how both ended, a line of JSON a run.

Usage: peer_worker.py FOLDER CASES.json FLAG...

CASES.json maps the name of a run to `rank`, the process that it befalls, and `fault`: `kill`, a SIGKILL in a step;
`disk`, no file may grow any more; or flags that only this process has. A process is a fork of this one, which has
imported everything; they are started as by a launcher that does not look after them.
"""

import gc
import json
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

import torch

import run_glue_mixup
from hf_mixup import MixupTrainer
from hf_mixup.glue import faults

LIMIT = 30


def befall(fault):
    """Let the fault come in the second step."""
    training_step = MixupTrainer.training_step

    def step(self, *args, **kwargs):
        if self.state.global_step == 1 and fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.state.global_step == 1 and fault == "disk":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        return training_step(self, *args, **kwargs)

    MixupTrainer.training_step = step


def start(rank, port, flags, fault):
    """Fork a process; returns its id and the pipe of its stderr."""
    said, tell = os.pipe()
    pid = os.fork()
    if pid:
        os.close(tell)
        return pid, said
    # A process that hangs is no success, and is gone before long.
    signal.alarm(LIMIT)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(tell, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    # How long a process waits for another one to speak.
    faults._WAIT = 0.3
    befall(fault)
    code = 70
    try:
        code = run_glue_mixup.cli(flags)
    finally:
        sys.stderr.flush()
        os._exit(code)


def run(folder, flags, rank, fault):
    """How both processes ended, what they wrote to stderr, how long it took, and what is in the folder."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags, own, began = [*flags, "--output_dir", str(folder)], [], time.monotonic()
    for process in range(2):
        befallen = process == rank
        more = fault if befallen and isinstance(fault, list) else []
        own.append(start(process, port, [*flags, *more], fault if befallen else None))
    said = [b"".join(iter(lambda pipe=pipe: os.read(pipe, 65536), b"")).decode() for _, pipe in own]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid, _ in own]
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []
    return {"codes": codes, "said": said, "seconds": time.monotonic() - began, "left": left}


def main(folder, cases, *flags):
    torch.set_num_threads(1)
    gc.freeze()
    for name, case in json.loads(Path(cases).read_text()).items():
        sys.stdout.write(f"{json.dumps([name, run(Path(folder, name), list(flags), **case)])}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
