"""A validated call, added to other sound.

Only the call's own frequency band is taken, so that little of its surroundings comes along. It
is set as far above its new background as it was above its old one, plus ``gain``. The level of a
background is that of its median tenth of a second: calls are short and do not change it.
"""

import numpy as np
from numpy.typing import NDArray

from antpitta.sound.filters import bandpass, fade

Wave = NDArray[np.float32]

ORDER = 4
WIDEN_LOW, WIDEN_HIGH = 0.8, 1.2  # boxes are drawn tightly, so the band is widened
BLOCK = 0.1  # seconds
FADE = 0.05  # seconds, but at most an eighth of the call
SILENCE = 1e-7  # RMS; below it there is no background to compare with


def bandpass_call(wave: Wave, sample_rate: int, low: float, high: float) -> Wave:
    """The wave (samples,) between ``low`` and ``high`` Hz, a little widened.

    Parameters
    ----------
    wave : (samples,)
    sample_rate : Hz
    low : Hz, of the box
    high : Hz, of the box

    Returns
    -------
    wave : (samples,)
    """
    return bandpass(wave, low * WIDEN_LOW, high * WIDEN_HIGH, sample_rate, order=ORDER)


def fade_call(call: Wave, sample_rate: int) -> Wave:
    """The call (samples,) with a short rise at its start and a short fall at its end.

    Parameters
    ----------
    call : (samples,)
    sample_rate : Hz

    Returns
    -------
    call : (samples,)
    """
    return fade(call, min(len(call) // 8, round(FADE * sample_rate)), linear=True)


def background_level(wave: Wave, sample_rate: int) -> float:
    """The RMS of the median tenth of a second of a wave (samples,).

    Parameters
    ----------
    wave : (samples,)
    sample_rate : Hz

    Returns
    -------
    level : RMS
    """
    block = max(1, round(BLOCK * sample_rate))
    if len(wave) < block:
        return float(np.sqrt(np.mean(np.square(wave)))) if len(wave) else 0.0
    blocks = wave[: len(wave) // block * block].reshape(-1, block)
    return float(np.sqrt(np.median(np.square(blocks).mean(axis=1))))


def overlay_gain(target_level: float, source_level: float, gain: float) -> float:
    """The factor that a call is multiplied by.

    Parameters
    ----------
    target_level, source_level : RMS of the background that the call is added to, and of the one
        that it comes from; where either is silent, the call stays as loud as it was
    gain : dB

    Returns
    -------
    factor : of amplitude
    """
    audible = min(target_level, source_level) > SILENCE
    ratio = target_level / source_level if audible else 1.0
    return float(ratio * 10 ** (gain / 20))


def add_call(wave: Wave, call: Wave, start: int) -> None:
    """Add the call to the wave in place from sample ``start``; what lies outside is dropped.

    Parameters
    ----------
    wave : (samples,), changed in place
    call : (samples of the call,)
    start : sample of the wave, which may lie outside
    """
    first, last = max(start, 0), min(start + len(call), len(wave))
    if first < last:
        wave[first:last] += call[first - start : last - start]
