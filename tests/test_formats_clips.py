"""Folders of clips, one per species."""

import numpy as np
import pytest
import soundfile as sf

from antpitta.core.errors import UserError
from antpitta.files.dataset import open_dataset, read_source
from antpitta.files.formats import read_table


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
