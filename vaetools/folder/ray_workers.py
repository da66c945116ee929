"""Ray actors that do shares of a folder job: on this machine, or on those of a cluster.

Every machine must see the source, the output folder and the model under the same paths, and have the same vaetools.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import UsageError, VaetoolsError
from .engine import LISTEN_SECONDS, PATIENCE, Died, File, Message, Part, Sums, Teller, Told, Work, Workers

if TYPE_CHECKING:
    from ..model.threads import Lanes

CALLS_AT_ONCE = 3  # a share, the question how far it is, and the word to stop
OBJECT_STORE = 100 << 20  # bytes; shares and outcomes are small
STOP_SECONDS = 60.0  # for the batches that are worked on


def start_ray(address: str | None, cpus: int, imports: Sequence[str] = ()) -> tuple[Any, bool]:
    """Ray, and whether it was started here: else someone else in this process did. Raises UsageError where it cannot be.

    imports: modules that this process will need, and which it imports meanwhile.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise UsageError("the engine ray needs Ray: pip install 'vaetools[ray]'") from None
    if ray.is_initialized():
        return ray, False
    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    if address is None and not os.environ.get("RAY_ADDRESS"):
        quiet |= {"num_cpus": max(cpus, os.cpu_count() or 1), "object_store_memory": OBJECT_STORE}
    else:
        del quiet["include_dashboard"]
    try:
        # Ray mostly waits meanwhile, for processes that it starts.
        threading.Thread(target=_import, args=(imports,), daemon=True).start()
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"Ray cannot be reached{f' at {address}' * bool(address)}: {reason}") from None
    return ray, True


@dataclass(eq=False)
class RayWorker:
    """share, told: what has been asked for and not yet answered. asked_at: when it was last asked how far it is."""

    actor: Any
    share: Any = None
    told: Any = None
    asked_at: float = field(default_factory=time.monotonic)


class RayWorkers(Workers[RayWorker]):
    """`count` get ready from now on. cpus, gpus: of each, as Ray counts them. lanes: to be set before a share is given."""

    def __init__(self, ray: Any, spec: Work, count: int, *, cpus: int, gpus: float) -> None:
        self.ray, self.spec = ray, spec
        self.lanes: Lanes | None = None
        self._remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_concurrency=CALLS_AT_ONCE)(_Actor)
        self._hired: list[RayWorker] = []
        self._ready = [self._create() for _ in range(count)]

    def _create(self) -> RayWorker:
        worker = RayWorker(self._remote.remote(self.spec, os.getcwd()))
        self._hired.append(worker)
        return worker

    def hire(self, number: int) -> RayWorker:
        return self._ready.pop(0) if self._ready else self._create()

    def give(self, worker: RayWorker, share: Part) -> None:
        worker.share = worker.actor.process.remote(share, self.lanes)

    def listen(self, workers: Sequence[RayWorker]) -> Iterator[tuple[RayWorker, Message]]:
        now = time.monotonic()
        for worker in workers:
            if worker.told is None and now - worker.asked_at >= LISTEN_SECONDS:
                worker.told, worker.asked_at = worker.actor.told.remote(), now
        waited_for = [reference for worker in workers for reference in (worker.share, worker.told) if reference is not None]
        ready, _ = self.ray.wait(waited_for, num_returns=1, timeout=LISTEN_SECONDS)
        for worker in workers:
            if worker.share in ready:
                yield from self._last_words(worker)
            elif worker.told in ready:
                reference, worker.told = worker.told, None
                try:
                    files = self.ray.get(reference)
                except self.ray.exceptions.RayError:
                    continue  # the share's own call tells what is wrong
                yield worker, Told(files, since_start=True)

    def _last_words(self, worker: RayWorker) -> Iterator[tuple[RayWorker, Message]]:
        try:
            answer, files = self.ray.get(worker.share)
        except self.ray.exceptions.RayTaskError as error:
            raise RuntimeError(f"in a worker:\n{error}") from None
        except self.ray.exceptions.RayError as error:
            worker.share = worker.told = None
            yield worker, Died(f"{type(error).__name__}: {_reason(error)}")
            return
        worker.share = worker.told = None
        if isinstance(answer, str):
            raise RuntimeError(f"in a worker:\n{answer}")
        yield worker, Told(files, since_start=True)
        yield worker, answer

    def close(self, *, gently: bool) -> None:
        try:
            busy = [worker for worker in self._hired if worker.share is not None]
            if gently and busy:
                for worker in busy:
                    worker.actor.stop.remote()
                self.ray.wait([worker.share for worker in busy], num_returns=len(busy), timeout=STOP_SECONDS)
            for worker in self._hired:
                self.ray.kill(worker.actor)
        finally:
            self._hired.clear()


class _Actor:
    """Lives in a process of its own, with its model loaded."""

    def __init__(self, spec: Work, folder: str) -> None:
        _import(spec.imports)  # while the job is being planned
        self.spec, self.folder = spec, folder
        self.stopped = threading.Event()
        self.files: list[File] = []
        self.loaded: Any = None

    def _load(self, lanes: Lanes) -> Any:
        try:
            os.chdir(self.folder)  # paths may be relative
        except OSError as error:
            raise UsageError(f"{self.folder}: cannot be worked in on every machine ({error.strerror})") from None
        device = "cuda" if self.spec.device.startswith("cuda") else self.spec.device  # Ray shows each its own
        return self.spec.load(device, lanes)

    def process(self, share: Part, lanes: Lanes) -> tuple[Sums | VaetoolsError | str, list[File]]:
        """An error of ours is an answer, and so is the text of any other one."""
        self.files = []
        try:
            self.loaded = self.loaded or self._load(lanes)
            outcome = self.spec.process(
                share, self.loaded, progress=Teller(self.files.append), patience=PATIENCE, stopped=self.stopped.is_set
            )
        except VaetoolsError as error:
            return error, self.files
        except KeyboardInterrupt:
            return VaetoolsError("was stopped"), self.files
        except Exception:
            return traceback.format_exc(), self.files
        return outcome, self.files

    def told(self) -> list[File]:
        return list(self.files)

    def stop(self) -> None:
        self.stopped.set()


def _import(names: Sequence[str]) -> None:
    for name in names:
        importlib.import_module(name)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no reason given"
