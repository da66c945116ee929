"""Take the noise out of a folder of images.

The tree is kept: `a/b.png` becomes `a/b.png` below the output folder, and `a/b.jpg` becomes `a/b.jpg.png`, as `decompress`
names what it restores. The output folder holds a manifest, from which the same call goes on after a crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..codec.container import Limits
from ..dataset.content import Content, refuse_labels
from ..errors import VaetoolsError
from ..folder.ledger import JobProgress, Outcome, Product, Task
from ..folder.names import format_of_name, restored_name
from ..folder.plan import Selection, check_places, list_tasks
from ..folder.run import Job
from ..folder.sizes import size_of_image
from ..images.folder import SUFFIXES
from ..images.picture import Picture
from ..images.read import read_picture
from ..images.tensors import to_picture, to_tensor
from ..images.write import save_picture
from ..model.threads import Lanes
from .denoiser import AUTO, Denoiser

MADE = "noise taken out, by vaetools"  # what a DICOM file has to say


@dataclass(frozen=True)
class _Clean:
    picture: Picture
    sigma: float


def denoise_folder(
    source: Path,
    target: Path,
    denoiser: Denoiser,
    sigma: float | str = AUTO,
    *,
    format: str = "png",
    limits: Limits = Limits(),
    selection: Selection = Selection(),
    progress: JobProgress | None = None,
) -> tuple[Outcome, dict[str, float]]:
    """Denoise every image below `source` (or the one that it is) to `target`. Also returns each one's sigma, by its path.

    sigma: of the noise, of values in 0..255, or "auto"; see Denoiser.denoise. Of 16 bits, the lowest value that occurs is 0 and
    the highest 255, as in training: many devices use 12 bits of 16. format: one of names.RESTORED_FORMATS.
    Pixels stay as they are stored; alpha, colour profile, EXIF and XMP are kept. Images that cannot be read are reported as
    failed. Raises UsageError before anything is written, VaetoolsError if nothing more can be written, KeyboardInterrupt with the
    number of files that are done.
    """
    sigmas: dict[str, float] = {}
    lanes = Lanes.of(denoiser.device)

    def read(task: Task) -> Picture:
        picture = read_picture(task.source, max_pixels=limits.max_pixels)
        refuse_labels(picture, task.source, "denoising")
        return picture

    def work(tasks: Sequence[Task], pictures: Sequence[Picture]) -> list[_Clean | VaetoolsError]:
        lanes.enter(alone=False)
        results: list[_Clean | VaetoolsError] = []
        for task, picture in zip(tasks, pictures, strict=True):
            try:
                content = Content(picture, to_tensor(picture.pixels))
                denoised = denoiser.denoise([content.seen], sigma)
                pixels = to_picture(content.stored(denoised.images[0])).pixels
                sigmas[task.path] = round(denoised.sigmas[0], 2)
                results.append(_Clean(replace(picture, pixels=pixels), denoised.sigmas[0]))
            except VaetoolsError as error:
                results.append(error)
        return results

    def finish(task: Task, clean: _Clean, path: Path) -> Product:
        notes = save_picture(path, clean.picture, format_of_name(task.output), made=MADE if clean.sigma > 0 else "")
        told = (f"the noise was estimated: sigma {clean.sigma:.1f}",) if sigma == AUTO else ()
        return Product(8 * task.size / task.pixels, notes=(*clean.picture.notes, *notes, *told))

    check_places(source, target)
    denoiser.check(sigma)
    outcome = Outcome()
    tasks = list_tasks(source, target, SUFFIXES, lambda name: restored_name(name, format), selection, outcome)
    shown = sigma if isinstance(sigma, str) else f"{sigma:g}"
    job = Job(
        settings=f"denoised, sigma {shown}{', ensemble' * denoiser.ensemble}, as {format}, model {denoiser.hash.hex()}",
        limits=limits,
        size_of=lambda task: size_of_image(task.source),
        key_of=lambda task: (task.height, task.width),
        batch_limit=lambda key: 1,
        lanes=lanes,
        read=read,
        work=work,
        finish=finish,
    )
    return job.run(tasks, target, selection, outcome, progress), sigmas
