"""The latent space of files, each of which has a quality of its own."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ..model.space import Latents, LatentSpace


class FileSpace(LatentSpace):
    """`at` gives it for a batch of rows of different qualities; without it, it is a LatentSpace of one."""

    rows: Tensor | None = None

    def at(self, quality: Tensor) -> FileSpace:
        """quality: (B,) in 0..1, on the device."""
        one = copy.copy(self)
        one.rows = quality
        return one

    def _quality(self, count: int) -> Tensor:
        return super()._quality(count) if self.rows is None else self.rows.expand(count)

    @torch.inference_mode()
    def coarsest_step(self) -> Tensor:
        """(B, M, 1, 1): as of LatentSpace, for each row."""
        here = self._quality(1 if self.rows is None else len(self.rows))
        return self.vae.gain_y(here) / self.vae.gain_y(torch.zeros_like(here))

    @torch.inference_mode()
    def from_symbols(self, z: Tensor, residuals: Tensor) -> Latents:
        """What a file's whole numbers stand for: z (B, Z, h/4, w/4) and residuals (B, M, h, w), of one tile each."""
        z, residuals = (x.float().contiguous(memory_format=torch.channels_last) for x in (z, residuals))
        with self._autocast():
            prediction, mask = self._first(z)
            mean = self.vae.refine(prediction, residuals * mask, mask)
        return Latents(mean + residuals, z)

    @torch.inference_mode()
    def rescaling_to(self, quality: float) -> Tensor:
        """(B, M, 1, 1): what makes of y, in the steps of each row, y in those of `quality`, 0..100."""
        there = torch.full_like(self._quality(1 if self.rows is None else len(self.rows)), quality / 100)
        return self.vae.gain_y(there) / self.vae.gain_y(self._quality(len(there)))
