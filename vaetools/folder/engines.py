"""Which workers a folder job gets: by the name of an engine, the number of workers and their devices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import UsageError
from ..storage.place import Place
from .engine import Work, Workers, lanes_of_each, plain_lanes, planner, run_job
from .ledger import JobProgress, Outcome
from .shard import ENGINES
from .spec import Spec

if TYPE_CHECKING:
    from ..model.threads import Lanes
    from .local_workers import LocalWorkers
    from .ray_workers import RayWorkers

Hire = Callable[["Lanes"], Workers[Any]]
Result = TypeVar("Result")


def default_workers(device: str) -> int:
    """One per GPU that is there, if any GPU will do; else one."""
    import torch

    return max(1, torch.cuda.device_count()) if device in ("auto", "cuda") else 1


def run_on_engine(
    spec: Spec, engine: str = "local", workers: int = 2, *, address: str | None = None, progress: JobProgress | None = None
) -> Outcome:
    """Do a job by several workers: its files are those of compress_folder and decompress_folder, byte for byte.

    engine: "local", processes of this machine, or "ray", Ray's actors. address: of a Ray cluster; without, Ray is started on
        this machine for the time of the job.
    Raises UsageError before anything is written, VaetoolsError if the job cannot be finished, KeyboardInterrupt; the same call
    goes on from there.
    """
    for place in (spec.source, spec.target):
        if isinstance(place, Place) and not place.shared:
            raise UsageError(f"{place}: lives in one process, and workers are others; do without them")

    def run(device_type: str, hire: Hire) -> Outcome:
        codec, lanes = planner(spec, device_type)
        return run_job(spec, codec, lambda: hire(lanes), workers, progress)

    return with_engine(spec, engine, workers, run, address=address)


def with_engine(
    spec: Work, engine: str, workers: int, run: Callable[[str, Hire], Result], *, address: str | None = None
) -> Result:
    """Call `run` with the type of the workers' devices, and with what hires them: it is given the lanes that a plain job has on
    this machine. Workers get ready meanwhile, and are gone when `run` has returned.

    The rest is as of run_on_engine. Raises what `run` raises, and UsageError before it is called.
    """
    if engine not in ENGINES:
        raise UsageError(f"the engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    if workers < 1:
        raise UsageError(f"there must be at least 1 worker, not {workers}")
    if address is not None and engine != "ray":
        raise UsageError("an address (--address) is for the engine ray")
    return (_with_ray if engine == "ray" else _with_processes)(spec, workers, address, run)


def _with_processes(spec: Work, workers: int, _: str | None, run: Callable[[str, Hire], Result]) -> Result:
    from .local_workers import LocalWorkers, get_ready

    context = get_ready(spec.imports)
    from ..model.precision import pick_device

    device = pick_device(spec.device)
    devices = [str(device)]
    if device.type == "cuda" and spec.device in ("auto", "cuda"):
        devices = [f"cuda:{index}" for index in range(default_workers("cuda"))]

    def hire(lanes: Lanes) -> LocalWorkers:
        return LocalWorkers(spec, context, devices, lanes_of_each(lanes, workers, device.type))

    return run(device.type, hire)


def _with_ray(spec: Work, workers: int, address: str | None, run: Callable[[str, Hire], Result]) -> Result:
    from .ray_workers import RayWorkers, start_ray

    ray, own = start_ray(address, workers, spec.imports)
    actors: RayWorkers | None = None
    try:
        gpus = gpus_of_each(workers, int(ray.cluster_resources().get("GPU", 0)), spec.device)
        device_type = "cuda" if gpus else "cpu"
        cpus = 1 if address is None else plain_lanes(device_type).threads
        hired = actors = RayWorkers(ray, spec, workers, cpus=cpus, gpus=gpus)

        def hire(lanes: Lanes) -> RayWorkers:
            hired.lanes = lanes_of_each(lanes, workers if address is None else lanes.count, device_type)
            return hired

        return run(device_type, hire)
    finally:
        if actors is not None:
            actors.close(gently=False)
        if own:
            ray.shutdown()


def gpus_of_each(workers: int, gpus: int, device: str) -> float:
    """What part of a GPU each worker holds, of those that Ray knows of: it would wait for ever for more than there are.

    Raises UsageError if there is none, and `device` asks for one.
    """
    wanted = device.startswith("cuda")
    if wanted and not gpus:
        raise UsageError(f"device {device!r} cannot be used: Ray knows of no GPU; `cpu` can be used everywhere")
    return 1 / math.ceil(workers / gpus) if gpus and (wanted or device == "auto") else 0
