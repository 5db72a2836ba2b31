"""Clips and backgrounds from the disk: every file is used, or said not to be."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from antpitta.core.errors import UserError
from antpitta.files import simulated as clips
from antpitta.files.simulated import read_backgrounds, read_clips
from antpitta.sound.species_sources import SPLITS, species_sources

FROGS = Path(__file__).parents[1].parent / "shared" / "data" / "frogs"


def put(path, seconds=1.0, rate=16_000, channels=1, level=0.1, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    sf.write(path, level * rng.uniform(-1, 1, (int(seconds * rate), channels)), rate)
    return path


def test_clips_come_mixed_and_resampled_by_species(tmp_path):
    left = np.stack([np.full(8000, 0.5), np.zeros(8000)], axis=1)
    (tmp_path / "owl").mkdir()
    sf.write(tmp_path / "owl" / "a.wav", left, 8000, subtype="FLOAT")
    put(tmp_path / "frog" / "b.FLAC", 2.0)
    put(tmp_path / "frog" / "a.ogg", 1.0)
    put(tmp_path / ".hidden" / "a.wav")
    (tmp_path / "frog" / "notes.txt").write_text("not a sound")
    found, findings = read_clips(tmp_path, 16_000)
    assert findings == []
    assert list(found) == ["frog", "owl"]
    assert [len(wave) for wave in found["frog"]] == [16_000, 32_000]
    assert len(found["owl"][0]) == 16_000
    assert found["owl"][0][8000] == pytest.approx(0.25, abs=1e-3)


def test_what_cannot_be_used_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "LONGEST", 1.5)
    put(tmp_path / "frog" / "good.wav")
    put(tmp_path / "frog" / "long.wav", 2.0)
    put(tmp_path / "frog" / "empty.wav", 0.0)
    (tmp_path / "frog" / "broken.mp3").write_bytes(b"no sound at all")
    (tmp_path / "newt").mkdir()
    put(tmp_path / "stray.wav")
    found, findings = read_clips(tmp_path, 16_000)
    assert {name: [len(w) for w in waves] for name, waves in found.items()} == {
        "frog": [16_000, 24_000]
    }
    told = {Path(finding.file).name: finding for finding in findings}
    assert set(told) == {"long.wav", "empty.wav", "broken.mp3", "newt", "stray.wav"}
    assert not told["long.wav"].serious
    assert "only its beginning" in told["long.wav"].what


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_without_clips_is_the_users_mistake(tmp_path, made):
    folder = tmp_path / "clips"
    if made:
        (folder / "frog").mkdir(parents=True)
    with pytest.raises(UserError, match=r"one folder per species|no such folder"):
        read_clips(folder, 16_000)


def test_every_third_background_is_for_the_test_side_and_none_is_on_both(tmp_path):
    for number in range(7):
        put(tmp_path / f"deep{number % 2}" / f"{number}.wav", 1.0, seed=number)
    put(tmp_path / "blip.wav", 0.1)
    (tmp_path / "broken.flac").write_bytes(b"fLaC?")
    sides, findings = read_backgrounds([tmp_path], 16_000)
    paths = {side: {background.path for background in sides[side]} for side in SPLITS}
    assert (len(paths["train"]), len(paths["test"])) == (5, 2)
    assert not paths["train"] & paths["test"]
    assert {Path(finding.file).name for finding in findings} == {"blip.wav", "broken.flac"}


def test_an_only_background_gives_its_last_third_to_the_test_side(tmp_path):
    path = tmp_path / "a.wav"
    ramp = np.linspace(0, 0.9, 30_000)
    sf.write(path, ramp, 10_000, subtype="FLOAT")
    sides, _ = read_backgrounds([tmp_path], 10_000)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        assert sides["train"][0](rng, 4000).max() <= 0.6
        assert sides["test"][0](rng, 4000).min() >= 0.6


def test_a_stretch_has_the_length_asked_for_or_all_there_is(tmp_path):
    put(tmp_path / "a.wav", 3.0, rate=22_050)
    put(tmp_path / "b.wav", 3.0, rate=22_050, channels=2, seed=1)
    sides, _ = read_backgrounds([tmp_path], 16_000)
    background = sides["train"][0]
    rng = np.random.default_rng(1)
    assert len(background(rng, 10_000)) == 10_000
    assert len(background(rng, 100_000)) == pytest.approx(48_000, abs=2)
    one, two = background(rng, 1000), background(rng, 1000)
    assert not np.array_equal(one, two)


def test_a_background_that_ends_before_its_stated_length_begins_anew(tmp_path):
    path = put(tmp_path / "a.wav", 1.0)
    background = clips.BackgroundFile(path, 0, 10**6, 16_000, 16_000)
    for seed in range(4):
        assert len(background(np.random.default_rng(seed), 12_000)) >= 8000


def test_no_background_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="no backgrounds"):
        read_backgrounds([tmp_path], 16_000)


def test_real_clips_become_voices_in_the_band_that_the_species_is_known_for():
    if not FROGS.is_dir():
        pytest.skip("no real clips beside the project")
    peepers = {"spring-peeper": read_clips(FROGS, 16_000)[0]["spring-peeper"]}
    progress = species_sources(peepers, 16_000, np.random.default_rng(1))["train"][0]
    assert 2000 < progress.low < 2800 < progress.high < 3700  # the peep lies near 3 kHz
    assert 0.3 < progress.duration < 2
