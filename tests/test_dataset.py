import math
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from antpitta.core.errors import Finding, UserError
from antpitta.core.types import EVERY_CLASS, Annotation, Recording
from antpitta.files.dataset import DataSource, match_tables, open_dataset, read_source, write_source
from antpitta.files.formats import AnnotationTable
from antpitta.files.recordings import FoundRecordings

REAL = Path(__file__).parents[1].parent / "shared" / "data" / "rfcx"
FOUND = FoundRecordings(
    (
        Recording("a", Path("/data/north/a.wav"), 8000, 80000),
        Recording("b", Path("/data/south/b.wav"), 8000, 80000),
    ),
    (),
)


def said(recording, label, present=True, start=1.0, stop=2.0):
    return Annotation(recording, start, stop, label, present)


def table(*annotations, name="t.csv", rows=None, findings=(), unvalidated=0):
    lines = tuple(rows or range(2, 2 + len(annotations)))
    return AnnotationTable("own", Path(name), annotations, lines, findings, unvalidated)


def test_rows_find_their_recordings_and_keep_file_and_line():
    opened = match_tables(
        FOUND,
        [
            table(said("a", "owl"), said("gone", "wren"), said("south/b.wav", "owl")),
            table(said("b", "owl", present=False), name="u.csv", rows=[7]),
        ],
    )
    boxes = [(box.recording, box.label, box.present) for box in opened.dataset.annotations]
    assert boxes == [("a", "owl", True), ("b", "owl", True), ("b", "owl", False)]
    assert opened.origins == (("t.csv", 2), ("t.csv", 4), ("u.csv", 7))
    assert (opened.missing, opened.rows) == (1, 4)
    assert opened.tables == {"t.csv": "own", "u.csv": "own"}
    assert opened.dataset.recordings == FOUND.recordings


def test_classes_come_from_every_row_but_not_from_the_name_for_all():
    opened = match_tables(
        FOUND,
        [table(said("a", "wren "), said("gone", "bat"), said("a", EVERY_CLASS, present=False))],
    )
    assert opened.dataset.classes.names == ("bat", "wren")
    assert [box.label for box in opened.dataset.annotations] == ["wren", EVERY_CLASS]


def test_numbers_become_names_in_their_own_order():
    opened = match_tables(FOUND, [table(said("a", "10"), said("gone", "2"), said("b", "07"))])
    assert opened.dataset.classes.names == ("s2", "s7", "s10")
    assert [box.label for box in opened.dataset.annotations] == ["s10", "s7"]


def test_one_number_twice_is_one_class_and_numbers_among_names_stay():
    opened = match_tables(FOUND, [table(said("a", "7"), said("b", "07"))])
    assert opened.dataset.classes.names == ("s7",)
    opened = match_tables(FOUND, [table(said("a", "10"), said("b", "owl"))])
    assert opened.dataset.classes.names == ("10", "owl")


def test_a_statement_without_an_end_ends_with_its_recording():
    opened = match_tables(
        FOUND,
        [table(said("a", "owl", False, 0.0, math.inf), said("b", "owl", False, 99, math.inf))],
    )
    assert [box.stop for box in opened.dataset.annotations] == [10.0, 100.0]


def test_rows_without_audio_are_one_finding_a_table():
    rows = [said("gone", "owl"), said("gone", "owl", start=0.5), said("lost", "owl")]
    opened = match_tables(FOUND, [table(said("a", "owl"), *rows)])
    (finding,) = opened.findings
    assert finding.what == (
        "3 of 4 rows name 2 recordings whose audio is not here, the first 'gone'"
    )
    assert (finding.file, finding.row, finding.serious) == ("t.csv", 3, False)


def test_rows_of_an_ambiguous_name_are_left_out_and_reported():
    twins = tuple(
        Recording(f"{home}/x", Path(f"/data/{home}/x.wav"), 8000, 80000) for home in ("m", "n")
    )
    opened = match_tables(
        FoundRecordings((*FOUND.recordings, *twins), ()),
        [table(said("a", "owl"), said("x", "owl"))],
    )
    (finding,) = opened.findings
    assert "1 of 2 rows are left out as ambiguous, the first: 2 recordings" in finding.what
    assert (finding.row, finding.serious) == (3, True)
    assert opened.missing == 0
    assert len(opened.dataset.annotations) == 1


def test_findings_of_reading_are_kept_in_order():
    one, two = (Finding("E_TODO", name, None, "what", "remedy", False) for name in "ab")
    opened = match_tables(
        FoundRecordings(FOUND.recordings, (one,)),
        [table(said("a", "owl"), findings=(two,), unvalidated=5)],
    )
    assert opened.findings == (one, two)
    assert opened.unvalidated == 5


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ([], "no table of boxes"),
        ([table()], "t.csv: no usable row"),
        ([table(unvalidated=12)], "12 rows and none of them judged"),
        ([table(said("a", EVERY_CLASS, False))], "no species is named"),
        ([table(said("gone", "owl"))], "none of 1 rows has its audio here: the tables name 'gone'"),
    ],
)
def test_nothing_to_learn_from_is_the_users_mistake(tables, words):
    with pytest.raises(UserError, match=words):
        match_tables(FOUND, tables)


def test_a_source_reads_back_as_it_was_written(tmp_path):
    source = DataSource(
        (tmp_path / "audio", Path("/far/audio")),
        present=(tmp_path / "tables" / 'tp "1" é.csv',),
        absent=(),
        sites=tmp_path / "sites.csv",
    )
    path = tmp_path / "antpitta.toml"
    write_source(source, path)
    assert path.read_text(encoding="utf-8") == (
        'audio = ["audio", "/far/audio"]\n'
        'present = "tables/tp \\"1\\" é.csv"\n'
        'sites = "sites.csv"\n'
    )
    assert read_source(path) == read_source(tmp_path) == source


def test_a_path_seen_from_elsewhere_is_written_from_the_files_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_source(DataSource((Path("work/audio"), Path("other"))), Path("work/antpitta.toml"))
    told = read_source(Path("work"))
    assert told.audio == (Path("work/audio"), tmp_path / "other")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('audio = "a"\nabsents = "b"\n', "unknown key 'absents'; known are audio, present"),
        ("audio = 7\n", "key 'audio' is 7; give a path"),
        ('audio = ["a", 7]\n', "key 'audio' is"),
        ('audio = ""\n', "key 'audio' is ''"),
        ('present = "a"\n', "no key 'audio'"),
        ('audio = "a"\nsites = ["a", "b"]\n', "key 'sites' names 2 tables"),
        ("audio = \n", "line 1"),
    ],
)
def test_a_source_with_a_mistake_is_refused_with_its_key(tmp_path, text, words):
    path = tmp_path / "antpitta.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as told:
        read_source(path)
    assert str(path) in str(told.value)


def test_a_source_that_is_not_there_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match="'antpitta init' writes one"):
        read_source(tmp_path)


def test_a_folder_with_tables_opens_as_a_data_set(tmp_path):
    (tmp_path / "audio").mkdir()
    for name in ("a", "b"):
        sf.write(tmp_path / "audio" / f"{name}.flac", np.zeros(8000), 8000)
    header = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"
    (tmp_path / "tp.csv").write_text(header + "a,3,1,0.1,100,0.5,900\nc,1,1,0.1,100,0.5,900\n")
    (tmp_path / "fp.csv").write_text(header + "b,3,1,0.1,100,0.5,900\n")
    (tmp_path / "antpitta.toml").write_text('audio="audio"\npresent="tp.csv"\nabsent="fp.csv"\n')
    opened = open_dataset(read_source(tmp_path))
    assert [(box.recording, box.label, box.present) for box in opened.dataset.annotations] == [
        ("a", "s3", True),
        ("b", "s3", False),
    ]
    assert opened.dataset.classes.names == ("s1", "s3")
    assert (opened.missing, opened.rows) == (1, 3)
    assert [row for _, row in opened.origins] == [2, 2]


def test_the_competitions_tables_open_with_the_audio_that_is_here():
    if not REAL.is_dir():
        pytest.skip(f"no real recordings at {REAL}")
    opened = open_dataset(
        DataSource((REAL / "audio",), (REAL / "train_tp.csv",), (REAL / "train_fp.csv",))
    )
    assert len(opened.dataset.recordings) == 26
    assert opened.dataset.classes.names == tuple(f"s{i}" for i in range(24))
    assert (opened.rows, opened.missing) == (1216 + 7781, 1216 + 7781 - 18 - 31)
    assert sum(box.present for box in opened.dataset.annotations) == 18
    assert len(opened.findings) == 2
