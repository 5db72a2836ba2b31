"""The competition's tables, and what every table by columns has in common."""

import time
from pathlib import Path

import pytest

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation
from antpitta.files.formats import read_table

HEADER = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"
REAL = Path(__file__).parents[1].parent / "shared" / "data" / "rfcx"


def write(folder, text, name="boxes.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_box_takes_the_verdict_of_its_file(tmp_path):
    path = write(tmp_path, HEADER + "003bec244,14,1,44.544,2531.25,45.1307,5531.25\n")
    box = ("003bec244", 44.544, 45.1307, "14")
    for verdict in (True, False):
        table = read_table(path, verdict)
        assert table.annotations == (Annotation(*box, verdict, 2531.25, 5531.25, songtype="1"),)
        assert (table.format, table.rows, table.findings) == ("rfcx", (2,), ())


def test_columns_in_another_order_and_beside_others_are_read(tmp_path):
    text = "comment,T_Max,species_id,x1,t_min,recording_id\nhm,2.5,3,9,1.5,r\n"
    table = read_table(write(tmp_path, text), True)
    assert table.annotations == (Annotation("r", 1.5, 2.5, "3"),)


def test_table_without_a_verdict_is_refused(tmp_path):
    with pytest.raises(UserError) as error:
        read_table(write(tmp_path, HEADER))
    assert error.value.code == "E_NO_VERDICT"
    assert "--present" in error.value.remedy


def test_header_without_rows_gives_no_annotation(tmp_path):
    table = read_table(write(tmp_path, HEADER), True)
    assert (table.annotations, table.findings, table.unvalidated) == ((), (), 0)


def test_bad_row_is_left_out_and_reported_with_its_line(tmp_path):
    rows = [
        "a,1,1,0,0,1,100",
        "a,1,1,5,0,4,100",
        "",
        "a,1,1,4,0,4,100",
        "a,1,1,x,0,4,100",
        "a,1,1,1,900,4,100",
        "a,1,1,-1,0,4,100",
        "a,,1,1,0,4,100",
        ",1,1,1,0,4,100",
        "a,1,1,,0,4,100",
        "a,1,1,1_0,0,40,100",
        "a,1,1,2,0,4,",
    ]
    table = read_table(write(tmp_path, HEADER + "\n".join(rows)), False)
    assert table.rows == (2, 13)
    assert [a.high for a in table.annotations] == [100.0, float("inf")]
    assert [(finding.row, finding.code) for finding in table.findings] == [
        (3, "W_BOX_EMPTY"),
        (5, "W_BOX_EMPTY"),
        (6, "W_NOT_A_NUMBER"),
        (7, "W_BOX_EMPTY"),
        (8, "W_BOX_OUTSIDE"),
        (9, "W_CELL_EMPTY"),
        (10, "W_CELL_EMPTY"),
        (11, "W_NOT_A_NUMBER"),
        (12, "W_NOT_A_NUMBER"),
    ]
    values = {3: "5 to 4 s", 5: "4 to 4 s", 6: "'x'", 7: "900 to 100 Hz", 8: "-1 s", 12: "'1_0'"}
    for finding in table.findings:
        assert values.get(finding.row, "") in finding.what
    assert all(finding.file.endswith("boxes.csv") for finding in table.findings)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_semicolons_and_encodings_of_spreadsheets_are_read(tmp_path, encoding):
    text = (HEADER + "año,1,1,0.5,0,1.5,100\n").replace(",", ";")
    table = read_table(write(tmp_path, text, encoding=encoding), True)
    assert table.annotations == (Annotation("año", 0.5, 1.5, "1", high=100.0, songtype="1"),)


def test_decimal_comma_is_refused_with_its_place(tmp_path):
    text = HEADER.replace(",", ";") + "a;1;1;0.5;0;1.5;100\na;1;1;0,5;0;1,5;100\n"
    with pytest.raises(UserError) as error:
        read_table(write(tmp_path, text), True)
    assert error.value.code == "E_DECIMAL_COMMA"
    assert "boxes.csv:3: t_min is '0,5'" in error.value.what


def test_missing_column_is_named_with_its_nearest(tmp_path):
    text = "recording_id,species_id,tmin,t_max\na,1,0,1\n"
    with pytest.raises(UserError) as error:
        read_table(write(tmp_path, text), True)
    assert error.value.code == "E_MISSING_COLUMN"
    assert "'t_min' (nearest: 'tmin')" in error.value.what
    assert "rfcx" in error.value.what


def test_unknown_table_lists_its_columns_and_the_known_formats(tmp_path):
    with pytest.raises(UserError) as error:
        read_table(write(tmp_path, "colour,price\nred,3\n"), True)
    assert error.value.code == "E_UNKNOWN_TABLE"
    assert "colour, price" in error.value.what
    assert "antpitta, rfcx" in error.value.remedy


def test_numbers_are_read_to_the_last_digit(tmp_path):
    row = '"r,1",3,a b,1.0000000000000002,0.1,3600.1234567890122,99999.999999999985\n'
    annotations = read_table(write(tmp_path, HEADER + row), False).annotations
    times = (1.0000000000000002, 3600.1234567890122)
    band = (0.1, 99999.999999999985)
    assert annotations == (Annotation("r,1", *times, "3", False, *band, songtype="a b"),)


@pytest.mark.skipif(not REAL.is_dir(), reason="the competition's tables are not here")
@pytest.mark.parametrize(("name", "count"), [("train_tp.csv", 1216), ("train_fp.csv", 7781)])
def test_tables_of_the_competition_are_read_whole_and_fast(name, count):
    started = time.perf_counter()
    table = read_table(REAL / name, name == "train_tp.csv")
    assert time.perf_counter() - started < 1
    assert len(table.annotations) == count
    assert not table.findings
    assert len({annotation.label for annotation in table.annotations}) == 24
    assert table.rows == tuple(range(2, count + 2))
