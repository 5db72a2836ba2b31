"""Raven's selection tables."""

import math

import numpy as np
import pytest

from antpitta.core.errors import UserError
from antpitta.core.types import EVERY_CLASS, Annotation
from antpitta.files.filenames import recording_from_table_name
from antpitta.files.formats import read_table, write_table

COLUMNS = "Selection View Channel Begin_Time_(s) End_Time_(s) Low_Freq_(Hz) High_Freq_(Hz)"
HEADER = [name.replace("_", " ") for name in COLUMNS.split()]


def raven(folder, rows, extra=(), name="dawn.Table.1.selections.txt"):
    path = folder / name
    lines = [[*HEADER, *extra], *rows]
    path.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines))
    return path


def test_a_selection_is_present_and_named_after_the_table(tmp_path):
    path = raven(tmp_path, [[1, "Spectrogram 1", 1, 1.25, 2.5, 400, 900, "frog"]], ["Tag"])
    read = read_table(path)
    assert read.annotations == (Annotation("dawn", 1.25, 2.5, "frog", True, 400.0, 900.0),)
    assert (read.format, read.rows) == ("raven", (2,))
    assert [said.present for said in read_table(path, verdict=False).annotations] == [False]


def test_two_views_of_a_selection_count_once(tmp_path):
    rows = [
        [1, "Waveform 1", 1, 1, 2, 0, 0, "frog"],
        [1, "Spectrogram 1", 1, 1, 2, 400, 900, "frog"],
        [2, "Spectrogram 1", 1, 1, 2, 400, 900, "frog"],
    ]
    read = read_table(raven(tmp_path, rows, ["Species"]))
    assert read.rows == (3, 4)  # the waveform goes; another selection of the same box stays
    assert not read.findings
    assert read.unvalidated == 0


def test_a_table_without_rows_says_listened_nothing_there(tmp_path):
    read = read_table(raven(tmp_path, []))
    assert read.annotations == (Annotation("dawn", 0.0, math.inf, EVERY_CLASS, present=False),)
    assert read.rows == (1,)
    write_table(read.annotations, tmp_path / "out", "raven")
    again = tmp_path / "out" / "dawn.Table.1.selections.txt"
    assert read_table(again).annotations == read.annotations


def test_a_verdict_column_tells_present_from_absent_and_unjudged(tmp_path):
    words = ["yes", "no", "", "what"]
    rows = [[i, "Spectrogram 1", 1, i, i + 1, 0, 9, "frog", w] for i, w in enumerate(words)]
    read = read_table(raven(tmp_path, rows, ["Species", "Verdict"]))
    assert [said.present for said in read.annotations] == [True, False]
    assert read.unvalidated == 1
    assert [found.row for found in read.findings] == [5]


def test_cumulative_times_become_the_files_own(tmp_path):
    extra = ["Begin File", "File Offset (s)", "Annotation"]
    rows = [
        [1, "Spectrogram 1", 1, 10, 12, 0, 9, "a.wav", 10, "frog"],
        [2, "Spectrogram 1", 1, 610.5, 612, 0, 9, "b.wav", 10.5, "frog"],
    ]
    read = read_table(raven(tmp_path, rows, extra))
    times = [(said.recording, said.start, said.stop) for said in read.annotations]
    assert times == [("a.wav", 10, 12), ("b.wav", 10.5, 12)]
    assert not read.findings


def test_several_files_without_offsets_are_reported(tmp_path):
    rows = [
        [1, "Spectrogram 1", 1, 10, 12, 0, 9, "a.wav", "frog"],
        [2, "Spectrogram 1", 1, 61, 62, 0, 9, "b.wav", "frog"],
    ]
    read = read_table(raven(tmp_path, rows, ["Begin File", "Species"]))
    assert "no column File Offset" in read.findings[0].what
    assert [said.start for said in read.annotations] == [10, 61]


def test_one_file_name_in_two_folders_goes_by_its_path(tmp_path):
    extra = ["Begin File", "Begin Path", "File Offset (s)", "Species"]
    rows = [
        [1, "Spectrogram 1", 1, 1, 2, 0, 9, "a.wav", r"D:\north\a.wav", 1, "frog"],
        [2, "Spectrogram 1", 1, 3, 4, 0, 9, "a.wav", r"D:\south\a.wav", 3, "frog"],
        [3, "Spectrogram 1", 1, 3, 4, 0, 9, "c.wav", r"D:\south\c.wav", 3, "frog"],
    ]
    read = read_table(raven(tmp_path, rows, extra))
    names = [said.recording for said in read.annotations]
    assert names == [r"D:\north\a.wav", r"D:\south\a.wav", "c.wav"]


def test_selections_without_a_species_column_are_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match=r"no column 'Species' .*columns here: Selection"):
        read_table(raven(tmp_path, [[1, "Spectrogram 1", 1, 1, 2, 0, 9]]))


@pytest.mark.parametrize(
    ("name", "recording"),
    [
        ("dawn.Table.1.selections.txt", "dawn"),
        ("dawn.wav.Table.2.selections.txt", "dawn.wav"),
        ("dawn.selections.TXT", "dawn"),
        ("dawn_20210315_053000.BirdNET.selection.table.txt", "dawn_20210315_053000"),
        ("dawn.BirdNET.results.csv", "dawn"),
        ("dawn_labels.txt", "dawn"),
        ("dawn.txt", "dawn"),
        ("labels.txt", "labels"),
    ],
)
def test_a_tables_name_tells_the_recording(tmp_path, name, recording):
    assert recording_from_table_name(tmp_path / name) == recording


def test_read_write_read_gives_the_same_annotations(tmp_path):
    rng = np.random.default_rng(3)
    said = tuple(
        Annotation(
            f"r{i % 3}.wav",
            float(start),
            float(start + rng.exponential()),
            f"species {i % 5}" if i % 7 else "*",
            present=bool(i % 2) and bool(i % 7),
            low=float(rng.uniform(0, 500)),
            high=math.inf if i % 4 == 0 else float(rng.uniform(600, 48000)),
            songtype=["", "trill"][i % 2],
            score=None if i % 3 else float(rng.random()),
        )
        for i, start in enumerate(rng.uniform(0, 5000, 200))
    )
    write_table(said, tmp_path / "all.txt", "raven")
    assert read_table(tmp_path / "all.txt").annotations == said
    write_table(said, tmp_path / "each", "raven")
    each = read_table(tmp_path / "each")
    assert len(list((tmp_path / "each").iterdir())) == 3
    assert sorted(map(str, each.annotations)) == sorted(map(str, said))


def test_silence_is_never_written_where_it_would_say_something_else(tmp_path):
    silence = Annotation("quiet", 0.0, math.inf, EVERY_CLASS, present=False)
    box = Annotation("quiet", 1.0, 2.0, "frog")
    with pytest.raises(UserError, match="would lie"):
        write_table([], tmp_path / "a.txt", "raven")
    with pytest.raises(UserError, match="give a folder"):
        write_table([silence], tmp_path / "other.txt", "raven")
    with pytest.raises(UserError, match="give a folder"):
        write_table([silence, box], tmp_path / "quiet.txt", "raven")
    with pytest.raises(UserError, match="leave one out"):
        write_table([silence, box], tmp_path / "folder", "raven")
    write_table([silence], tmp_path / "quiet.txt", "raven")
    assert read_table(tmp_path / "quiet.txt").annotations == (silence,)


def test_two_recordings_of_one_file_name_are_not_written_over_each_other(tmp_path):
    said = [Annotation("north/a.wav", 0, 1, "x"), Annotation("south/a.wav", 0, 1, "x")]
    with pytest.raises(UserError, match="one file name"):
        write_table(said, tmp_path / "out", "raven")
