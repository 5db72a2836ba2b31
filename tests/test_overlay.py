"""A call added to other sound: its band, its level, its place."""

import numpy as np
import pytest

from antpitta.sound.overlay import (
    add_call,
    background_level,
    bandpass_call,
    fade_call,
    overlay_gain,
)

RATE = 16_000


def tone(hertz, seconds=1.0, amplitude=1.0):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(
        "f4"
    )


def strength(wave):
    return float(np.sqrt(np.mean(np.square(wave[RATE // 4 : -RATE // 4]))))


@pytest.mark.parametrize(
    ("low", "high", "kept"),
    [
        (1800, 2200, [2000]),
        (1500, np.inf, [2000, 6000]),
        (0, 2500, [500, 2000]),
        (0, np.inf, [500, 2000, 6000]),
        (1500, RATE, [2000, 6000]),  # above the Nyquist frequency
    ],
)
def test_bandpass_keeps_the_band_of_the_call_only(low, high, kept):
    for hertz in (500, 2000, 6000):
        share = strength(bandpass_call(tone(hertz), RATE, low, high)) / strength(tone(hertz))
        assert share > 0.9 if hertz in kept else share < 0.02


def test_wave_shorter_than_the_filter_is_filtered():
    assert np.isfinite(bandpass_call(tone(2000, 0.001), RATE, 1800, 2200)).all()
    assert len(bandpass_call(tone(2000, 0.0001), RATE, 1800, 2200)) == 2


def test_short_calls_do_not_change_the_background_level():
    quiet = tone(1000, 10, 0.1)
    loud = quiet.copy()
    loud[RATE : 4 * RATE] += tone(1000, 3, 5)
    assert background_level(quiet, RATE) == pytest.approx(0.1 / np.sqrt(2), rel=0.01)
    assert background_level(loud, RATE) == pytest.approx(background_level(quiet, RATE), rel=0.01)


def test_level_of_a_wave_shorter_than_a_block_is_its_rms():
    assert background_level(np.full(3, 0.5, dtype="f4"), RATE) == pytest.approx(0.5)
    assert background_level(np.zeros(0, dtype="f4"), RATE) == 0


def test_call_keeps_its_level_above_the_background():
    assert overlay_gain(target_level=0.02, source_level=0.01, gain=0) == pytest.approx(2)
    assert overlay_gain(target_level=0.01, source_level=0.01, gain=6) == pytest.approx(
        1.995, rel=1e-3
    )


@pytest.mark.parametrize("levels", [(0.0, 0.1), (0.1, 0.0)])
def test_silent_background_leaves_the_call_as_loud_as_it_was(levels):
    assert overlay_gain(*levels, gain=0) == 1


def test_faded_call_is_unchanged_between_its_ramps():
    call = fade_call(np.ones(RATE, dtype="f4"), RATE)
    assert call[0] == 0
    assert call[-1] == 0
    assert (call[800:-800] == 1).all()
    assert (np.diff(call[:800]) > 0).all()
    assert (np.diff(call[-800:]) < 0).all()


@pytest.mark.parametrize(
    ("start", "expected"),
    [(1, [0, 1, 2, 0]), (-1, [2, 0, 0, 0]), (3, [0, 0, 0, 1]), (4, [0] * 4), (-2, [0] * 4)],
)
def test_call_outside_the_wave_is_dropped(start, expected):
    wave = np.zeros(4, dtype="f4")
    add_call(wave, np.array([1, 2], dtype="f4"), start)
    assert wave.tolist() == expected
