"""Pictures and sound of regions, both cut from one range of samples.

:func:`cut_region` decides the range; the two pictures and the sound take it from there, so what is
seen is what is played. There are two views:

- ``full`` is a Fourier transform at the recording's own rate, up to its Nyquist frequency:
  ultrasound is visible. The length of the transform follows from the width of a pixel.
- ``model`` is what the network reads: its mel bands, scaled over its whole segment.

Loud is dark. The axes are part of the picture, and its place inside them is fixed, so that a page
can lay a box over it: :class:`RegionImage` has the limits of both axes.
"""

import io
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import soundfile as sf
import soxr
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import fft

from antpitta.core.config import Recipe
from antpitta.core.types import Recording
from antpitta.files.audio import UnreadableAudio, read_samples
from antpitta.files.spectrograms import read_training_input
from antpitta.model.features import build_feature_extractor
from antpitta.sound.filters import bandpass
from antpitta.sound.mel import hz_to_mel

View = Literal["model", "full"]
Pixels = NDArray[np.uint8]  # (rows, columns), the first row is the highest frequency
Floats = NDArray[np.float32]

MAX_SECONDS = 60.0  # of a cut; a longer region is shown from its beginning
MAX_SAMPLES = 1 << 24  # of a cut, at rates of ultrasound
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 6, 20  # pixels around the spectrogram, for its axes
MIN_WIDTH, MAX_WIDTH, MIN_HEIGHT, MAX_HEIGHT = 120, 1600, 90, 900  # pixels at scale 1
_MIN_FFT, _MAX_FFT = 128, 4096  # samples
_SHOWN_RANGE = (20.0, 99.8)  # percentiles of decibels that become white and black
_MIN_RANGE = 25.0  # dB, so that silence is not shown as loud noise
_MIN_PLAYED_RATE = 8000  # Hz: browsers may refuse less
_CACHED_SEGMENTS = 48
_ROUND_HZ = np.sort((np.array([1, 2, 5])[:, None] * 10.0 ** np.arange(1, 7)).ravel())


@dataclass(frozen=True)
class Cut:
    """A range of samples of a recording, half-open."""

    recording: Recording
    first: int
    last: int

    @property
    def start(self) -> float:
        """Seconds from the start of the recording."""
        return self.first / self.recording.sample_rate

    @property
    def stop(self) -> float:
        """Seconds from the start of the recording."""
        return self.last / self.recording.sample_rate


@dataclass(frozen=True)
class ImageSize:
    """The size of a picture in pixels of a page, and how many pixels of a screen each has."""

    width: int = 480
    height: int = 240
    scale: int = 1

    @property
    def columns(self) -> int:
        """Pixels of the spectrogram along time."""
        return (self.width - LEFT - RIGHT) * self.scale

    @property
    def rows(self) -> int:
        """Pixels of the spectrogram along frequency."""
        return (self.height - TOP - BOTTOM) * self.scale


@dataclass(frozen=True)
class RegionImage:
    """A picture as PNG, and the limits of its axes: seconds of the recording and Hz."""

    png: bytes
    start: float
    stop: float
    low: float
    high: float
    mel: bool  # whether the axis of frequency is a mel scale, not a linear one


def cut_region(recording: Recording, start: float, stop: float, margin: float) -> Cut:
    """The samples around a region.

    Parameters
    ----------
    recording : that the region is in
    start, stop : seconds, of the region
    margin : seconds before and after it, as far as the recording has them

    Returns
    -------
    cut : at most :data:`MAX_SECONDS` and :data:`MAX_SAMPLES` long

    Raises
    ------
    UnreadableAudio
        The region begins after the end of the recording.
    """
    rate = recording.sample_rate
    first = max(0, math.floor((start - margin) * rate))
    last = min(recording.samples, math.ceil((stop + margin) * rate))
    last = min(last, first + MAX_SAMPLES, first + round(MAX_SECONDS * rate))
    if last <= first or start >= recording.duration:
        raise UnreadableAudio(
            f"{recording.path}: is {recording.duration:.2f} s long, and the region begins at "
            f"{start:.2f} s"
        )
    return Cut(recording, first, last)


class RegionPainter:
    """Draws regions; threads may share one object.

    Parameters
    ----------
    recipe : of the model whose input the view ``model`` shows. Where its network reads embeddings,
        the mel bands of its report's pictures are shown.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.config = recipe.features
        self._extractor = build_feature_extractor(recipe.model_copy(update={"embedding": None}))
        self._segment = lru_cache(_CACHED_SEGMENTS)(self._extract)

    def _extract(self, recording: Recording, start: float, stop: float) -> Pixels:
        segment = self._extractor.extract_segment(recording, start, stop, read_training_input)
        return np.asarray(segment, dtype=np.uint8)

    def draw(self, cut: Cut, view: View, size: ImageSize) -> RegionImage:
        """Draw a cut, with axes.

        Parameters
        ----------
        cut : what is shown
        view : ``model`` or ``full``
        size : of the picture

        Returns
        -------
        image : grey, loud is dark
        """
        if view == "model":
            pixels = self._model_pixels(cut, size)
            low, high = self.config.fmin, self.config.fmax
        else:
            pixels = _full_pixels(cut, size)
            low, high = 0.0, cut.recording.sample_rate / 2
        limits = (cut.start, cut.stop, low, high)
        png = _with_axes(pixels, limits, size, mel=view == "model")
        return RegionImage(png, *limits, mel=view == "model")

    def _model_pixels(self, cut: Cut, size: ImageSize) -> Pixels:
        """The columns of the segments that the cut is in."""
        times = np.linspace(cut.start, cut.stop, size.columns + 1)
        columns = np.zeros((size.columns, self.config.n_mels), dtype=np.uint8)
        for start, stop in self.config.segments(cut.recording.duration):
            inside = (times[:-1] >= start) & (times[:-1] < stop)
            if inside.any():
                grid = self.config.time_grid(start, stop)
                frames = self._segment(cut.recording, start, stop)
                edges = (times[:-1][inside] - start) / grid.hop
                step = (cut.stop - cut.start) / size.columns / grid.hop
                columns[inside] = _resample(frames, edges, step)
        rows = np.linspace(0, self.config.n_mels, size.rows + 1)[:-1]
        return 255 - _resample(columns.T, rows, self.config.n_mels / size.rows)[::-1]


def cut_sound(cut: Cut, band: tuple[float, float] | None = None, slow: int = 1) -> bytes:
    """The sound of a cut as a WAV file of 16 bit.

    Without a band and at ``slow=1`` its samples are those of the file.

    Parameters
    ----------
    cut : what is played
    band : Hz, the rest is filtered out; None for all of it
    slow : how many times slower it is played, and lower by the same factor

    Returns
    -------
    wav : the content of the file
    """
    wave = read_samples(cut.recording, cut.first, cut.last)
    if band is not None:
        edge = (band[1] - band[0]) / 8  # a tenth of the wider band: the filter's edges lie outside
        wave = bandpass(wave, band[0] - edge, band[1] + edge, cut.recording.sample_rate)
    rate = max(1, round(cut.recording.sample_rate / slow))
    if rate < _MIN_PLAYED_RATE:
        wave = soxr.resample(wave, rate, _MIN_PLAYED_RATE, quality="HQ")
        rate = _MIN_PLAYED_RATE
    file = io.BytesIO()
    sf.write(file, np.clip(wave, -1, 1), rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _full_pixels(cut: Cut, size: ImageSize) -> Pixels:
    """The power of the cut, each pixel the loudest of what it covers."""
    wave = read_samples(cut.recording, cut.first, cut.last)
    per_column = len(wave) / size.columns
    n_fft = 2 ** round(math.log2(max(2 * per_column, 1)))
    n_fft = min(max(n_fft, _MIN_FFT), _MAX_FFT)
    hop = max(1, min(int(per_column), n_fft // 2))
    edge = n_fft // 2
    padded = np.pad(wave, edge, mode="reflect") if len(wave) > edge else np.pad(wave, edge)
    frames = sliding_window_view(padded, n_fft)[::hop]
    window = np.hanning(n_fft).astype(np.float32)
    rows = np.linspace(0, n_fft // 2 + 1, size.rows + 1)[:-1]
    parts = []
    for first in range(0, len(frames), 256):  # blocks that stay in the cache of the processor
        spectrum = fft.rfft(frames[first : first + 256] * window, axis=1)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        parts.append(_resample(power.T, rows, (n_fft // 2 + 1) / size.rows).T)
    power = np.concatenate(parts)
    columns = np.arange(size.columns) * per_column / hop
    power = _resample(power, columns, per_column / hop)
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    floor, ceiling = np.percentile(decibels, _SHOWN_RANGE)
    ceiling = max(ceiling, floor + _MIN_RANGE)
    grey = 255 - 255 * np.clip((decibels - floor) / (ceiling - floor), 0, 1)
    return np.asarray(grey.astype(np.uint8).T[::-1])


def _resample(rows: NDArray[Any], starts: NDArray[np.float64], step: float) -> NDArray[Any]:
    """The greatest of the rows from each start on for a step; one row where that is less."""
    if step <= 1:
        return rows[np.clip((starts + step / 2).astype(np.intp), 0, len(rows) - 1)]
    first = np.clip(starts.astype(np.intp), 0, len(rows) - 1)
    end = min(len(rows), math.ceil(float(starts[-1]) + step)) if len(starts) else 0
    return np.asarray(np.maximum.reduceat(rows[: max(end, first[-1] + 1)], first, axis=0))


def _with_axes(
    pixels: Pixels, limits: tuple[float, float, float, float], size: ImageSize, *, mel: bool
) -> bytes:
    """The spectrogram with its axes of seconds and kHz, as PNG."""
    start, stop, low, high = limits
    scale, (rows, columns) = size.scale, pixels.shape
    left, top = LEFT * scale, TOP * scale
    canvas = Image.new("L", (size.width * scale, size.height * scale), 255)
    canvas.paste(Image.fromarray(pixels), (left, top))
    draw, font = ImageDraw.Draw(canvas), _font(11 * scale)
    ink, mark_length = 70, 4 * scale
    draw.rectangle((left - 1, top - 1, left + columns, top + rows), outline=ink)
    for time in _round_steps(start, stop, max(2, columns // (70 * scale))):
        x = left + (time - start) / (stop - start) * columns
        draw.line((x, top + rows, x, top + rows + mark_length), fill=ink)
        if 12 * scale < x - left < columns - 16 * scale:  # beside the units
            draw.text((x, top + rows + mark_length), format_time(time), ink, font, anchor="ma")
    for hz, place in _frequency_marks(low, high, rows / (18 * scale), mel=mel):
        y = top + (1 - place) * rows
        draw.line((left - mark_length, y, left - 1, y), fill=ink)
        draw.text((left - mark_length - 2, y), f"{hz / 1000:g}", ink, font, anchor="rm")
    draw.text((2 * scale, top + rows + mark_length), "kHz", ink, font, anchor="la")
    draw.text((left + columns, top + rows + mark_length), "s", ink, font, anchor="ra")
    file = io.BytesIO()
    canvas.save(file, "png", compress_level=1)
    return file.getvalue()


@lru_cache(8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def format_time(seconds: float) -> str:
    """A time in a recording: seconds, from the first minute on with minutes and hours.

    Parameters
    ----------
    seconds : from the start of the recording

    Returns
    -------
    text : such as ``7.5``, ``2:07.5`` or ``1:02:07.5``
    """
    rest = f"{round(seconds % 60, 3):g}"
    whole, _, decimals = rest.partition(".")
    if seconds < 60:
        return rest
    hours, minutes = divmod(int(seconds) // 60, 60)
    rest = f"{whole:0>2}{'.' if decimals else ''}{decimals}"
    return f"{hours}:{minutes:02}:{rest}" if hours else f"{minutes}:{rest}"


def _round_steps(start: float, stop: float, most: int) -> list[float]:
    """Round values between two others, at most so many."""
    least = (stop - start) / most
    base = 10.0 ** math.floor(math.log10(least))
    step = next(base * factor for factor in (1, 2, 5, 10) if base * factor >= least)
    first, last = math.ceil(start / step - 1e-9), math.floor(stop / step + 1e-9)
    return [round(i * step, 6) for i in range(first, last + 1)]


def _frequency_marks(
    low: float, high: float, most: float, *, mel: bool
) -> list[tuple[float, float]]:
    """Round frequencies and their places on the axis, from 0 to 1."""
    if not mel:
        steps = _round_steps(low, high, max(2, int(most)))
        return [(hz, (hz - low) / (high - low)) for hz in steps]
    bottom, top = hz_to_mel(np.array([low, high]))
    marks: list[tuple[float, float]] = []
    for hz in reversed(_ROUND_HZ[(low <= _ROUND_HZ) & (high >= _ROUND_HZ)].tolist()):
        place = float((hz_to_mel(np.array([hz]))[0] - bottom) / (top - bottom))
        if not marks or marks[-1][1] - place >= 1 / most:  # low ones are dense on a mel axis
            marks.append((hz, place))
    return marks
