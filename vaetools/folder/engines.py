"""Which workers a folder job gets: by the name of an engine, the number of workers and their devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UsageError
from ..storage.place import Place
from .engine import lanes_of_each, plain_lanes, planner, run_job
from .ledger import JobProgress, Outcome
from .shard import ENGINES
from .spec import Spec

if TYPE_CHECKING:
    from .local_workers import LocalWorkers
    from .ray_workers import RayWorkers


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
    if engine not in ENGINES:
        raise UsageError(f"the engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    if workers < 1:
        raise UsageError(f"there must be at least 1 worker, not {workers}")
    if address is not None and engine != "ray":
        raise UsageError("an address (--address) is for the engine ray")
    for place in (spec.source, spec.target):
        if isinstance(place, Place) and not place.shared:
            raise UsageError(f"{place}: lives in one process, and workers are others; do without them")
    return (_run_on_ray if engine == "ray" else _run_locally)(spec, workers, address, progress)


def _run_locally(spec: Spec, workers: int, _: str | None, progress: JobProgress | None) -> Outcome:
    from .local_workers import LocalWorkers, get_ready

    context = get_ready()
    from ..model.precision import pick_device

    device = pick_device(spec.device)
    devices = [str(device)]
    if device.type == "cuda" and device.index is None:
        devices = [f"cuda:{index}" for index in range(default_workers("cuda"))]
    codec, lanes = planner(spec, device.type)
    each = lanes_of_each(lanes, workers)

    def hired(spec: Spec) -> LocalWorkers:
        return LocalWorkers(spec, context, devices, each)

    return run_job(spec, codec, hired, workers, progress)


def _run_on_ray(spec: Spec, workers: int, address: str | None, progress: JobProgress | None) -> Outcome:
    from .ray_workers import RayWorkers, start_ray

    ray, own = start_ray(address, workers)
    actors: RayWorkers | None = None
    try:
        gpus = spec.device.startswith("cuda") or (spec.device == "auto" and ray.cluster_resources().get("GPU", 0) > 0)
        device_type = "cuda" if gpus else "cpu"
        cpus = 1 if address is None else plain_lanes(device_type).threads
        actors = RayWorkers(ray, spec, workers, cpus=cpus, gpus=int(gpus))
        codec, lanes = planner(spec, device_type)
        actors.lanes = lanes_of_each(lanes, workers if address is None else lanes.count)
        return run_job(spec, codec, lambda _: actors, workers, progress)
    finally:
        if actors is not None:
            actors.close(gently=False)
        if own:
            ray.shutdown()
