"""Files of simulations: clips and backgrounds that are read, and data sets that are written."""

import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation
from antpitta.files import simulated
from antpitta.files.simulated import (
    SimulatedData,
    SimulatedSpecies,
    read_backgrounds,
    read_clips,
    write_simulation,
)
from antpitta.sound.ambience import demo_backgrounds
from antpitta.sound.simulation import (
    SimulationConfig,
    draw_prevalences,
    simulate,
    simulate_validation,
)
from antpitta.sound.species_sources import SPLITS, species_sources
from antpitta.sound.synthetic_species import demo_species

RATE = 16_000
BOX = ["recording_id", "species_id", "songtype_id", "t_min", "f_min", "t_max", "f_max"]
SPECIES = [
    SimulatedSpecies("owl", 300, 800.123, 1.5, 0.9),
    SimulatedSpecies("frog", 2000, 3000, 0.5, 0.1),
]


def soundscape(recording, *calls):
    time = np.arange(2 * RATE) / RATE
    wave = 0.25 * np.sin(2 * np.pi * 440 * time)
    return recording, wave.astype(np.float32), [box(recording, *call) for call in calls]


def box(recording, start, stop, label, present=True):
    return Annotation(recording, start, stop, label, present, 300, 800.123)


def write(out, **changes):
    arguments = {
        "train": [
            soundscape("train0", (0.25, 1.0, "frog"), (0.5, 1.5, "frog")),
            soundscape("train1"),
        ],
        "test": [soundscape("test0", (0.1, 0.2, "owl"))],
        "validated": lambda: [
            box("train0", 0.2, 1.7, "frog"),
            box("train1", 0.123456, 1.6, "owl", present=False),
        ],
    }
    return write_simulation(out, RATE, SPECIES, **{**arguments, **changes})


def demo(out, seed):
    config = SimulationConfig(
        train=4, test=5, seconds=5, sample_rate=RATE, present=2, absent=4, seed=seed
    )
    scenes = []
    sources = {split: demo_species(RATE, split, seed) for split in SPLITS}

    def recordings(split):
        for made in simulate(config, split, sources[split], demo_backgrounds(RATE, split, seed)):
            scenes.extend([made.scene] if split == "train" else [])
            yield made.scene.recording, made.wave, made.scene.truth

    def validated():
        rng = np.random.default_rng(seed)
        return simulate_validation(scenes, sources["train"], rng, config.present, config.absent)

    species = [
        SimulatedSpecies(source.name, source.low, source.high, source.duration, float(prevalence))
        for source, prevalence in zip(sources["train"], draw_prevalences(config, 8), strict=True)
    ]
    return write_simulation(out, RATE, species, recordings("train"), recordings("test"), validated)


def bytes_of(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_data_set_has_every_file_with_the_given_values(tmp_path):
    out = tmp_path / "deep" / "data"
    assert write(out) == SimulatedData(out, train=2, test=1, present=1, absent=1)
    assert set(bytes_of(out)) == {
        "train/train0.flac", "train/train1.flac", "test/test0.flac", "antpitta.toml",
        "train_tp.csv", "train_fp.csv", "train_truth.csv", "test_truth.csv",
        "train_events.csv", "test_events.csv", "species.csv", ".antpitta.json",
    }  # fmt: skip
    present = pd.read_csv(out / "train_tp.csv")
    assert list(present) == BOX
    assert present.values.tolist() == [["train0", 1, 1, 0.2, 300.0, 1.7, 800.12]]
    absent = pd.read_csv(out / "train_fp.csv")
    assert absent.values.tolist() == [["train1", 0, 1, 0.1235, 300.0, 1.6, 800.12]]
    truth = (out / "train_truth.csv").read_text()
    assert truth == "recording_id,s0,s1\ntrain0,0,1\ntrain1,0,0\n"
    assert (out / "test_truth.csv").read_text() == "recording_id,s0,s1\ntest0,1,0\n"
    events = pd.read_csv(out / "train_events.csv")
    assert list(events) == [name for name in BOX if name != "songtype_id"]
    assert events.t_min.tolist() == [0.25, 0.5]
    species = pd.read_csv(out / "species.csv")
    assert list(species) == ["species_id", "name", "f_min", "f_max", "duration", "prevalence"]
    assert species.prevalence.tolist() == [0.9, 0.1]
    assert tomllib.loads((out / "antpitta.toml").read_text()) == {
        "audio": "train",
        "present": "train_tp.csv",
        "absent": "train_fp.csv",
    }


def test_recordings_are_16_bit_flac_at_the_sample_rate(tmp_path):
    write(tmp_path / "data")
    path = tmp_path / "data" / "train" / "train0.flac"
    info = sf.info(path)
    assert (info.format, info.subtype, info.samplerate, info.channels) == (
        "FLAC",
        "PCM_16",
        RATE,
        1,
    )
    wave, _ = sf.read(path)
    np.testing.assert_allclose(wave, soundscape("x")[1], atol=2**-15)


def test_split_without_calls_or_boxes_has_tables_with_headers(tmp_path):
    write(tmp_path / "data", test=[], validated=list)
    assert (tmp_path / "data" / "train_fp.csv").read_text() == ",".join(BOX) + "\n"
    assert (tmp_path / "data" / "test_truth.csv").read_text() == "recording_id,s0,s1\n"


def test_boxes_are_asked_for_after_the_last_training_recording(tmp_path):
    order = []

    def train():
        yield soundscape("train0")
        order.append("recordings")

    write(tmp_path / "data", train=train(), validated=lambda: order.append("boxes") or [])
    assert order == ["recordings", "boxes"]


def test_interrupted_simulation_leaves_no_file(tmp_path):
    def broken():
        yield soundscape("test0")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "data", test=broken())
    assert list(tmp_path.iterdir()) == []


def test_older_simulation_is_replaced_only_by_a_complete_one(tmp_path):
    def broken():
        raise KeyboardInterrupt
        yield

    out = tmp_path / "data"
    write(out)
    before = bytes_of(out)
    with pytest.raises(KeyboardInterrupt):
        write(out, test=broken(), replace=True)
    assert bytes_of(out) == before
    write(out, test=[], replace=True)
    assert not (out / "test" / "test0.flac").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_folder_in_use_is_never_overwritten(tmp_path):
    out = tmp_path / "data"
    out.mkdir()
    write(out)  # an empty folder is free
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "thesis.txt").write_text("years of work")
    for folder, replace, code in (
        (out, False, "E_OUT_NOT_EMPTY"),
        (notes, True, "E_OUTPUT_EDITED"),
        (notes / "thesis.txt", True, "E_OUTPUT_NOT_WRITABLE"),
    ):
        with pytest.raises(UserError) as error:
            write(folder, replace=replace)
        assert error.value.code == code
        assert error.value.what.startswith(str(folder))
    assert (notes / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", ["precious.wav", "train_tp.csv", "train/precious.wav"])
def test_simulation_with_files_of_a_user_is_not_replaced(tmp_path, name):
    out = tmp_path / "data"
    write(out)
    (out / name).write_text("mine")
    with pytest.raises(UserError) as error:
        write(out, replace=True)
    assert error.value.code == "E_OUTPUT_EDITED"
    assert (out / name).read_text() == "mine"


def test_two_species_of_one_name_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="owl"):
        write_simulation(tmp_path / "d", RATE, SPECIES[:1] * 2, [], [], list)


def test_equal_seeds_give_equal_bytes_and_other_seeds_others(tmp_path):
    made = demo(tmp_path / "a", 1)
    demo(tmp_path / "b", 1)
    demo(tmp_path / "c", 2)
    first, second, other = (bytes_of(tmp_path / name) for name in "abc")
    assert first == second
    assert first.keys() == other.keys()
    same = {name for name in first if first[name] == other[name]}
    assert same == {"antpitta.toml"}
    assert (made.train, made.test) == (4, 5)


def test_truth_and_events_of_a_simulation_agree(tmp_path):
    demo(tmp_path / "a", 1)
    for split in SPLITS:
        truth = pd.read_csv(tmp_path / "a" / f"{split}_truth.csv").set_index("recording_id")
        events = pd.read_csv(tmp_path / "a" / f"{split}_events.csv")
        pairs = {(r, f"s{k}") for r, k in zip(events.recording_id, events.species_id, strict=True)}
        stacked = truth.stack()
        assert pairs == set(stacked[stacked == 1].index)
        files = sorted(path.stem for path in (tmp_path / "a" / split).iterdir())
        assert files == sorted(truth.index)


# ---- clips and backgrounds ----

FROGS = Path(__file__).parents[1].parent / "shared" / "data" / "frogs"


def put(path, seconds=1.0, rate=16_000, channels=1, level=0.1, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    sf.write(path, level * rng.uniform(-1, 1, (int(seconds * rate), channels)), rate)
    return path


def test_clips_are_mixed_to_mono_and_resampled_by_species(tmp_path):
    stereo = np.stack([np.full(8000, 0.5), np.zeros(8000)], axis=1)
    (tmp_path / "owl").mkdir()
    sf.write(tmp_path / "owl" / "a.wav", stereo, 8000, subtype="FLOAT")
    put(tmp_path / "frog" / "b.FLAC", 2.0)
    put(tmp_path / "frog" / "a.ogg", 1.0)
    put(tmp_path / ".hidden" / "a.wav")
    (tmp_path / "frog" / "notes.txt").write_text("not a sound")
    clips, findings = read_clips(tmp_path, 16_000)
    assert findings == []
    assert list(clips) == ["frog", "owl"]
    assert [len(wave) for wave in clips["frog"]] == [16_000, 32_000]
    assert len(clips["owl"][0]) == 16_000
    assert clips["owl"][0][8000] == pytest.approx(0.25, abs=1e-3)


def test_every_clip_that_is_not_all_used_gives_a_finding(tmp_path, monkeypatch):
    monkeypatch.setattr(simulated, "LONGEST_CLIP", 1.5)
    put(tmp_path / "frog" / "good.wav")
    put(tmp_path / "frog" / "long.wav", 2.0)
    put(tmp_path / "frog" / "empty.wav", 0.0)
    (tmp_path / "frog" / "broken.mp3").write_bytes(b"no sound at all")
    (tmp_path / "newt").mkdir()
    put(tmp_path / "stray.wav")
    clips, findings = read_clips(tmp_path, 16_000)
    lengths = {name: [len(wave) for wave in waves] for name, waves in clips.items()}
    assert lengths == {"frog": [16_000, 24_000]}
    assert {Path(finding.file).name: (finding.code, finding.serious) for finding in findings} == {
        "long.wav": ("W_LONG_CLIP", False),
        "empty.wav": ("W_CLIP_UNUSABLE", True),
        "broken.mp3": ("W_CLIP_UNUSABLE", True),
        "newt": ("W_SPECIES_WITHOUT_CLIPS", True),
        "stray.wav": ("W_CLIP_WITHOUT_SPECIES", True),
    }


@pytest.mark.parametrize("made", [True, False])
def test_folder_without_clips_is_an_error(tmp_path, made):
    folder = tmp_path / "clips"
    if made:
        (folder / "frog").mkdir(parents=True)
    with pytest.raises(UserError) as error:
        read_clips(folder, 16_000)
    assert error.value.code == "E_NO_CLIPS"


def test_every_third_background_is_for_testing_and_none_for_both(tmp_path):
    for number in range(7):
        put(tmp_path / f"deep{number % 2}" / f"{number}.wav", 1.0, seed=number)
    put(tmp_path / "blip.wav", 0.1)
    (tmp_path / "broken.flac").write_bytes(b"fLaC?")
    backgrounds, findings = read_backgrounds([tmp_path], 16_000)
    paths = {
        split: {background.recording.path for background in backgrounds[split]} for split in SPLITS
    }
    assert (len(paths["train"]), len(paths["test"])) == (5, 2)
    assert not paths["train"] & paths["test"]
    assert {Path(finding.file).name for finding in findings} == {"blip.wav", "broken.flac"}


def test_single_background_gives_its_last_third_for_testing(tmp_path):
    path = tmp_path / "a.wav"
    ramp = np.linspace(0, 0.9, 30_000)
    sf.write(path, ramp, 10_000, subtype="FLOAT")
    backgrounds, _ = read_backgrounds([tmp_path], 10_000)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        assert backgrounds["train"][0](rng, 4000).max() <= 0.6
        assert backgrounds["test"][0](rng, 4000).min() >= 0.6


def test_excerpt_has_the_length_asked_for_or_that_of_the_file(tmp_path):
    put(tmp_path / "a.wav", 3.0, rate=22_050)
    put(tmp_path / "b.wav", 3.0, rate=22_050, channels=2, seed=1)
    backgrounds, _ = read_backgrounds([tmp_path], 16_000)
    background = backgrounds["train"][0]
    rng = np.random.default_rng(1)
    assert len(background(rng, 10_000)) == 10_000
    assert len(background(rng, 100_000)) == pytest.approx(48_000, abs=2)
    first, second = background(rng, 1000), background(rng, 1000)
    assert not np.array_equal(first, second)


def test_background_with_damage_gives_the_sound_that_decodes(tmp_path):
    path = tmp_path / "a.flac"
    put(path, 3.0)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 500] = bytes(500)
    path.write_bytes(raw)
    backgrounds, findings = read_backgrounds([tmp_path], 16_000)
    assert not findings
    for seed in range(4):
        excerpt = backgrounds["train"][0](np.random.default_rng(seed), 12_000)
        assert len(excerpt) == 12_000
        assert np.count_nonzero(excerpt) > 4000


def test_clip_whose_header_reads_and_whose_sound_does_not_is_a_finding(tmp_path):
    put(tmp_path / "wren" / "good.wav", 1.0)
    put(tmp_path / "wren" / "bad.flac", 1.0)
    raw = (tmp_path / "wren" / "bad.flac").read_bytes()
    (tmp_path / "wren" / "bad.flac").write_bytes(raw[:100] + bytes(len(raw) - 100))
    clips, findings = read_clips(tmp_path, 16_000)
    assert len(clips["wren"]) == 1
    assert [finding.code for finding in findings] == ["W_CLIP_UNUSABLE"]


def test_folder_without_backgrounds_is_an_error(tmp_path):
    with pytest.raises(UserError) as error:
        read_backgrounds([tmp_path], 16_000)
    assert error.value.code == "E_NO_BACKGROUNDS"


def test_real_clips_have_the_known_frequency_range_of_their_species():
    if not FROGS.is_dir():
        pytest.skip("no real clips beside the project")
    peepers = {"spring-peeper": read_clips(FROGS, 16_000)[0]["spring-peeper"]}
    source = species_sources(peepers, 16_000, np.random.default_rng(1))["train"][0]
    assert 2000 < source.low < 2800 < source.high < 3700  # the call is near 3 kHz
    assert 0.3 < source.duration < 2
