"""Processes of this machine that do shares of a folder job, one per device.

They are forked from a process that has imported all they need, and has done nothing with it; where there is no such thing, each
starts anew. A process has its model loaded until it ends. It does not hear of Ctrl-C: whoever started it asks it to stop, and it
stops by itself if that one is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from ..errors import VaetoolsError
from .engine import LISTEN_SECONDS, PATIENCE, Died, File, Message, Part, Teller, Told, Work, Workers

if TYPE_CHECKING:
    from ..model.threads import Lanes

Context = ForkServerContext | SpawnContext
STOP_SECONDS = 60.0  # for the batches that are worked on


@dataclass(eq=False)
class LocalWorker:
    process: BaseProcess
    connection: Connection
    busy: bool = False


def get_ready(imports: Sequence[str]) -> Context:
    """Have what workers import imported meanwhile, in a process beside this one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *imports])
    forkserver.ensure_running()
    return context


class LocalWorkers(Workers[LocalWorker]):
    """devices: one for each, and again from the first where there are more workers. pids: of all that were started."""

    def __init__(self, spec: Work, context: Context, devices: Sequence[str], lanes: Lanes) -> None:
        self.spec, self.context, self.devices, self.lanes = spec, context, devices, lanes
        self.pids: list[int] = []
        self._hired: list[LocalWorker] = []

    def hire(self, number: int) -> LocalWorker:
        here, there = self.context.Pipe()
        device = self.devices[number % len(self.devices)]
        process = self.context.Process(target=_serve, args=(there, self.spec, device, self.lanes), daemon=True)
        with _deaf_to_interrupts():
            process.start()
        there.close()
        worker = LocalWorker(process, here)
        self._hired.append(worker)
        self.pids.append(process.pid or 0)
        return worker

    def give(self, worker: LocalWorker, share: Part) -> None:
        worker.busy = True
        with suppress(OSError):  # it is dead, and `listen` tells
            worker.connection.send(share)

    def listen(self, workers: Sequence[LocalWorker]) -> Iterator[tuple[LocalWorker, Message]]:
        of = {worker.connection: worker for worker in workers}
        for connection in wait(list(of), LISTEN_SECONDS):
            worker = of[connection]  # type: ignore[index]
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                worker.process.join(STOP_SECONDS)
                worker.connection.close()
                worker.busy = False
                yield worker, Died(f"exit code {worker.process.exitcode}")
                continue
            if isinstance(message, str):
                raise RuntimeError(f"in a worker:\n{message}")
            worker.busy = isinstance(message, Told)
            yield worker, message

    def close(self, *, gently: bool) -> None:
        for worker in self._hired:
            if worker.process.is_alive():
                worker.process.terminate() if gently and worker.busy else worker.process.kill()
            worker.connection.close()
        end = time.monotonic() + STOP_SECONDS
        for worker in self._hired:
            worker.process.join(max(0.0, end - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._hired.clear()


class _deaf_to_interrupts:
    """Processes that are started meanwhile do not hear of Ctrl-C, not even before their first line of Python."""

    def __enter__(self) -> None:
        self.before = None
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __exit__(self, *_: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)


def _serve(connection: Connection, spec: Work, device: str, lanes: Lanes) -> None:
    """Do one share after another until the other end is closed, or SIGTERM comes."""
    stop, lock = threading.Event(), threading.Lock()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_stop_with_parent, args=(stop,), daemon=True).start()

    def send(message: Message | str) -> None:
        try:
            with lock:
                connection.send(message)
        except OSError:  # nobody listens any more
            stop.set()

    def tell(file: File) -> None:
        send(Told((file,)))

    try:
        loaded = spec.load(device, lanes)
        while not stop.is_set():
            share: Part = connection.recv()
            send(spec.process(share, loaded, progress=Teller(tell), patience=PATIENCE, stopped=stop.is_set))
    except (EOFError, KeyboardInterrupt):
        return
    except VaetoolsError as error:
        send(error)
    except Exception:
        send(traceback.format_exc())


def _stop_with_parent(stop: threading.Event) -> None:
    """End when whoever started this process is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    stop.set()
    time.sleep(STOP_SECONDS)
    os._exit(1)
