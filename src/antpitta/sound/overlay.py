"""A validated call, laid over other sound.

A call is taken with its own band only, so that little of its surroundings comes along, and set as
far above its new background as it stood above its old one, give or take ``gain``. The steady level
of a band is that of its median tenth of a second: calls are short, and do not move it.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

Wave = NDArray[np.float32]

ORDER = 4
BELOW, ABOVE = 0.8, 1.2  # the band is widened so far, as boxes are drawn tightly
BLOCK = 0.1  # seconds
FADE = 0.05  # seconds, and never more than an eighth of the call
SILENCE = 1e-7  # a level below is no background to stand above of


def bandpass_call(wave: Wave, sample_rate: int, low: float, high: float) -> Wave:
    """The wave (samples,) between ``low`` and ``high`` Hz, a little widened, phase kept.

    An edge at or beyond what the rate can carry is no edge.
    """
    nyquist = sample_rate / 2
    least, most = low * BELOW, high * ABOVE
    if least > 0 and most < nyquist:
        shape = butter(ORDER, [least, most], "bandpass", fs=sample_rate, output="sos")
    elif 0 < least < nyquist:
        shape = butter(ORDER, least, "highpass", fs=sample_rate, output="sos")
    elif most < nyquist:
        shape = butter(ORDER, most, "lowpass", fs=sample_rate, output="sos")
    else:
        return wave
    reach = min(3 * (2 * len(shape) + 1), len(wave) - 1)  # sosfiltfilt's own, where there is room
    found: Wave = sosfiltfilt(shape, wave, padlen=max(0, reach)).astype(np.float32)
    return found


def steady_level(wave: Wave, sample_rate: int) -> float:
    """The root mean square of the wave's median tenth of a second."""
    block = max(1, round(BLOCK * sample_rate))
    if len(wave) < block:
        return float(np.sqrt(np.mean(np.square(wave)))) if len(wave) else 0.0
    blocks = wave[: len(wave) // block * block].reshape(-1, block)
    return float(np.sqrt(np.median(np.square(blocks).mean(axis=1))))


def fade_call(call: Wave, sample_rate: int) -> Wave:
    """The call with a short rise at its start and fall at its end."""
    size = min(len(call) // 8, round(FADE * sample_rate))
    shape = np.ones(len(call), dtype=np.float32)
    shape[:size] = np.linspace(0, 1, size, endpoint=False)
    shape[len(call) - size :] = np.linspace(1, 0, size)
    return call * shape


def overlay_gain(here: float, there: float, gain: float) -> float:
    """By what a call from a background of level ``there`` is multiplied for one of ``here``.

    ``gain`` is in dB. A silent background on either side leaves the call as loud as it was.
    """
    ratio = here / there if min(here, there) > SILENCE else 1.0
    return float(ratio * 10 ** (gain / 20))


def add_call(wave: Wave, call: Wave, at: int) -> None:
    """Add the call to the wave in place from sample ``at``; what lies outside falls off."""
    first, last = max(at, 0), min(at + len(call), len(wave))
    if first < last:
        wave[first:last] += call[first - at : last - at]
