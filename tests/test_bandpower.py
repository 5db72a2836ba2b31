"""Power in bands: what is compiled says what SciPy says, and is asked only for what it can do."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from antpitta.core.features import MelConfig
from antpitta.sound import compiled
from antpitta.sound.compiled import Compiled, library, owners_of, passes_of
from antpitta.sound.mel import BandPowerTransform, LogMel, band_power, mel_features, mel_matrix

needs_compiler = pytest.mark.skipif(
    library() is None, reason="there was no C compiler when antpitta was installed"
)


def triangles(n, bands=12):
    return mel_matrix(MelConfig(n_fft=n, hop=n, bands=bands)).astype(np.float32)


def window(n):
    return (0.54 - 0.46 * np.cos(2 * np.pi * np.arange(n) / n)).astype(np.float32)


def found_by(power, wave, frames, bands=12):
    out = np.full((frames, bands), np.nan, dtype=np.float32)
    power(wave, out)
    return out


def noise(samples, seed=0):
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


@needs_compiler
@pytest.mark.parametrize("frames", [1, 15, 16, 17, 50])
@pytest.mark.parametrize(
    ("n", "hop"),
    [
        *[(64, 16), (96, 32), (128, 2), (192, 192), (256, 128), (288, 48), (1024, 256)],
        *[(1536, 384), (2048, 512), (3072, 768), (4096, 1024), (6144, 512), (18432, 6144)],
    ],
)
def test_every_length_says_what_scipy_says(n, hop, frames):
    given = (window(n), hop, triangles(n))
    power = Compiled.of(*given)
    assert power is not None
    wave = noise((frames - 1) * hop + n)
    wanted = found_by(BandPowerTransform(*given), wave, frames)
    np.testing.assert_allclose(found_by(power, wave, frames), wanted, rtol=2e-5)


@needs_compiler
def test_a_tone_stands_in_its_bin_and_nowhere_else():
    n = 384
    bins = np.eye(n // 2 + 1, dtype=np.float32)  # every bin a band of its own
    power = Compiled.of(np.ones(n, dtype=np.float32), n, bins)
    for k in (0, 1, 5, 95, 96, 97, 191, 192):
        tone = np.cos(2 * np.pi * k * np.arange(n) / n).astype(np.float32)
        [found] = found_by(power, tone, 1, n // 2 + 1)
        assert found[k] == pytest.approx(n**2 / (1 if k in (0, n // 2) else 4), rel=1e-5)
        assert np.delete(found, k).max() < 1e-8 * found[k]


@needs_compiler
def test_a_frame_hears_nothing_of_others():
    n, hop = 256, 64
    power = Compiled.of(window(n), hop, triangles(n))
    wave = noise(39 * hop + n)
    plain = found_by(power, wave, 40)
    wave[20 * hop + n :] = np.nan  # behind the frame of number 20
    spoilt = found_by(power, wave, 40)
    np.testing.assert_array_equal(spoilt[:21], plain[:21])
    assert np.isnan(spoilt[24:]).all()
    for start in (1, 7, 16):  # which lane a frame is in does not matter
        np.testing.assert_array_equal(found_by(power, wave[start * hop :], 4), plain[start:][:4])


@needs_compiler
def test_what_it_cannot_do_is_left_to_scipy():
    even = triangles(256)
    assert isinstance(band_power(window(256), 64, even), Compiled)
    for n, hop in ((256, 100), (250, 50), (255, 51), (96, 3), (256, 512), (8, 2), (1 << 17, 1024)):
        assert isinstance(band_power(window(n), hop, triangles(n)), BandPowerTransform)
    wide = np.ones((12, 129), dtype=np.float32)  # each bin in twelve bands
    assert isinstance(band_power(window(256), 64, wide), BandPowerTransform)
    apart = np.zeros((12, 129), dtype=np.float32)
    apart[[0, 2], 5] = 1  # in two bands that are no neighbours
    assert isinstance(band_power(window(256), 64, apart), BandPowerTransform)


@needs_compiler
def test_too_little_sound_or_room_is_told():
    power = Compiled.of(window(256), 64, triangles(256))
    with pytest.raises(ValueError, match=r"\(5, 12\) takes 512 samples and 12 bands"):
        found_by(power, noise(511), 5)
    with pytest.raises(ValueError, match="12 bands"):
        found_by(power, noise(512), 5, bands=13)
    assert found_by(power, noise(0), 0).shape == (0, 12)


@needs_compiler
def test_threads_share_one_and_a_wave_may_have_gaps():
    power = Compiled.of(window(3072), 768, triangles(3072))
    waves = [noise(768 * 99 + 3072, seed) for seed in range(8)]
    alone = [found_by(power, wave, 100) for wave in waves]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda wave: found_by(power, wave, 100), waves))
    np.testing.assert_array_equal(together, alone)
    stereo = np.stack([waves[0], waves[1]], axis=1)
    np.testing.assert_array_equal(found_by(power, stereo[:, 1], 100), alone[1])


@needs_compiler
def test_pictures_are_the_same_without_a_compiler(monkeypatch):
    wave = noise(48_000 * 5)
    drawn = mel_features(wave, LogMel(MelConfig(), 48_000)).astype(int)
    monkeypatch.setattr(compiled, "library", lambda: None)
    plain = LogMel(MelConfig(), 48_000)
    assert isinstance(plain._power, BandPowerTransform)
    apart = np.abs(mel_features(wave, plain).astype(int) - drawn)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-3


def test_passes_make_up_the_whole():
    whole = {2**a * 3**b for a in range(2, 15) for b in range(10)} - {4, 8}
    for count in range(10_000):
        passes = passes_of(count)
        assert (passes is not None) == (count in whole)
        if passes:
            assert np.prod(passes) == count
            assert passes[0] in (4, 8)
            assert set(passes[1:]) <= {3, 4}


def test_owners_are_two_neighbours():
    given = triangles(512)
    first, weights = owners_of(given)
    found = np.zeros((13, given.shape[1]), dtype=np.float32)
    for i in range(2):
        found[first + i, np.arange(len(first))] += weights[:, i]
    np.testing.assert_array_equal(found[:12], given)
