"""Simulations on disk: RFCX columns, truth that agrees, and whole or not at all."""

import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation
from antpitta.files.simulated import SimulatedData, SimulatedSpecies, write_simulation
from antpitta.sound.ambience import demo_backgrounds
from antpitta.sound.simulation import SimulationConfig, draw_prevalences, simulate, simulate_validation
from antpitta.sound.synthetic_species import demo_species

RATE = 16_000
BOX = ["recording_id", "species_id", "songtype_id", "t_min", "f_min", "t_max", "f_max"]
SPECIES = [
    SimulatedSpecies("owl", 300, 800.123, 1.5, 0.9),
    SimulatedSpecies("frog", 2000, 3000, 0.5, 0.1),
]


def scape(recording, *calls):
    time = np.arange(2 * RATE) / RATE
    wave = 0.25 * np.sin(2 * np.pi * 440 * time)
    return recording, wave.astype(np.float32), [said(recording, *call) for call in calls]


def said(recording, start, stop, label, present=True):
    return Annotation(recording, start, stop, label, present, 300, 800.123)


def write(out, **changes):
    given = {
        "train": [scape("train0", (0.25, 1.0, "frog"), (0.5, 1.5, "frog")), scape("train1")],
        "test": [scape("test0", (0.1, 0.2, "owl"))],
        "validated": lambda: [
            said("train0", 0.2, 1.7, "frog"),
            said("train1", 0.123456, 1.6, "owl", present=False),
        ],
    }
    return write_simulation(out, RATE, SPECIES, **{**given, **changes})


def demo(out, seed):
    plan = SimulationConfig(train=4, test=5, seconds=5, sample_rate=RATE, present=2, absent=4, seed=seed)
    scenes = []
    voices = {side: demo_species(RATE, side, seed) for side in ("train", "test")}

    def scapes(side):
        for one in simulate(plan, side, voices[side], demo_backgrounds(RATE, side, seed)):
            scenes.extend([one.scene] if side == "train" else [])
            yield one.scene.recording, one.wave, one.scene.truth

    def validated():
        rng = np.random.default_rng(seed)
        return simulate_validation(scenes, voices["train"], rng, plan.present, plan.absent)

    shares = draw_prevalences(plan, 8)
    rows = [
        SimulatedSpecies(v.name, v.low, v.high, v.duration, float(share))
        for v, share in zip(voices["train"], shares, strict=True)
    ]
    return write_simulation(out, RATE, rows, scapes("train"), scapes("test"), validated)


def bytes_of(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_every_file_is_there_and_says_what_came_in(tmp_path):
    out = tmp_path / "deep" / "data"
    assert write(out) == SimulatedData(out, train=2, test=1, present=1, absent=1)
    assert set(bytes_of(out)) == {
        "train/train0.flac", "train/train1.flac", "test/test0.flac", "antpitta.toml",
        "train_tp.csv", "train_fp.csv", "train_truth.csv", "test_truth.csv",
        "train_events.csv", "test_events.csv", "species.csv",
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


def test_sound_is_16_bit_flac_at_the_sample_rate(tmp_path):
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
    np.testing.assert_allclose(wave, scape("x")[1], atol=2**-15)


def test_a_side_without_calls_or_boxes_still_has_its_headers(tmp_path):
    write(tmp_path / "data", test=[], validated=list)
    assert (tmp_path / "data" / "train_fp.csv").read_text() == ",".join(BOX) + "\n"
    assert (tmp_path / "data" / "test_truth.csv").read_text() == "recording_id,s0,s1\n"


def test_boxes_are_asked_for_once_the_training_sound_is_made(tmp_path):
    order = []

    def train():
        yield scape("train0")
        order.append("made")

    write(tmp_path / "data", train=train(), validated=lambda: order.append("asked") or [])
    assert order == ["made", "asked"]


def test_an_interrupted_simulation_leaves_nothing_behind(tmp_path):
    def broken():
        yield scape("test0")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "data", test=broken())
    assert list(tmp_path.iterdir()) == []


def test_an_older_simulation_survives_until_the_new_one_is_whole(tmp_path):
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


def test_nothing_of_the_users_is_overwritten(tmp_path):
    out = tmp_path / "data"
    out.mkdir()
    write(out)  # an empty folder is free
    with pytest.raises(UserError, match="not empty"):
        write(out)
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="other than a simulation"):
        write(notes, replace=True)
    with pytest.raises(UserError, match="a file stands here"):
        write(notes / "thesis.txt", replace=True)
    assert (notes / "thesis.txt").read_text() == "years of work"


def test_two_species_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="named twice"):
        write_simulation(tmp_path / "d", RATE, SPECIES[:1] * 2, [], [], list)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
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
    for side in ("train", "test"):
        truth = pd.read_csv(tmp_path / "a" / f"{side}_truth.csv").set_index("recording_id")
        events = pd.read_csv(tmp_path / "a" / f"{side}_events.csv")
        told = {(r, f"s{k}") for r, k in zip(events.recording_id, events.species_id, strict=True)}
        stacked = truth.stack()
        assert told == set(stacked[stacked == 1].index)
        files = sorted(p.stem for p in Path(tmp_path / "a" / side).iterdir())
        assert files == sorted(truth.index)
