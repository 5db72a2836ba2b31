"""Data sets: rows find their recordings, classes come from all rows, antpitta.toml."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from antpitta.core.errors import Finding, UserError
from antpitta.core.identity import class_names
from antpitta.core.types import EVERY_CLASS, Annotation, Recording
from antpitta.files.dataset import (
    DataSource,
    match_tables,
    open_dataset,
    read_source,
    write_source,
)
from antpitta.files.formats import AnnotationTable
from antpitta.files.recordings import FoundRecordings

REAL = Path(__file__).parents[1].parent / "shared" / "data" / "rfcx"
RECORDINGS = FoundRecordings(
    (
        Recording("a", Path("/data/north/a.wav"), 8000, 80000),
        Recording("b", Path("/data/south/b.wav"), 8000, 80000),
    ),
    (),
)


def box(recording, label, present=True, start=1.0, stop=2.0):
    return Annotation(recording, start, stop, label, present)


def table(*annotations, name="t.csv", rows=None, findings=(), unvalidated=0):
    lines = tuple(rows or range(2, 2 + len(annotations)))
    return AnnotationTable("own", Path(name), annotations, lines, findings, unvalidated)


def test_rows_find_their_recordings_and_keep_file_and_line():
    opened = match_tables(
        RECORDINGS,
        [
            table(box("a", "owl"), box("gone", "wren"), box("south/b.wav", "owl")),
            table(box("b", "owl", present=False), name="u.csv", rows=[7]),
        ],
    )
    boxes = [(b.recording, b.label, b.present) for b in opened.dataset.annotations]
    assert boxes == [("a", "owl", True), ("b", "owl", True), ("b", "owl", False)]
    assert opened.origins == (("t.csv", 2), ("t.csv", 4), ("u.csv", 7))
    assert (opened.missing, opened.rows) == (1, 4)
    assert opened.tables == {"t.csv": "own", "u.csv": "own"}
    assert opened.dataset.recordings == RECORDINGS.recordings


def test_classes_come_from_every_row_but_not_from_the_label_for_all():
    opened = match_tables(
        RECORDINGS,
        [table(box("a", "wren "), box("gone", "bat"), box("a", EVERY_CLASS, present=False))],
    )
    assert opened.dataset.classes.names == ("bat", "wren")
    assert [b.label for b in opened.dataset.annotations] == ["wren", EVERY_CLASS]


def test_numbers_become_names_in_their_own_order():
    opened = match_tables(RECORDINGS, [table(box("a", "10"), box("gone", "2"), box("b", "07"))])
    assert opened.dataset.classes.names == ("s2", "s07", "s10")
    assert [b.label for b in opened.dataset.annotations] == ["s10", "s07"]


def test_numbers_with_other_zeros_are_two_classes_and_reported():
    opened = match_tables(RECORDINGS, [table(box("a", "7"), box("b", "007"))])
    assert opened.dataset.classes.names == ("s007", "s7")
    (finding,) = opened.findings
    assert (finding.code, finding.file, finding.serious) == ("W_SIMILAR_SPECIES", "t.csv", False)
    assert "'s007', 's7'" in finding.what


def test_number_and_its_class_are_one_class_whatever_other_labels_there_are():
    opened = match_tables(RECORDINGS, [table(box("a", "11"), box("b", "s11"), box("b", "owl"))])
    assert opened.dataset.classes.names == ("s11", "owl")
    assert [b.label for b in opened.dataset.annotations] == ["s11", "s11", "owl"]
    assert not opened.findings


def test_number_of_five_thousand_digits_is_a_class():
    opened = match_tables(RECORDINGS, [table(box("a", "9" * 5000), box("b", "10"))])
    assert opened.dataset.classes.names == ("s10", f"s{'9' * 5000}")


@pytest.mark.parametrize(
    ("spelling", "codes"),
    [
        ("zorzal PÁLIDO", ["W_SPECIES_SPELLINGS"]),
        ("Zorzal pa\u0301lido", []),
        (" Zorzal\u00a0 pálido ", []),
    ],
)
def test_spellings_of_one_species_are_one_class(spelling, codes):
    opened = match_tables(RECORDINGS, [table(box("a", "Zorzal pálido"), box("b", spelling))])
    assert opened.dataset.classes.names == ("Zorzal pálido",)
    assert [finding.code for finding in opened.findings] == codes


@pytest.mark.parametrize("spelling", ["Zorzal palido", "Zorzal-pálido", "Zorzalpálido"])
def test_similar_names_stay_two_classes_and_are_reported(spelling):
    opened = match_tables(RECORDINGS, [table(box("a", "Zorzal pálido"), box("b", spelling))])
    assert len(opened.dataset.classes) == 2
    assert [finding.code for finding in opened.findings] == ["W_SIMILAR_SPECIES"]


def test_other_name_of_a_species_is_the_species():
    names = {"11": ("Coquí", "E. coqui", "3"), "12": ("E. coqui", "Rana"), "owl": ("Rana",)}
    labels = ["11", "COQUI\u0301", "3", "E. coqui", "Rana", "Owl"]
    assert class_names(labels, names) == {
        "3": "s3",
        "11": "s11",
        "COQUI\u0301": "s11",
        "E. coqui": "E. coqui",  # two species have this name
        "Owl": "Owl",
        "Rana": "Rana",
    }
    assert class_names(["coquí"], names) == {"coquí": "s11"}


def test_annotation_without_an_end_ends_with_its_recording():
    opened = match_tables(
        RECORDINGS,
        [table(box("a", "owl", False, 0.0, math.inf), box("b", "owl", False, 9, math.inf))],
    )
    assert [b.stop for b in opened.dataset.annotations] == [10.0, 10.0]


def test_rows_that_begin_beyond_the_end_are_left_out_and_reported():
    boxes = [box("a", "owl", start=start, stop=start + 1) for start in (9.9, *range(10, 20))]
    opened = match_tables(RECORDINGS, [table(*boxes)])
    assert [b.start for b in opened.dataset.annotations] == [9.9]
    rows = [(f.code, f.file, f.row, f.serious) for f in opened.findings]
    assert rows == [("W_BOX_BEYOND_END", "t.csv", row, True) for row in (3, 4, 5, 6, 7, 8)]
    assert "10 s, a ends at 10.00 s" in opened.findings[0].what
    assert opened.findings[5].what.startswith("5 more rows")


def test_rows_without_audio_are_one_finding_a_table():
    rows = [box("gone", "owl"), box("gone", "owl", start=0.5), box("lost", "owl")]
    opened = match_tables(RECORDINGS, [table(box("a", "owl"), *rows)])
    (finding,) = opened.findings
    place = (finding.file, finding.row)
    assert (finding.code, *place, finding.serious) == ("W_NO_AUDIO", "t.csv", 3, False)
    assert "3 of 4 rows name 2 recordings" in finding.what
    assert "'gone'" in finding.what


def test_rows_of_an_ambiguous_name_are_left_out_and_reported():
    twins = tuple(
        Recording(f"{home}/x", Path(f"/data/{home}/x.wav"), 8000, 80000) for home in ("m", "n")
    )
    opened = match_tables(
        FoundRecordings((*RECORDINGS.recordings, *twins), ()),
        [table(box("a", "owl"), box("x", "owl"))],
    )
    (finding,) = opened.findings
    assert (finding.code, finding.row, finding.serious) == ("W_AMBIGUOUS_RECORDING", 3, True)
    assert "1 of 2 rows" in finding.what
    assert "2 recordings" in finding.what
    assert opened.missing == 0
    assert len(opened.dataset.annotations) == 1


def test_findings_of_reading_are_kept_in_order():
    first, second = (Finding("W_NO_AUDIO", name, None, "what", "remedy", False) for name in "ab")
    opened = match_tables(
        FoundRecordings(RECORDINGS.recordings, (first,)),
        [table(box("a", "owl"), findings=(second,), unvalidated=5)],
    )
    assert opened.findings == (first, second)
    assert opened.unvalidated == 5


@pytest.mark.parametrize(
    ("tables", "code", "value"),
    [
        ([], "E_NO_ANNOTATIONS", ""),
        ([table()], "E_NO_ANNOTATIONS", "t.csv"),
        ([table(unvalidated=12)], "E_NO_ANNOTATIONS", "t.csv: 12 rows"),
        ([table(box("a", EVERY_CLASS, False))], "E_NO_ANNOTATIONS", "t.csv"),
        ([table(box("gone", "owl"))], "E_NO_MATCHING_AUDIO", "none of 1 rows"),
        ([table(box("gone", "owl"))], "E_NO_MATCHING_AUDIO", "'gone'"),
        ([table(box("a", "owl", start=10, stop=11))], "E_NO_MATCHING_AUDIO", "t.csv:2: "),
    ],
)
def test_tables_without_a_box_to_learn_from_are_refused(tables, code, value):
    with pytest.raises(UserError) as error:
        match_tables(RECORDINGS, tables)
    assert error.value.code == code
    assert value in error.value.what


def test_source_reads_back_as_it_was_written(tmp_path):
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


def test_relative_path_is_written_relative_to_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_source(DataSource((Path("work/audio"), Path("other"))), Path("work/antpitta.toml"))
    source = read_source(Path("work"))
    assert source.audio == (Path("work/audio"), tmp_path / "other")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('audio = "a"\nabsents = "b"\n', "'absents'"),
        ("audio = 7\n", "'audio' is 7"),
        ('audio = ["a", 7]\n', "'audio' is"),
        ('audio = ""\n', "'audio' is ''"),
        ('present = "a"\n', "'audio'"),
        ('audio = "a"\nsites = ["a", "b"]\n', "'sites' has 2"),
        ("audio = \n", "line 1"),
    ],
)
def test_source_with_a_mistake_is_refused_with_its_key(tmp_path, text, value):
    path = tmp_path / "antpitta.toml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_source(path)
    assert error.value.code == "E_BAD_SOURCE"
    assert error.value.what.startswith(str(path))
    assert value in error.value.what


def test_source_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UserError) as error:
        read_source(tmp_path)
    assert error.value.code == "E_NO_FILE"
    assert "antpitta init" in error.value.remedy


def test_folder_with_tables_opens_as_a_data_set(tmp_path):
    (tmp_path / "audio").mkdir()
    for name in ("a", "b"):
        sf.write(tmp_path / "audio" / f"{name}.flac", np.zeros(8000), 8000)
    header = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"
    (tmp_path / "tp.csv").write_text(header + "a,3,1,0.1,100,0.5,900\nc,1,1,0.1,100,0.5,900\n")
    (tmp_path / "fp.csv").write_text(header + "b,3,1,0.1,100,0.5,900\n")
    (tmp_path / "antpitta.toml").write_text('audio="audio"\npresent="tp.csv"\nabsent="fp.csv"\n')
    opened = open_dataset(read_source(tmp_path))
    assert [(b.recording, b.label, b.present) for b in opened.dataset.annotations] == [
        ("a", "s3", True),
        ("b", "s3", False),
    ]
    assert opened.dataset.classes.names == ("s1", "s3")
    assert (opened.missing, opened.rows) == (1, 3)
    assert [row for _, row in opened.origins] == [2, 2]


def test_tables_of_the_competition_open_with_the_audio_that_is_here():
    if not REAL.is_dir():
        pytest.skip(f"no real recordings at {REAL}")
    opened = open_dataset(
        DataSource((REAL / "audio",), (REAL / "train_tp.csv",), (REAL / "train_fp.csv",))
    )
    assert len(opened.dataset.recordings) == 26
    assert opened.dataset.classes.names == tuple(f"s{i}" for i in range(24))
    assert (opened.rows, opened.missing) == (1216 + 7781, 1216 + 7781 - 18 - 31)
    assert sum(b.present for b in opened.dataset.annotations) == 18
    assert len(opened.findings) == 2
