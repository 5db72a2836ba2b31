"""Template matching: correlation against two oracles, peaks, and what is one call."""

import numpy as np
import pytest

from antpitta.core.types import Annotation
from antpitta.search.matching import Peaks, Template, TemplateMatcher, find_peaks

rng = np.random.default_rng(7)


def template(pixels, name="t", label="wren", first_band=0):
    box = Annotation("a", 0.0, 1.0, label, low=100.0, high=200.0)
    return Template(name, box, np.asarray(pixels, dtype=np.uint8), first_band)


def spectrogram(frames=900, bands=40):
    """A picture with a loud slope over the bands, a call in it, and a silent end."""
    slope = np.linspace(180, 20, bands)
    pixels = np.clip(rng.normal(slope, 15, (frames, bands)), 0, 255).astype(np.uint8)
    pixels[300:360, 10:30] += rng.integers(0, 60, (60, 20)).astype(np.uint8)
    pixels[-100:] = 0
    return pixels


def plain_correlation(pixels, template):
    """Pearson's correlation at each position, by its definition."""
    part = pixels[:, template.bands].astype(float)
    windows = np.lib.stride_tricks.sliding_window_view(part, template.pixels.shape)[:, 0]
    windows = windows.reshape(len(windows), -1)
    deviations = windows - windows.mean(axis=1, keepdims=True)
    centred = (template.pixels - template.pixels.mean()).ravel()
    norms = np.linalg.norm(deviations, axis=1) * np.linalg.norm(centred)
    return np.where(norms > 0, deviations @ centred / np.where(norms > 0, norms, 1), 0)


@pytest.fixture(scope="module")
def scene():
    pixels = spectrogram()
    boxes = [(300, 360, 10, 30), (0, 7, 0, 40), (450, 700, 39, 40), (301, 340, 10, 30)]
    templates = [
        template(pixels[a:b, low:high], f"t{i}", f"species{i % 2}", low)
        for i, (a, b, low, high) in enumerate(boxes)
    ]
    return pixels, templates


def test_correlation_equals_its_definition(scene):
    pixels, templates = scene
    computed = dict(TemplateMatcher(templates).correlate(pixels))
    assert sorted(computed) == [0, 1, 2, 3]
    for i, correlation in computed.items():
        assert np.abs(correlation - plain_correlation(pixels, templates[i])).max() < 2e-6


def test_correlation_equals_that_of_opencv(scene):
    cv2 = pytest.importorskip("cv2", reason="needs opencv-python-headless")
    pixels, templates = scene
    for i, correlation in TemplateMatcher(templates).correlate(pixels):
        bands = templates[i].bands
        mean = pixels[:, bands].mean()  # OpenCV's float32 is accurate near 0 only
        image, part = (
            (array - mean).astype(np.float32) for array in (pixels[:, bands], templates[i].pixels)
        )
        oracle = cv2.matchTemplate(image, part, cv2.TM_CCOEFF_NORMED)[:, 0]
        loud = pixels[: len(oracle), bands].any(axis=1)  # of silence OpenCV makes 1, and we 0
        assert np.abs(oracle - correlation)[loud].max() < 1e-5


def test_template_in_its_own_picture_has_correlation_1_at_its_place(scene):
    pixels, templates = scene
    for i, correlation in TemplateMatcher(templates[:2]).correlate(pixels):
        assert correlation.argmax() == (300, 0)[i]
        assert correlation.max() == pytest.approx(1, abs=1e-6)


def test_gain_and_offset_of_the_picture_change_nothing(scene):
    pixels, templates = scene
    matcher = TemplateMatcher(templates[:1])
    ((_, plain),) = matcher.correlate(pixels // 3 * 2)
    ((_, shifted),) = matcher.correlate(pixels // 3 + np.uint8(100))
    assert np.abs(plain - shifted).max() < 2e-6


def test_constant_picture_and_longer_template_give_nothing(scene):
    _, templates = scene
    matcher = TemplateMatcher(templates)
    assert {i: c.any() for i, c in matcher.correlate(np.full((100, 40), 9, np.uint8))} == {
        0: False, 1: False, 3: False,
    }  # fmt: skip
    peaks, best = matcher.find(np.full((3, 40), 9, np.uint8), 0.2, 3)
    assert len(peaks.score) == 0
    assert best.tolist() == [0, 0]


def test_find_returns_each_call_once_and_the_best_of_each_species(scene):
    pixels, templates = scene
    matcher = TemplateMatcher([templates[i] for i in (0, 2, 3)])  # the third is in the first
    peaks, best = matcher.find(pixels, 0.9, 5)
    places = {(i, frame) for i, frame, _ in peaks.rows()}
    assert places == {(0, 300), (1, 450), (2, 301)}
    assert best == pytest.approx([1, 1], abs=1e-6)


def test_peaks_are_local_maxima_above_the_threshold():
    values = np.array([0.9, 0.1, 0.5, 0.5, 0.2, 0.3, 0.1, 0.8])
    assert find_peaks(values, 0.3).tolist() == [0, 2, 5, 7]
    assert find_peaks(values, 0.31).tolist() == [0, 2, 7]


@pytest.mark.parametrize(
    ("start", "kept"),  # of 12 frames; the better match spans frames 10 to 30
    [(4, [0, 1]), (5, [0]), (15, [0]), (23, [0]), (24, [0, 1])],
)
def test_matches_of_a_species_that_share_more_than_half_are_one_call(start, kept):
    calls = [template(rng.integers(0, 255, (length, 3)), f"t{length}") for length in (20, 12)]
    better = Peaks(np.array([0]), np.array([10]), np.array([0.9]))
    other = Peaks(np.array([1]), np.array([start]), np.array([0.8]))
    best = TemplateMatcher(calls).keep_best([other, better], 5)
    assert best.template.tolist() == kept


def test_most_limits_the_matches_of_each_species():
    calls = [template(rng.integers(0, 255, (5, 3)), name, name) for name in ("a", "b")]
    frames = np.arange(0, 100, 10)
    peaks = [Peaks(np.full(10, i), frames, np.linspace(0.3, 0.9, 10)) for i in (0, 1)]
    best = TemplateMatcher(calls).keep_best(peaks, 2)
    assert list(best.rows()) == [
        (0, 90, 0.9), (1, 90, 0.9), (0, 80, pytest.approx(5 / 6)), (1, 80, pytest.approx(5 / 6)),
    ]  # fmt: skip
