"""The picture of one labelled box: a spectrogram with the box.

The spectrogram is grey on white, so that colour is free for the box: blue and solid where the
species is present, orange and dashed where it is absent. The picture keeps the spacing of the mel
bands and marks the kHz on it.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from antpitta.report.canvas import (
    ABSENT,
    INK,
    MUTED,
    PRESENT,
    ImageFormat,
    new_figure,
    save,
    shorten,
    styled,
)
from antpitta.report.results import Example

FRAMES = 420  # columns of a picture at most: about two for each pixel on the page
ROUND_HZ = np.array([1, 2, 5]) * 10.0 ** np.arange(0, 7)[:, np.newaxis]  # (decades, 3)


def draw_example(example: Example, form: ImageFormat = "svg") -> bytes:
    """Draw the sound around a box, the box, its label and its score.

    Parameters
    ----------
    example
        The box and its sound.
    form
        ``"svg"`` or ``"png"``.

    Returns
    -------
    bytes
        The picture.
    """
    with styled():
        figure = new_figure(2.25, width=3.7)
        axes = figure.add_subplot()
        _draw_sound(axes, example)
        _draw_box(axes, example)
        colour = PRESENT if example.present else ABSENT
        verdict = "labelled present" if example.present else "labelled absent"
        axes.annotate(shorten(example.species, 44), (0, 1), xycoords="axes fraction",
                      xytext=(0, 15), textcoords="offset points", fontweight="bold",
                      fontsize=8.5, color=INK)  # fmt: skip
        axes.annotate(f"score {example.score:.2f}, {verdict}", (0, 1), xycoords="axes fraction",
                      xytext=(0, 4), textcoords="offset points", fontsize=8,
                      color=colour)  # fmt: skip
        return save(figure, form)


def _draw_sound(axes: Axes, example: Example) -> None:
    spectrogram = thin_frames(np.asarray(example.spectrogram, dtype=float), FRAMES)
    finite = spectrogram[np.isfinite(spectrogram)]
    floor, ceiling = np.percentile(finite, (10, 99.7)) if finite.size else (0.0, 1.0)
    axes.imshow(
        np.nan_to_num(spectrogram, nan=floor, posinf=ceiling, neginf=floor).T,
        aspect="auto",
        origin="lower",
        cmap="gray_r",
        vmin=floor,
        vmax=max(ceiling, floor + 1e-9),
        interpolation="none",
        extent=(example.image_start, example.image_stop, -0.5, len(example.frequencies) - 0.5),
    )
    rows, labels = mark_frequencies(np.asarray(example.frequencies, dtype=float))
    axes.set_yticks(rows, labels)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set(xlabel="time in the recording / s", ylabel="frequency / kHz")
    axes.tick_params(labelcolor=MUTED, labelsize=7.5)


def thin_frames(spectrogram: np.ndarray, most: int) -> np.ndarray:
    """Reduce an image (frames, bands) to at most ``most`` frames by the maximum: a click stays.

    Parameters
    ----------
    spectrogram : (frames, bands)
    most : frames at most

    Returns
    -------
    ndarray
        (frames, bands), with at most ``most`` frames.
    """
    size = -(-len(spectrogram) // most)
    return np.maximum.reduceat(spectrogram, np.arange(0, len(spectrogram), size), axis=0)


def mark_frequencies(frequencies: np.ndarray, most: int = 7) -> tuple[np.ndarray, list[str]]:
    """Find round frequencies among the bands.

    Parameters
    ----------
    frequencies
        (bands,), Hz, rising.
    most
        Marks at most.

    Returns
    -------
    rows : (marks,)
        Positions among the bands, the lowest first.
    labels : list of str
        The frequencies in kHz.
    """
    inside = np.sort(ROUND_HZ.ravel())  # Hz
    inside = inside[(inside >= frequencies[0]) & (inside <= frequencies[-1])]
    rows = np.interp(inside, frequencies, np.arange(len(frequencies)))
    kept: list[int] = []
    for mark in range(len(rows) - 1, -1, -1):  # from the top: low ones are dense on a mel axis
        if not kept or rows[kept[-1]] - rows[mark] >= len(frequencies) / most:
            kept.append(mark)
    kept.reverse()
    return rows[kept], [f"{inside[mark] / 1000:g}" for mark in kept]


def find_rows(frequencies: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The first and the last row of the image for a band from ``low`` to ``high`` Hz.

    Parameters
    ----------
    frequencies : (bands,), Hz, rising
    low, high : Hz

    Returns
    -------
    tuple of float
        Positions among the bands; they differ, even if the band is outside the image.
    """
    bands = len(frequencies)
    ends = np.interp([low, high], frequencies, np.arange(bands), left=-0.5, right=bands - 0.5)
    bottom, top = float(ends[0]), float(ends[1])
    return (bottom, top) if top > bottom else (bottom - 0.5, bottom + 0.5)


def _draw_box(axes: Axes, example: Example) -> None:
    bottom, top = find_rows(np.asarray(example.frequencies, float), example.low, example.high)
    axes.add_patch(
        Rectangle(
            (example.start, bottom),
            example.stop - example.start,
            top - bottom,
            fill=False,
            linewidth=1.6,
            edgecolor=PRESENT if example.present else ABSENT,
            linestyle="-" if example.present else (0, (4, 2)),
        )
    )
