"""Where runs are made: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from hf_mixup.compare.grid import Cell, Task, method_words
from hf_mixup.compare.run import run_cell, where_it_ran
from hf_mixup.errors import UsageError, as_one_line, cut, install_hint

_PATIENCE = 30


@dataclass(frozen=True)
class Job:
    """One line of the results that is to be made.

    Args:
        kind: `run` or `tuning`.
        cell: what is run.
        task: its task.
        model: the folder or the name of its model.
        options: the flags of the run.
        fixed: those of them that belong to the method.
        tuned: the flags that its tuning found.
        tune: the number of trials of a tuning.
        weights: the fingerprint of the model.
    """

    kind: str
    cell: Cell
    task: Task
    model: str
    options: Mapping[str, Any]
    fixed: Mapping[str, Any]
    tuned: Mapping[str, Any]
    tune: int
    weights: str

    @property
    def key(self) -> str:
        """Names the line."""
        return self.cell.key if self.kind == "run" else f"tuning {self.cell.key}"

    def record(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """The line with this content."""
        head = {"key": self.key, "kind": self.kind, "cell": asdict(self.cell), "data": self.task.fingerprint}
        head |= {"weights": self.weights, "reading": self.task.reading()}
        words = method_words(self.fixed)
        if words != self.cell.method:
            head["method"] = words
        return {**head, "options": dict(self.options), "tune": self.tune, **content}

    def failed(self, error: str) -> dict[str, Any]:
        """The line that says that it failed."""
        return self.record({"status": "failed", "error": error})


# What a launcher yields: a job that began, and later the same job with its line.
Event = tuple[Job, dict[str, Any] | None]


def perform(job: Job) -> dict[str, Any]:
    """Do a job; whatever is raised becomes the error of its line, with the traceback in the log."""
    start = time.perf_counter()
    try:
        if job.kind == "tuning":
            from hf_mixup.compare.tuning import tune

            content = tune(job.cell, job.task, job.model, job.options, job.fixed, job.tune)
        else:
            content = run_cell(job.cell, job.task, job.model, {**job.options, **job.tuned})
            content["tuned"] = dict(job.tuned)
    except Exception as error:
        traceback.print_exc()
        record = job.failed(_named(error, job))
    else:
        record = job.record({"status": "done", **content})
    return {**record, "seconds": round(time.perf_counter() - start, 1), **where_it_ran()}


def _named(error: Exception, job: Job) -> str:
    """The error in one line, without the folders that were made for the run and without where the model lies."""
    text = f"{type(error).__name__}: {as_one_line(error)}".replace(job.model, job.cell.model)
    return cut(re.sub(rf"{re.escape(tempfile.gettempdir())}/tmp[^/\s]+/", "", text), 1000)


def run_locally(waiting: deque[Job], at_once: int, log: Path) -> Iterator[Event]:
    """Do jobs in processes of this machine, the threads and the GPUs divided among them.

    A process that dies takes nothing with it but its job. The processes end with their parent, however it ends.

    Args:
        waiting: what is to be done, in this order; jobs are taken out as they begin. What is cleared is not begun.
        at_once: the number of processes.
        log: the file that takes what they write.
    """
    context = get_context("spawn")
    busy: dict[Connection, tuple[BaseProcess, Job]] = {}
    threads = max(1, torch.get_num_threads() // at_once)
    slots = deque(_gpus(at_once))
    idle: list[tuple[Connection, BaseProcess, str | None]] = []
    gpu_of: dict[Connection, str | None] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < at_once:
                if idle:
                    connection, process, gpu = idle.pop()
                else:
                    gpu = slots.popleft()
                    connection, theirs = context.Pipe()
                    process = context.Process(target=_serve, args=(theirs, threads, gpu, log))
                    process.start()
                    theirs.close()
                job = waiting.popleft()
                busy[connection], gpu_of[connection] = (process, job), gpu
                # A process that is gone already shows below, where its answer is read.
                with suppress(OSError):
                    connection.send(job)
                yield job, None
            for connection in wait(list(busy)):
                process, job = busy.pop(connection)
                try:
                    record = connection.recv()
                    idle.append((connection, process, gpu_of[connection]))
                except (EOFError, OSError):
                    process.join()
                    slots.append(gpu_of[connection])
                    record = job.failed(f"its process ended with code {process.exitcode}; is the memory too small?")
                    record |= {"seconds": 0.0, **where_it_ran()}
                yield job, record
    finally:
        for connection, _, _ in idle:
            connection.close()
        for process, _ in busy.values():
            process.terminate()
        for process in (*(process for _, process, _ in idle), *(process for process, _ in busy.values())):
            process.join(_PATIENCE)
            process.kill()


def run_on_ray(waiting: deque[Job], at_once: int, log: Path) -> Iterator[Event]:
    """Do jobs on a Ray cluster: that of RAY_ADDRESS, else one that is started on this machine.

    The files of tasks and models have the same paths on all machines. Each run has a share of the CPUs, and a GPU
    where the cluster has some.

    Args:
        waiting: what is to be done, in this order; jobs are taken out as they begin. What is cleared is not begun.
        at_once: how many run at once; on a cluster started here also the number of its workers.
        log: unused: Ray keeps the logs of its workers itself.

    Raises:
        UsageError: Ray is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UsageError(f"--launcher ray needs the package ray; {install_hint('ray')}") from error
    ray.init(**({} if "RAY_ADDRESS" in os.environ else {"num_cpus": at_once}), log_to_driver=False)
    try:
        resources = ray.cluster_resources()
        share = max(1, int(resources.get("CPU", 1)) // at_once)
        remote = ray.remote(num_cpus=share, num_gpus=int("GPU" in resources), max_retries=0)(perform)
        busy = {}
        while waiting or busy:
            while waiting and len(busy) < at_once:
                job = waiting.popleft()
                busy[remote.remote(job)] = job
                yield job, None
            (reference,), _ = ray.wait(list(busy), num_returns=1)
            job = busy.pop(reference)
            try:
                record = ray.get(reference)
            except ray.exceptions.RayError as error:
                record = job.failed(_named(error, job))
                record |= {"seconds": 0.0, **where_it_ran()}
            yield job, record
    finally:
        ray.shutdown()


LAUNCHERS = {"local": run_locally, "ray": run_on_ray}


def _gpus(processes: int) -> list[str | None]:
    """The GPU of each process; None where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    return [gpus[number % len(gpus)] if gpus else None for number in range(processes)]


def _serve(connection: Connection, threads: int, gpu: str | None, log: Path) -> None:
    """What a process does: jobs, until no more come."""
    # Ctrl-C reaches all processes of a terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with open(log, "ab", buffering=0) as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    torch.set_num_threads(threads)
    # Each run ends with a collection of garbage, which need not look through all that was imported.
    gc.freeze()
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(perform(job))


def _end_with_parent() -> None:
    parent_process().join()
    # In training this ends the run at its next step, and its files are cleared away.
    os.kill(os.getpid(), signal.SIGTERM)
