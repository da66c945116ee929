"""The training loop.

    vaetools train photos/ --preset photo --minutes 60 --out runs/photo
    vaetools train 'shards/photos-{000..041}.tar' --preset photo --minutes 60 --out runs/photo
    torchrun --nproc-per-node 2 -m vaetools train photos/ --preset photo --epochs 20 --out runs/photo

Each step is a pure function of the seed, the step number, the fraction of the budget that is spent and the weights before
it. With a budget in epochs a resumed run therefore continues exactly (on a GPU, as far as cuDNN's gradients are the same each
time), and several ranks compute what one rank with the whole batch would.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import TrainingError, UsageError
from ..files import remove_temporaries
from ..model.config import ModelConfig
from ..model.distributions import Noise
from ..model.vae import VAE
from ..model.weights import LoadedModel, save_weights
from ..storage.blob import Readable
from ..storage.place import Source
from .calibration import calibrate
from .checkpoint import Progress, load_checkpoint, save_checkpoint
from .data import Batch, CropSampler, ImageCache, Prefetcher, patch_basis, to_unit_range
from .growth import grow
from .muon import Muon
from .narrowing import Narrowing, narrow
from .objective import Losses, losses_of
from .ranks import Ranks
from .report import RunReport, Sums
from .settings import TrainingSettings

EXPLODING = 6.0  # a gradient norm above this many times the typical one is skipped
TRUSTED_AFTER = 200  # steps before which norms vary too much to judge
GIVE_UP_AFTER = 200  # skipped steps in a row
LOOK_AHEAD = 4  # batches made before their step


class Trainer:
    """One training run: network, optimisers, running average and progress, and how to save and restore them."""

    def __init__(self, config: ModelConfig, settings: TrainingSettings, ranks: Ranks) -> None:
        torch.manual_seed(settings.seed)
        self.config, self.settings, self.ranks = config, settings, ranks
        self.device = ranks.device
        self.net = VAE(config).to(self.device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False)
        linear = ("linear_encoder", "linear_decoder")
        named = list(self.net.named_parameters())
        matrices = [p for name, p in named if p.ndim == 4 and p.shape[1] > 1 and not name.startswith(linear)]
        chosen = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in chosen]
        self.optimisers = [
            Muon(matrices, settings.learning_rate),
            torch.optim.AdamW(rest, settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.progress = Progress()
        self.sums = Sums()
        self.network: nn.Module = self.net  # with several ranks, wrapped when the training starts

    def start_from(self, vae: VAE) -> None:
        """Start with its weights."""
        for network in (self.net, self.average):
            network.load_state_dict(vae.state_dict())

    def set_qualities(self, lambdas: tuple[float, float]) -> None:
        for network in (self.net, self.average):
            network.set_qualities(lambdas)
        self.config = self.net.config

    def start_from_pca(self, basis: np.ndarray) -> None:
        self.net.start_from_pca(torch.from_numpy(basis).to(self.device))
        self.average.load_state_dict(self.net.state_dict())

    def state(self) -> dict[str, Any]:
        return {
            "config": self.config.to_json(),
            "settings": asdict(self.settings),
            "progress": asdict(self.progress),
            "network": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "epoch_so_far": {"count": self.sums.count, "means": self.sums.means()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.progress = Progress(**state["progress"])
        if so_far := state.get("epoch_so_far"):
            self.sums = Sums.of(so_far["count"], so_far["means"], self.device)

    def step(self, batch: Batch, rate: float) -> Losses | None:
        """One optimiser step at learning rate `rate`. None if it was skipped for its gradients."""
        images = to_unit_range(batch.images, self.config, self.device)
        quality = torch.from_numpy(batch.quality).to(self.device)
        generator = torch.Generator(self.device).manual_seed(hash_seed(self.settings.seed, self.progress.step))
        noise = Noise(generator, self.ranks.rank, self.ranks.world)
        losses = losses_of(self.network, self.config, images, quality, noise)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = rate
        losses.loss.backward()
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), 1.0).item()
        progress = self.progress
        progress.step += 1
        if not math.isfinite(norm) or (progress.step > TRUSTED_AFTER and norm > EXPLODING * progress.typical_norm):
            progress.typical_norm *= 1.02  # if norms have really grown, catch up with them
            progress.skipped += 1
            return None
        memory = 0.0 if progress.step < 20 else 0.98
        progress.typical_norm = memory * progress.typical_norm + (1 - memory) * norm
        for optimiser in self.optimisers:
            optimiser.step()
        self._update_average()
        return losses

    @torch.no_grad()
    def _update_average(self) -> None:
        """Exponential moving average of the weights, over about a tenth of the steps so far, at most 1,000."""
        decay = min(0.999, 1 - 1 / (self.progress.step / 10 + 1.5))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.net.parameters()), 1 - decay)


def hash_seed(seed: int, step: int) -> int:
    """One 63-bit seed from two numbers."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0]) >> 1


def train(
    folder: Source,
    run: Path,
    config: ModelConfig,
    settings: TrainingSettings,
    *,
    resume: bool = False,
    quality_lambdas: tuple[float, float] | None = None,
    device: str = "auto",
    only: Sequence[Readable] | None = None,
    start: LoadedModel | None = None,
    narrowing: Narrowing | None = None,
) -> Path | None:
    """Train on the images below `folder`, or in tars, or on `only` these, from the weights of `start` or from none.

    If `config` has more latents than `start`, that is given the others first: see growth.py. narrowing: how much of the
    arithmetic in the blocks of `start` goes first: see narrowing.py.

    Returns the path of the exported weights, below `run`; None on ranks but the first.
    With `resume`, the network and the data seed are those of the checkpoint in `run`; `settings` gives the budget, and
    `quality_lambdas`, if given, another range of qualities to train towards from there.
    Raises UsageError (also for a `narrowing` without `start`, or too small a one) or TrainingError before anything is
    overwritten, and KeyboardInterrupt after an interruption, when the checkpoint is written.
    """
    if narrowing is not None and (start is None or resume):
        raise UsageError("blocks are made narrower when a training starts from a model")
    with Ranks.start(device) as ranks:
        report = RunReport(run, quiet=ranks.rank > 0)
        saved = load_checkpoint(run) if resume else None
        if saved is None:
            report.refuse_existing()
        else:
            config = ModelConfig.from_json(saved["config"])
            wanted = replace(config, quality_lambdas=quality_lambdas or config.quality_lambdas)
            settings = replace(settings, seed=saved["settings"]["seed"])
        if ranks.rank == 0:
            remove_temporaries(run)  # of checkpoints that were not finished when a run was killed
        check_crops(config, settings)
        cache = ImageCache.load(folder, config, settings.cache_bytes, only=only, leave_out=run)
        report.folder(cache, settings.crops[0][1])
        vae = None
        if start is not None and saved is None:
            given = start.vae
            vae = ranks.from_first(lambda: _adapted(given, config, narrowing, cache, settings, report))
            config = vae.config
        trainer = Trainer(config, settings, ranks)
        if saved is not None:
            try:
                trainer.restore(saved)
            except (KeyError, RuntimeError, TypeError, ValueError) as error:
                raise TrainingError(f"{run}: the checkpoint is of another version of vaetools ({error})") from None
            trainer.set_qualities(wanted.quality_lambdas)
            report.resumed(trainer.progress)
        elif vae is not None:
            trainer.start_from(vae)
        else:
            trainer.start_from_pca(patch_basis(cache, config.latent_stride, settings.seed))
        run_epochs(trainer, cache, report)
        if ranks.rank > 0:
            return None
        if config.is_codec:
            report.message("fitting the probability tables")
        try:
            return export(trainer.average, cache, run, settings.seed)
        except OSError as error:
            raise TrainingError(
                f"the weights could not be written ({error}); the checkpoint is whole: free some space, "
                f"then run `vaetools export {run} {folder}`"
            ) from None


def _adapted(
    vae: VAE, config: ModelConfig, narrowing: Narrowing | None, cache: ImageCache, settings: TrainingSettings, report: RunReport
) -> VAE:
    """A network of `config` that does what `vae` does, with narrower blocks if asked for."""
    if vae.config.latent_channels != config.latent_channels:
        vae = grow(vae, config.latent_channels, cache, settings.seed)
    if vae.config.noise == config.noise:  # else qualities are levels of noise now
        vae = copy.deepcopy(vae)
        vae.set_qualities(config.quality_lambdas)
    adapted = VAE(config).eval()
    adapted.load_state_dict(vae.state_dict())
    if narrowing is not None:
        report.message("looking for what the blocks can do without")
        adapted, gone = narrow(adapted, narrowing, sampler_of(cache, settings))
        report.message(f"{gone:.1%} of their arithmetic goes")
    return adapted.requires_grad_(False)


def sampler_of(cache: ImageCache, settings: TrainingSettings, rank: int = 0, world: int = 1) -> CropSampler:
    return CropSampler(cache, settings.seed, rank, world, mirrored=settings.mirrored, smallest_scale=settings.smallest_scale)


def resumed_settings(run: Path, **changes: Any) -> TrainingSettings:
    """The settings that the run in `run` has been trained with, but for `changes`; a new budget replaces the old one."""
    saved = load_checkpoint(run)["settings"]
    saved["crops"] = tuple(tuple(crop) for crop in saved["crops"])
    if "epochs" in changes or "minutes" in changes:
        saved["epochs"] = saved["minutes"] = None
    return TrainingSettings(**(saved | changes))


def check_crops(config: ModelConfig, settings: TrainingSettings) -> None:
    """Raises UsageError if the network cannot take crops of these sizes."""
    stride = config.hyper_stride
    for _, side in settings.crops:
        if side < stride or side % stride:
            raise UsageError(f"crops of {side} pixels: the network {config.name!r} takes multiples of {stride}")


def run_epochs(trainer: Trainer, cache: ImageCache, report: RunReport) -> None:
    """Train to the end of the budget, with a report and a checkpoint after each epoch and on interruption."""
    settings, progress, ranks = trainer.settings, trainer.progress, trainer.ranks
    trainer.network = ranks.wrap(trainer.net)
    per_epoch = settings.epoch_steps(len(cache), ranks.world)
    total = settings.epochs * per_epoch if settings.epochs is not None else None
    began = time.monotonic() - progress.seconds

    def spent() -> float:
        if total is not None:
            return progress.step / total
        assert settings.minutes is not None
        return ranks.agree((time.monotonic() - began) / (60 * settings.minutes))

    def request(step: int) -> None:
        """Ask for the batch of a step to come. All ranks ask for the same, at the same step."""
        if total is None or step < total:
            batches.request(step, *settings.crop(min(1.0, step / total if total is not None else fraction)))

    fraction = spent()
    batches = Prefetcher(sampler_of(cache, settings, ranks.rank, ranks.world))
    for step in range(progress.step, progress.step + LOOK_AHEAD):
        request(step)
    in_a_row = 0
    with ranks.interruptions() as interrupted:
        try:
            while fraction < 1:
                began_at = progress.step
                with report.epoch(progress, per_epoch, total) as bar:
                    while fraction < 1 and not interrupted():
                        rate = settings.rate(progress.step, fraction, total)
                        losses = trainer.step(batches.next(), rate)
                        request(progress.step + LOOK_AHEAD - 1)
                        in_a_row = in_a_row + 1 if losses is None else 0
                        if in_a_row == GIVE_UP_AFTER:
                            raise TrainingError(
                                f"{GIVE_UP_AFTER} steps in a row had unusable gradients, last at step {progress.step}: "
                                "use --resume with a lower --learning-rate, or start again with one"
                            )
                        trainer.sums.add(losses)
                        progress.seconds = time.monotonic() - began
                        fraction = spent()
                        bar.advance(progress, trainer.sums)
                        if progress.step % per_epoch == 0:
                            break
                stopping = interrupted()
                if stopping:  # the checkpoint is that of all ranks, and so are the sums of the epoch it cuts
                    trainer.sums = Sums.of(trainer.sums.count, ranks.mean(trainer.sums.means()), ranks.device)
                if progress.step > began_at and (fraction >= 1 or progress.step % per_epoch == 0):
                    progress.epoch += 1
                    means, trainer.sums = ranks.mean(trainer.sums.means()), Sums()
                    if ranks.rank == 0:
                        report.finish_epoch(trainer.average, cache, progress, means, rate, fraction, settings.epochs)
                if ranks.rank == 0:
                    report.save(lambda: save_checkpoint(report.run, trainer.state()), must=stopping or fraction >= 1)
                if stopping:
                    raise KeyboardInterrupt(f"stopped at step {progress.step}; continue with --resume")
        except TrainingError:
            if ranks.rank == 0 and progress.step > 0:
                report.save(lambda: save_checkpoint(report.run, trainer.state()))
            raise
        finally:
            batches.close()


def export(net: VAE, cache: ImageCache, run: Path, seed: int) -> Path:
    """Write the weights that others load, for a codec with probability tables fitted to real images. Returns their path."""
    tables = calibrate(net, cache, seed) if net.config.is_codec else None
    return save_weights(net, tables, run)


def export_run(run: Path, folder: Source, *, cache_bytes: int = 4 << 30) -> Path:
    """Export the running average of the checkpoint in `run`, with tables fitted to the images below `folder`."""
    if not run.is_dir():
        raise UsageError(f"{run}: no such training run")
    saved = load_checkpoint(run)
    config = ModelConfig.from_json(saved["config"])
    net = VAE(config).eval()
    net.load_state_dict(saved["average"])
    return export(net, ImageCache.load(folder, config, cache_bytes, leave_out=run), run, saved["settings"]["seed"])
