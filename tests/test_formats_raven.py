"""Raven's selection tables."""

import math

import pytest

from antpitta.core.errors import UserError
from antpitta.core.types import EVERY_CLASS, Annotation
from antpitta.files.formats import read_table
from antpitta.files.formats.columns import recording_from_table_name

COLUMNS = "Selection View Channel Begin_Time_(s) End_Time_(s) Low_Freq_(Hz) High_Freq_(Hz)"
HEADER = [name.replace("_", " ") for name in COLUMNS.split()]


def write_raven(folder, rows, extra=(), name="dawn.Table.1.selections.txt"):
    path = folder / name
    lines = [[*HEADER, *extra], *rows]
    path.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines))
    return path


def test_selection_is_present_in_the_recording_that_the_table_is_named_after(tmp_path):
    path = write_raven(tmp_path, [[1, "Spectrogram 1", 1, 1.25, 2.5, 400, 900, "frog"]], ["Tag"])
    table = read_table(path)
    assert table.annotations == (Annotation("dawn", 1.25, 2.5, "frog", True, 400.0, 900.0),)
    assert (table.format, table.rows) == ("raven", (2,))
    assert [annotation.present for annotation in read_table(path, verdict=False).annotations] == [
        False
    ]


def test_two_views_of_a_selection_count_once(tmp_path):
    rows = [
        [1, "Waveform 1", 1, 1, 2, 0, 0, "frog"],
        [1, "Spectrogram 1", 1, 1, 2, 400, 900, "frog"],
        [2, "Spectrogram 1", 1, 1, 2, 400, 900, "frog"],
    ]
    table = read_table(write_raven(tmp_path, rows, ["Species"]))
    assert table.rows == (3, 4)  # the waveform goes; another selection of the same box stays
    assert not table.findings
    assert table.unvalidated == 0


def test_table_without_rows_means_that_no_species_calls(tmp_path):
    table = read_table(write_raven(tmp_path, []))
    assert table.annotations == (Annotation("dawn", 0.0, math.inf, EVERY_CLASS, present=False),)
    assert table.rows == (1,)


def test_verdict_column_gives_present_absent_and_unknown(tmp_path):
    words = ["yes", "no", "", "what"]
    rows = [[i, "Spectrogram 1", 1, i, i + 1, 0, 9, "frog", w] for i, w in enumerate(words)]
    table = read_table(write_raven(tmp_path, rows, ["Species", "Verdict"]))
    assert [annotation.present for annotation in table.annotations] == [True, False]
    assert table.unvalidated == 1
    assert [(finding.code, finding.row) for finding in table.findings] == [
        ("W_VERDICT_UNREADABLE", 5)
    ]


def test_cumulative_times_become_times_in_the_file(tmp_path):
    extra = ["Begin File", "File Offset (s)", "Annotation"]
    rows = [
        [1, "Spectrogram 1", 1, 10, 12, 0, 9, "a.wav", 10, "frog"],
        [2, "Spectrogram 1", 1, 610.5, 612, 0, 9, "b.wav", 10.5, "frog"],
    ]
    table = read_table(write_raven(tmp_path, rows, extra))
    times = [
        (annotation.recording, annotation.start, annotation.stop)
        for annotation in table.annotations
    ]
    assert times == [("a.wav", 10, 12), ("b.wav", 10.5, 12)]
    assert not table.findings


def test_several_files_without_offsets_are_reported(tmp_path):
    rows = [
        [1, "Spectrogram 1", 1, 10, 12, 0, 9, "a.wav", "frog"],
        [2, "Spectrogram 1", 1, 61, 62, 0, 9, "b.wav", "frog"],
    ]
    table = read_table(write_raven(tmp_path, rows, ["Begin File", "Species"]))
    assert [finding.code for finding in table.findings] == ["W_NO_FILE_OFFSET"]
    assert [annotation.start for annotation in table.annotations] == [10, 61]


def test_path_names_the_recording_where_there_is_one(tmp_path):
    extra = ["Begin File", "Begin Path", "File Offset (s)", "Species"]
    rows = [
        [1, "Spectrogram 1", 1, 1, 2, 0, 9, "a.wav", r"D:\north\a.wav", 1, "frog"],
        [2, "Spectrogram 1", 1, 3, 4, 0, 9, "a.wav", r"D:\south\a.wav", 3, "frog"],
        [3, "Spectrogram 1", 1, 3, 4, 0, 9, "c.wav", r"D:\south\c.wav", 3, "frog"],
    ]
    table = read_table(write_raven(tmp_path, rows, extra))
    names = [annotation.recording for annotation in table.annotations]
    assert names == [r"D:\north\a.wav", r"D:\south\a.wav", r"D:\south\c.wav"]


def test_selections_without_a_species_column_are_refused(tmp_path):
    with pytest.raises(UserError) as error:
        read_table(write_raven(tmp_path, [[1, "Spectrogram 1", 1, 1, 2, 0, 9]]))
    assert error.value.code == "E_MISSING_COLUMN"
    assert "'Species'" in error.value.what


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
        ("dawn.audacity.txt", "dawn"),
        ("dawn.wav.audacity.Table.1.selections.txt", "dawn.wav"),
        ("dawn_HawkEars.txt", "dawn"),
        ("labels.txt", "labels"),
    ],
)
def test_name_of_a_table_gives_the_recording(tmp_path, name, recording):
    assert recording_from_table_name(tmp_path / name) == recording


def test_numbers_are_read_to_the_last_digit(tmp_path):
    row = [1, "Spectrogram 1", 1, "4999.123456789012", "5001.9876543210987", "0.1", "2e4", "a", 0.3]
    table = read_table(write_raven(tmp_path, [row], ["Species", "Score"]), verdict=True)
    box = (4999.123456789012, 5001.9876543210987, "a", True, 0.1, 20000.0)
    assert table.annotations == (Annotation("dawn", *box, score=0.3),)


def test_folder_of_tables_is_read_as_one(tmp_path):
    for name in ("a", "b"):
        row = [1, "Spectrogram 1", 1, 1, 2, 400, 900, "frog"]
        write_raven(tmp_path, [row], ["Species"], f"{name}.Table.1.selections.txt")
    table = read_table(tmp_path)
    assert [annotation.recording for annotation in table.annotations] == ["a", "b"]
    assert (table.format, table.rows) == ("raven", (2, 2))


def raven_rows(folder, extra, *cells, header=HEADER, name="dawn.selections.txt"):
    path = folder / name
    lines = [[*header, *extra], *([i, "Spectrogram 1", 1, *row] for i, row in enumerate(cells, 1))]
    path.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines))
    return read_table(path)


def starts(table):
    return [(annotation.recording, annotation.start, annotation.label) for annotation in
            table.annotations]  # fmt: skip


def codes(table):
    return [(finding.code, finding.row, finding.serious) for finding in table.findings]


def test_rows_that_are_shorter_than_the_header_are_filled_with_empty_cells(tmp_path):
    extra = ["Species", "Notes", "More"]
    table = raven_rows(tmp_path, extra, (1, 2, 0, 9, "frog"), (3, 4, 0, 9), (5, 6, 0))
    assert starts(table) == [("dawn", 1.0, "frog")]
    assert codes(table) == [("W_CELL_EMPTY", 3, True), ("W_CELL_EMPTY", 4, True)]


@pytest.mark.parametrize("cells", [['"'], ['"', '"'], ['6" mic'], ['"far" away'], ['say ""', "x"]])
def test_quote_marks_in_notes_swallow_nothing(tmp_path, cells):
    rows = [(i, i + 1, 0, 9, f"s{i}", *cells) for i in range(4)]
    table = raven_rows(tmp_path, ["Species", "Notes", "More"], *rows)
    assert [annotation.label for annotation in table.annotations] == ["s0", "s1", "s2", "s3"]


def test_quotes_of_a_spreadsheet_around_a_whole_cell_are_removed(tmp_path):
    table = raven_rows(tmp_path, ["Species", "Notes"], (1, 2, 0, 9, '"frog, green"', '"a\tb"'))
    assert [annotation.label for annotation in table.annotations] == ["frog, green"]


@pytest.mark.parametrize(
    "name", ["File Offset", "file_offset (sec)", "File.Offset..s.", "FILE OFFSET [s]"]
)
def test_offset_is_found_with_any_spelling_of_its_unit(tmp_path, name):
    table = raven_rows(tmp_path, ["Begin File", name, "Species"], (12, 13, 0, 9, "b.wav", 2, "a"))
    assert starts(table) == [("b.wav", 2.0, "a")]


def test_numbers_in_other_units_are_converted(tmp_path):
    path = tmp_path / "dawn.txt"
    path.write_text(
        "Species\tEnd Time (ms)\tBegin Time (ms)\tHigh Frequency (kHz)\tlow frequency\n"
        "frog\t2500\t1000\t4\t300\n"
    )
    box = Annotation("dawn", 1.0, 2.5, "frog", True, 300.0, 4000.0)
    assert read_table(path).annotations == (box,)


def test_rows_of_later_files_without_a_name_are_left_out(tmp_path):
    extra = ["File Offset (s)", "Begin File", "Species"]
    rows = [(1, 2, 0, 9, 1.004, "", "a"), (7, 8, 0, 9, 2, "", "b"), (7, 8, 0, 9, 2, "n.wav", "c")]
    table = raven_rows(tmp_path, extra, *rows)
    assert starts(table) == [("dawn", 1.004, "a"), ("n.wav", 2.0, "c")]
    assert codes(table) == [("W_FILE_NOT_NAMED", 3, True)]


@pytest.mark.parametrize(("begin", "serious"), [(3, True), (1, False)])
def test_times_that_look_cumulative_are_serious_without_offsets(tmp_path, begin, serious):
    rows = [(t, t + 1, 0, 9, "a.wav", "x") for t in (0, 1, 2)]
    rows += [(begin + t, begin + t + 1, 0, 9, "b.wav", "x") for t in (0, 1)]
    table = raven_rows(tmp_path, ["Begin File", "Species"], *rows)
    assert codes(table) == [("W_NO_FILE_OFFSET", None, serious)]


@pytest.mark.parametrize(
    ("path", "recording"),
    [
        (r"D:\siteB\a.wav", r"D:\siteB\a.wav"),
        (r"D:\siteB", r"D:\siteB/a.wav"),
        (r"D:\siteB\other.wav", "a.wav"),
        ("", "a.wav"),
    ],
)
def test_path_is_that_of_the_file_or_of_its_folder(tmp_path, path, recording):
    table = raven_rows(
        tmp_path, ["Begin File", "Begin Path", "Species"], (1, 2, 0, 9, "a.wav", path, "x")
    )
    assert [annotation.recording for annotation in table.annotations] == [recording]


def test_length_takes_the_place_of_the_end(tmp_path):
    path = tmp_path / "dawn.txt"
    path.write_text("Begin Time (s)\tDelta Time (s)\tSpecies\n3\t0.5\tfrog\n")
    assert read_table(path).annotations == (Annotation("dawn", 3.0, 3.5, "frog"),)


@pytest.mark.parametrize("name", ["Score", "Confidence", "prob_species", "Detection score"])
def test_selection_with_a_score_is_unknown_and_one_without_is_present(tmp_path, name):
    rows = [(1, 2, 0, 9, "a", 0.3), (3, 4, 0, 9, "b", ""), (5, 6, 0, 9, "c", 0)]
    table = raven_rows(tmp_path, ["Species", name], *rows)
    assert (starts(table), table.unvalidated) == ([("dawn", 3.0, "b")], 2)


def test_empty_table_of_a_detector_says_nothing(tmp_path):
    table = raven_rows(tmp_path, ["Species", "Score"])
    assert (table.annotations, table.unvalidated) == ((), 0)
