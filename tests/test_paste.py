"""A call laid over other sound: its band, its level, its place."""

import numpy as np
import pytest

from antpitta.sound.overlay import add_call, bandpass_call, fade_call, overlay_gain, steady_level

RATE = 16_000


def tone(hertz, seconds=1.0, loud=1.0):
    return (loud * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype("f4")


def strength(wave):
    return float(np.sqrt(np.mean(np.square(wave[RATE // 4 : -RATE // 4]))))


@pytest.mark.parametrize(
    ("low", "high", "kept"),
    [
        (1800, 2200, [2000]),
        (1500, np.inf, [2000, 6000]),
        (0, 2500, [500, 2000]),
        (0, np.inf, [500, 2000, 6000]),
        (1500, RATE, [2000, 6000]),  # a band that reaches beyond what the rate carries
    ],
)
def test_only_the_calls_own_band_is_taken(low, high, kept):
    for hertz in (500, 2000, 6000):
        found = strength(bandpass_call(tone(hertz), RATE, low, high)) / strength(tone(hertz))
        assert found > 0.9 if hertz in kept else found < 0.02


def test_a_stretch_shorter_than_the_filter_is_filtered_all_the_same():
    assert np.isfinite(bandpass_call(tone(2000, 0.001), RATE, 1800, 2200)).all()
    assert len(bandpass_call(tone(2000, 0.0001), RATE, 1800, 2200)) == 2


def test_short_calls_do_not_move_the_steady_level():
    quiet = tone(1000, 10, 0.1)
    loud = quiet.copy()
    loud[RATE : 4 * RATE] += tone(1000, 3, 5)
    assert steady_level(quiet, RATE) == pytest.approx(0.1 / np.sqrt(2), rel=0.01)
    assert steady_level(loud, RATE) == pytest.approx(steady_level(quiet, RATE), rel=0.01)


def test_the_level_of_almost_nothing_is_its_own_and_of_nothing_is_none():
    assert steady_level(np.full(3, 0.5, dtype="f4"), RATE) == pytest.approx(0.5)
    assert steady_level(np.zeros(0, dtype="f4"), RATE) == 0


def test_a_call_keeps_its_height_above_the_background():
    assert overlay_gain(here=0.02, there=0.01, gain=0) == pytest.approx(2)
    assert overlay_gain(here=0.01, there=0.01, gain=6) == pytest.approx(1.995, rel=1e-3)


@pytest.mark.parametrize("levels", [(0.0, 0.1), (0.1, 0.0)])
def test_beside_silence_a_call_stays_as_loud_as_it_was(levels):
    assert overlay_gain(*levels, gain=0) == 1


def test_a_call_rises_and_falls_and_is_whole_between():
    call = fade_call(np.ones(RATE, dtype="f4"), RATE)
    assert call[0] == 0
    assert call[-1] == 0
    assert (call[800:-800] == 1).all()
    assert (np.diff(call[:800]) > 0).all()
    assert (np.diff(call[-800:]) < 0).all()


@pytest.mark.parametrize(
    ("at", "expected"),
    [(1, [0, 1, 2, 0]), (-1, [2, 0, 0, 0]), (3, [0, 0, 0, 1]), (4, [0] * 4), (-2, [0] * 4)],
)
def test_what_lies_outside_the_wave_falls_off(at, expected):
    wave = np.zeros(4, dtype="f4")
    add_call(wave, np.array([1, 2], dtype="f4"), at)
    assert wave.tolist() == expected
