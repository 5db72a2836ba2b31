"""antpitta's own table, hoplite's, and the choice of the format."""

import math

import pytest

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation
from antpitta.files.formats import FORMATS, read_table
from antpitta.files.formats.sheet import AnnotationTable

HEADER = "recording,start_time,end_time,low_freq,high_freq,species,verdict,songtype,score,source\n"


def write(folder, text, name="annotations.csv"):
    path = folder / name
    path.write_text(text)
    return path


def codes(table):
    return [(finding.code, finding.row, finding.serious) for finding in table.findings]


def test_own_table_gives_every_field_to_the_last_digit(tmp_path):
    rows = [
        "site/rec 1.wav,1.2345678901234567,2.1000000000000001,100.1,900.9,Grallaria nana,present,"
        "song,0.3,review:ann",
        'rec 2.wav,0.1,0.30000000000000004,,,"""odd"", name",absent,,,',
        "quiet,0,inf,,,*,absent,,,human",
    ]
    table = read_table(write(tmp_path, HEADER + "\n".join(rows)))
    assert table.annotations == (
        Annotation(
            *("site/rec 1.wav", 1.2345678901234567, 2.1, "Grallaria nana", True, 100.1, 900.9),
            *("review:ann", "song", 0.3),
        ),
        Annotation("rec 2.wav", 0.1, 0.30000000000000004, '"odd" name'.replace('" ', '", '), False),
        Annotation("quiet", 0.0, math.inf, "*", present=False),
    )
    assert (table.format, table.rows, table.findings) == ("antpitta", (2, 3, 4), ())


def test_rows_without_verdict_are_counted_and_unreadable_verdicts_reported(tmp_path):
    words = ["Present", "absent", "", "uncertain", "perhaps", "not present"]
    text = HEADER + "".join(f"a,0,1,,,x,{word},,,\n" for word in words)
    table = read_table(write(tmp_path, text))
    assert [annotation.present for annotation in table.annotations] == [True, False, False]
    assert table.rows == (2, 3, 7)
    assert table.unvalidated == 2
    assert codes(table) == [("W_VERDICT_UNREADABLE", 6, True)]
    assert "'perhaps'" in table.findings[0].what


def test_bad_row_without_verdict_is_only_counted(tmp_path):
    table = read_table(write(tmp_path, HEADER + "a,9,1,,,x,,,,\n"))
    assert (table.annotations, table.findings, table.unvalidated) == ((), (), 1)


def test_verdict_of_a_row_wins_over_the_flag_and_is_reported(tmp_path):
    text = HEADER + "a,0,1,,,x,absent,,,\na,0,1,,,y,present,,,\n"
    table = read_table(write(tmp_path, text), verdict=True)
    assert [annotation.present for annotation in table.annotations] == [False, True]
    assert codes(table) == [("W_VERDICT_CONFLICT", None, False)]
    assert "--present" in table.findings[0].what


def test_every_species_present_at_once_is_left_out(tmp_path):
    table = read_table(write(tmp_path, HEADER + "a,0,1,,,*,present,,,\n"))
    assert not table.annotations
    assert codes(table) == [("W_ALL_PRESENT", 2, True)]


def test_events_of_a_model_are_refused(tmp_path):
    header = "file,start_time,end_time,low_freq,high_freq,species,score,model\n"
    with pytest.raises(UserError) as error:
        read_table(write(tmp_path, header + "a.wav,0,1,0,9,x,0.9,m\n"))
    assert error.value.code == "E_MODEL_EVENTS"


def test_hoplite_uncertain_is_unknown_and_times_are_exact(tmp_path):
    path = write(
        tmp_path,
        "recording,label,start_offset_s,end_offset_s,label_type\n"
        "DEP01/a.wav,bird,0.5,1.5,positive\n"
        "DEP01/a.wav,frog,86399.123456789012,86404.123456789012,negative\n"
        "DEP02/a.wav,frog,2.0,3.0,uncertain\n",
        "hoplite_annotations.csv",
    )
    table = read_table(path)
    expected = (
        Annotation("DEP01/a.wav", 0.5, 1.5, "bird"),
        Annotation("DEP01/a.wav", 86399.123456789012, 86404.123456789012, "frog", present=False),
    )
    assert (table.format, table.annotations, table.unvalidated) == ("hoplite", expected, 1)


def test_folder_of_tables_is_read_as_one_and_other_files_are_reported(tmp_path):
    write(tmp_path, HEADER + "a,0,1,,,x,present,,,\n")
    write(tmp_path, "1.0\t2.0\tfrog\n", "b.txt")
    write(tmp_path, "no table at all\n", "readme.txt")
    write(tmp_path, "1.0\t2.0\tfrog\n", ".hidden.txt")
    table = read_table(tmp_path)
    assert {annotation.recording for annotation in table.annotations} == {"a", "b"}
    assert set(table.format.split("+")) == {"antpitta", "audacity"}
    assert codes(table) == [("W_NOT_A_TABLE", None, False)]
    assert table.findings[0].file.endswith("readme.txt")


def test_paths_without_a_table_are_refused(tmp_path):
    with pytest.raises(UserError) as missing:
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(UserError) as empty:
        read_table(tmp_path)
    (tmp_path / "bad.zip").write_bytes(b"PK no zip")
    with pytest.raises(UserError) as broken:
        read_table(tmp_path / "bad.zip")
    codes = [error.value.code for error in (missing, empty, broken)]
    assert codes == ["E_NO_FILE", "E_UNKNOWN_TABLE", "E_BAD_ZIP"]


def test_registry_has_the_documented_formats():
    assert set(FORMATS) >= {"antpitta", "rfcx", "arbimon", "raven", "audacity", "birdnet"}


def test_annotation_table_without_a_row_for_each_annotation_is_refused(tmp_path):
    with pytest.raises(ValueError, match="1 rows for 0 annotations"):
        AnnotationTable("antpitta", tmp_path, (), (2,))
