"""Pictures and sound of the review page come from one range of samples, at their right places."""

import io

import numpy as np
import pytest
import soundfile as sf
from PIL import Image

from antpitta.core.config import parse_recipe
from antpitta.files.audio import UnreadableAudio, probe
from antpitta.files.spectrograms import read_training_input
from antpitta.model.features import build_feature_extractor
from antpitta.review import media
from antpitta.review.media import ImageSize, RegionPainter, cut_region, cut_sound, format_time

RATE = 250_000  # of a bat recorder
RECIPE = {
    "name": "tiny",
    "description": "tests",
    "features": {"sample_rate": 16_000, "n_fft": 512, "hop_length": 320, "n_mels": 32,
                 "fmin": 50.0, "fmax": 8000.0, "segment": 4.0},
    "stages": [{"name": "crops", "sample": "crops", "batch_size": 8, "epochs": 1}],
}  # fmt: skip


@pytest.fixture(scope="module")
def painter():
    return RegionPainter(parse_recipe(RECIPE, "tiny"))


@pytest.fixture(scope="module")
def bats(tmp_path_factory):
    """Nine seconds of soft noise with a tone at 80 kHz from 5.0 to 5.2 s, and one at 3 kHz."""
    time = np.arange(9 * RATE) / RATE
    wave = 0.001 * np.random.default_rng(1).standard_normal(len(time))
    wave += 0.2 * np.sin(2 * np.pi * 80_000 * time) * ((time >= 5.0) & (time < 5.2))
    wave += 0.2 * np.sin(2 * np.pi * 3000 * time) * ((time >= 2.0) & (time < 3.0))
    path = tmp_path_factory.mktemp("sound") / "bats.wav"
    sf.write(path, wave.astype(np.float32), RATE, subtype="PCM_16")
    return probe(path, "bats")


def spectrogram(image, size):
    """The pixels inside the axes, loud is high."""
    pixels = 255 - np.asarray(Image.open(io.BytesIO(image.png)), dtype=float)
    left, top = media.LEFT * size.scale, media.TOP * size.scale
    return pixels[top : top + size.rows, left : left + size.columns]


def test_sound_has_the_samples_of_the_file_in_the_range_of_the_picture(bats, painter):
    cut = cut_region(bats, 5.0001, 5.2, 0.5)
    image = painter.draw(cut, "full", ImageSize())
    wave, rate = sf.read(io.BytesIO(cut_sound(cut)), dtype="int16")
    whole, _ = sf.read(bats.path, dtype="int16")
    first, last = round(image.start * RATE), round(image.stop * RATE)
    assert rate == RATE
    assert (first, last) == (cut.first, cut.last) == (1_125_025, 1_425_000)
    assert np.array_equal(wave, whole[first:last])


@pytest.mark.parametrize("scale", [1, 2])
def test_full_view_shows_ultrasound_at_its_time_and_frequency(bats, painter, scale):
    size = ImageSize(400, 200, scale)
    image = painter.draw(cut_region(bats, 5.0, 5.2, 1.0), "full", size)
    assert (image.start, image.stop, image.low, image.high) == (4.0, 6.2, 0.0, RATE / 2)
    pixels = spectrogram(image, size)
    rows, columns = np.nonzero(pixels > 200)
    hz = image.high * (1 - (np.median(rows) + 0.5) / size.rows)
    seconds = image.start + (columns + 0.5) * (image.stop - image.start) / size.columns
    assert hz == pytest.approx(80_000, abs=2000)
    assert seconds.min() == pytest.approx(5.0, abs=0.03)
    assert seconds.max() == pytest.approx(5.2, abs=0.03)


def test_model_view_shows_the_values_that_the_network_reads(bats, painter):
    size = ImageSize(446, 26 + 64)  # 400 columns, and two rows for each mel band
    cut = cut_region(bats, 3.9, 4.1, 1.0)  # across the border of two segments
    pixels = spectrogram(painter.draw(cut, "model", size), size)[::-1]
    recipe = parse_recipe(RECIPE, "tiny")
    extractor = build_feature_extractor(recipe)
    for start, stop in ((0.0, 4.0), (4.0, 8.0)):
        values = extractor.extract_segment(bats, start, stop, read_training_input)
        grid = recipe.features.time_grid(start, stop)
        times = cut.start + (np.arange(400) + 0.5) * (cut.stop - cut.start) / 400
        inside = (times >= start) & (times < stop)
        frames = ((times[inside] - start) / grid.hop).astype(int)
        assert np.array_equal(pixels[::2, inside].T, values[frames])
        assert np.array_equal(pixels[1::2, inside].T, values[frames])


@pytest.mark.parametrize("view", ["full", "model"])
def test_long_picture_keeps_a_click_of_a_millisecond(tmp_path, painter, view):
    wave = 1e-4 * np.random.default_rng(2).standard_normal(16_000 * 50).astype(np.float32)
    wave[16_000 * 21 : 16_000 * 21 + 16] += 0.8
    sf.write(tmp_path / "click.wav", wave, 16_000)
    size = ImageSize(246, 116)
    cut = cut_region(probe(tmp_path / "click.wav", "click"), 0.0, 50.0, 0.0)
    loud = spectrogram(painter.draw(cut, view, size), size).mean(axis=0)
    loudest = 80 + loud[80:96].argmax()  # in the segment from 20 to 24 s, which has its own scale
    assert (loudest + 0.5) * 50 / 200 == pytest.approx(21, abs=0.3)
    assert loud[loudest] > 1.5 * np.median(loud[80:96])


def test_slow_sound_has_all_samples_at_a_tenth_of_the_rate(bats):
    cut = cut_region(bats, 5.0, 5.2, 0.1)
    wave, rate = sf.read(io.BytesIO(cut_sound(cut, slow=10)))
    assert (len(wave), rate) == (cut.last - cut.first, RATE // 10)
    frequency = np.abs(np.fft.rfft(wave)).argmax() * rate / len(wave)
    assert frequency == pytest.approx(8000, abs=20)


def test_slow_sound_of_a_low_rate_is_resampled_to_what_browsers_play(tmp_path):
    sf.write(tmp_path / "low.wav", np.sin(np.arange(8000) * 2 * np.pi * 500 / 8000), 8000)
    cut = cut_region(probe(tmp_path / "low.wav", "low"), 0.0, 1.0, 0.0)
    wave, rate = sf.read(io.BytesIO(cut_sound(cut, slow=10)))
    assert (len(wave), rate) == (80_000, 8000)
    assert np.abs(np.fft.rfft(wave)).argmax() * rate / len(wave) == pytest.approx(50, abs=0.2)


def test_band_leaves_the_sound_inside_and_removes_that_outside(bats):
    cut = cut_region(bats, 2.2, 2.8, 0.0)
    inside, outside = (
        sf.read(io.BytesIO(cut_sound(cut, band)))[0].std()
        for band in ((2000.0, 4000.0), (20_000.0, 60_000.0))
    )
    assert inside == pytest.approx(0.2 / np.sqrt(2), rel=0.05)
    assert outside < 0.01


def test_cut_ends_with_the_recording_and_is_bounded(bats, tmp_path):
    assert cut_region(bats, 8.9, 12.0, 2.0).last == bats.samples
    sf.write(tmp_path / "long.wav", np.zeros(8000 * 90, np.float32) + 0.1, 8000)
    cut = cut_region(probe(tmp_path / "long.wav", "long"), 2.0, 89.0, 2.0)
    assert (cut.first, cut.last) == (0, 60 * 8000)


def test_region_after_the_end_is_an_error_of_the_file(bats):
    with pytest.raises(UnreadableAudio, match=r"is 9\.00 s long"):
        cut_region(bats, 9.5, 10.0, 2.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7.5, "7.5"), (60, "1:00"), (127.5, "2:07.5"), (3727.25, "1:02:07.25"), (59.9996, "60")],
)
def test_time_is_written_with_minutes_from_the_first_minute_on(seconds, text):
    assert format_time(seconds) == text
