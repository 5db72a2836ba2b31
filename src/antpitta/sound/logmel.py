"""Sound to picture: the log-mel spectrogram, as a torch module.

Decisions: frames are centred and the signal is reflected at its ends (60 s at 32 kHz, hop 512:
3751 frames); the mel scale and the triangles are Slaney's, each of equal area, as librosa draws
them by default; power becomes dB relative to the loudest cell, and what lies more than ``range``
below it is cut off. An image is standardised and then stretched from its least to its greatest
value over 0..255, so a recorder's gain drops out, and so does a microphone's slope only if the
network learns to look past it.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from antpitta.core.drawings import Front

LINEAR_HZ = 200 / 3  # Hz per mel, below the break
BREAK_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27  # per mel, above the break
FRAMES = 128  # transformed at once


def hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's mel scale (Auditory Toolbox, 1998): linear to 1 kHz, logarithmic above."""
    above = BREAK_HZ / LINEAR_HZ + np.log(np.maximum(hz, BREAK_HZ) / BREAK_HZ) / LOG_STEP
    return np.where(hz < BREAK_HZ, hz / LINEAR_HZ, above)


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of :func:`hz_to_mel`."""
    at_break = BREAK_HZ / LINEAR_HZ
    return np.where(mel < at_break, mel * LINEAR_HZ, BREAK_HZ * np.exp(LOG_STEP * (mel - at_break)))


def band_edges(front: Front) -> NDArray[np.float64]:
    """The corners of the triangles, in Hz: band ``i`` rises from edge i to i+1, falls to i+2."""
    low, high = hz_to_mel(np.array([front.low, front.high]))
    return mel_to_hz(np.linspace(low, high, front.bands + 2))


def mel_matrix(front: Front) -> NDArray[np.float64]:
    """The triangles: (bands, n_fft / 2 + 1), each of area 1 over Hz."""
    edges = band_edges(front)
    bins = np.linspace(0, front.sample_rate / 2, front.n_fft // 2 + 1)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))[:, None]


class LogMel(nn.Module):
    """Waves (batch, samples) to decibels (batch, frames, bands)."""

    window: Tensor
    mel: Tensor

    def __init__(self, front: Front) -> None:
        super().__init__()
        self.front = front
        self.register_buffer("window", torch.hann_window(front.n_fft), persistent=False)
        matrix = torch.from_numpy(mel_matrix(front).T.astype(np.float32))
        self.register_buffer("mel", matrix, persistent=False)

    def forward(self, waves: Tensor) -> Tensor:
        front = self.front
        pad = front.n_fft // 2
        mode = "reflect" if waves.shape[-1] > pad else "constant"  # too short to be reflected
        padded = nn.functional.pad(waves[:, None], (pad, pad), mode=mode)[:, 0]
        frames = padded.unfold(-1, front.n_fft, front.hop)  # (batch, frames, n_fft)
        # Some frames at a time stay in the processor's cache: three times faster than all at once.
        power = torch.cat([self._power(some) for some in torch.split(frames, FRAMES, dim=1)], dim=1)
        decibels = 10 * torch.log10(power.clamp_min(1e-10))
        loudest = decibels.amax(dim=(1, 2), keepdim=True)
        return torch.maximum(decibels, loudest - front.range)

    def _power(self, frames: Tensor) -> Tensor:
        parts = torch.view_as_real(torch.fft.rfft(frames * self.window)).square_()
        return (parts[..., 0] + parts[..., 1]) @ self.mel  # (batch, frames, bands)


def to_bytes(decibels: Tensor) -> Tensor:
    """Standardise and stretch each image over 0..255, as uint8; a silent image is all 0.

    The standardising drops out of the stretching, exactly; what is left is the stretch.
    """
    least = decibels.amin(dim=(1, 2), keepdim=True)
    span = decibels.amax(dim=(1, 2), keepdim=True) - least
    scaled = (decibels - least) / span.clamp_min(1e-6) * 255
    return torch.where(span > 1e-6, scaled, torch.zeros_like(scaled)).to(torch.uint8)


def picture(wave: NDArray[np.float32], mel: LogMel) -> NDArray[np.uint8]:
    """One image of a wave (samples,) at the front's rate: (frames, bands)."""
    with torch.inference_mode():
        found: NDArray[np.uint8] = to_bytes(mel(torch.from_numpy(wave)[None]))[0].cpu().numpy()
    return found
