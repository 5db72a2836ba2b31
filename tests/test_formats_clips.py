"""Folders of clips, one per species."""

import numpy as np
import pytest
import soundfile as sf

import antpitta as ap
from antpitta.core.errors import UserError
from antpitta.files.dataset import open_dataset, read_source
from antpitta.files.formats import read_table
from antpitta.files.formats.clips import parse_folder


@pytest.fixture
def write_clips(tmp_path):
    def write(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            sf.write(tmp_path / name, np.zeros(24_000), 8000)
        return tmp_path

    return write


def test_folder_of_clips_is_a_data_set(write_clips):
    home = write_clips(
        "Turdus merula_Common Blackbird/a.wav",
        "wren/a.wav",
        "wren/b.wav",
        "-wren/c.wav",
        "wren, robin/d.wav",
        "noise/e.wav",
    )
    opened = open_dataset(read_source(home))
    boxes = {(b.recording, b.label, b.present) for b in opened.dataset.annotations}
    assert boxes == {
        ("Turdus merula_Common Blackbird/a", "Turdus merula", True),
        ("wren/a", "wren", True),
        ("b", "wren", True),
        ("c", "wren", False),
        ("d", "wren", True),
        ("d", "robin", True),
        ("e", "*", False),
    }
    assert {(b.start, b.stop) for b in opened.dataset.annotations} == {(0.0, 3.0)}
    assert opened.dataset.classes.names == ("Turdus merula", "robin", "wren")
    assert {recording.site for recording in opened.dataset.recordings} == {
        None
    }  # no species is one
    assert opened.tables == {str(home): "clips"}
    assert opened.findings == ()


def test_clip_with_a_station_in_its_name_keeps_its_site(write_clips):
    home = write_clips("wren/S1_20240501_050000.wav", "robin/S2_20240501_050000.wav")
    sites = [recording.site for recording in open_dataset(read_source(home)).dataset.recordings]
    assert sites == ["S1", "S2"]


def test_times_as_names_in_two_folders_are_told_apart(write_clips):
    home = write_clips("wren/20240501_050000.wav", "robin/20240501_050000.wav")
    boxes = {(b.recording, b.label) for b in open_dataset(read_source(home)).dataset.annotations}
    assert boxes == {("wren/20240501_050000", "wren"), ("robin/20240501_050000", "robin")}


@pytest.mark.parametrize(
    "names",
    [
        ("a.wav", "wren/b.wav"),
        ("train/a.wav", "test/b.wav"),
        ("recordings/a.wav",),
        ("wren/deep/a.wav",),
    ],
)
def test_other_folders_are_no_clips(write_clips, names):
    with pytest.raises(UserError) as error:
        read_source(write_clips(*names))
    assert error.value.code == "E_NO_FILE"


def test_verdict_of_the_user_holds_for_all_species(write_clips):
    table = read_table(write_clips("wren/a.wav", "noise/b.wav"), verdict=False)
    assert [(box.label, box.present) for box in table.annotations] == [
        ("*", False),
        ("wren", False),
    ]


@pytest.mark.parametrize(
    ("names", "culprit"),
    [
        (("wren/a.wav", "list.csv"), "list.csv"),
        (("wren/a.wav", "robin/b.wav", "recording/c.wav"), "recording"),
        (("wren/a.wav", "test/b.wav"), "test"),
    ],
)
def test_what_is_in_the_way_of_folders_of_clips_is_named(write_clips, names, culprit):
    home = write_clips(*(name for name in names if name.endswith(".wav")))
    for name in names:
        (home / name).touch()
    with pytest.raises(UserError) as error:
        read_source(home)
    assert error.value.code == "E_NO_FILE"
    assert repr(culprit) in error.value.what


def test_clips_train_and_predict(tmp_path, recipe):
    rng, rate = np.random.default_rng(0), 16_000
    data = tmp_path / "clips"
    for number, name in enumerate(("Turdus merula_Blackbird", "wren", "robin, wren", "noise")):
        (data / name).mkdir(parents=True)
        for clip in range(3):
            time = np.arange(int(rng.uniform(2, 6) * rate)) / rate
            wave = 0.01 * rng.standard_normal(len(time))
            if name != "noise":
                wave += 0.2 * np.sin(2 * np.pi * (1000 + 1000 * number) * time)
            sf.write(data / name / f"clip{clip}.wav", wave, rate)
    settings, _, stages = recipe.read_text().partition("[[stages]]")
    one_stage = tmp_path / "one.toml"
    one_stage.write_text(f"{settings}[[stages]]{stages.partition('[[stages]]')[0]}")
    result = ap.train(ap.open_data(data), recipe=str(one_stage), out=tmp_path / "run")
    scores = ap.predict(result.model, data)
    assert list(scores.columns) == ["Turdus merula", "robin", "wren"]
    assert scores.index.get_level_values("file").nunique() == 12
    assert scores.notna().all(axis=None)
    boxes = ap.open_data(data).dataset.annotations
    assert len({box.recording for box in boxes}) == 12  # each clip is a recording of its own
    assert sum(box.present for box in boxes) == 12


@pytest.mark.parametrize(
    ("folder", "labels"),
    [
        ("noise,wren", [("wren", True)]),
        ("wren, Background", [("wren", True)]),
        ("noise, background", [("*", False)]),
        (" Silence ,", [("*", False)]),
        ("noise,-wren", [("wren", False), ("*", False)]),
        ("-wren,-robin", [("wren", False), ("robin", False)]),
        ("wren,-noise", [("wren", True)]),
        ("-noise", []),
        ("noisy miner", [("noisy miner", True)]),
        ("Other,Turdus merula_Blackbird,-wren", [("Turdus merula", True), ("wren", False)]),
    ],
)
def test_words_for_no_species_are_no_species_in_a_list(folder, labels):
    assert parse_folder(folder) == labels
