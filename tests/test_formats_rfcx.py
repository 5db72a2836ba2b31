"""The competition's tables, and what every table by columns has in common."""

import time
from pathlib import Path

import numpy as np
import pytest

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation
from antpitta.files.formats import read_table, write_table

HEADER = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"
REAL = Path(__file__).parents[1].parent / "shared" / "data" / "rfcx"


def table(folder, text, name="boxes.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_a_box_becomes_an_annotation_with_the_verdict_of_its_file(tmp_path):
    path = table(tmp_path, HEADER + "003bec244,14,1,44.544,2531.25,45.1307,5531.25\n")
    box = ("003bec244", 44.544, 45.1307, "14")
    for verdict in (True, False):
        read = read_table(path, verdict)
        assert read.annotations == (Annotation(*box, verdict, 2531.25, 5531.25, songtype="1"),)
        assert (read.format, read.rows, read.findings) == ("rfcx", (2,), ())


def test_columns_may_come_in_any_order_and_beside_others(tmp_path):
    text = "comment,T_Max,species_id,x1,t_min,recording_id\nhm,2.5,3,9,1.5,r\n"
    read = read_table(table(tmp_path, text), True)
    assert read.annotations == (Annotation("r", 1.5, 2.5, "3"),)


def test_without_a_verdict_the_remedy_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--present or as --absent"):
        read_table(table(tmp_path, HEADER))


def test_a_header_without_rows_says_nothing(tmp_path):
    read = read_table(table(tmp_path, HEADER), True)
    assert (read.annotations, read.findings, read.unvalidated) == ((), (), 0)


def test_a_bad_row_is_left_out_and_reported_with_its_line(tmp_path):
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
    read = read_table(table(tmp_path, HEADER + "\n".join(rows)), False)
    assert read.rows == (2, 13)
    assert [a.high for a in read.annotations] == [100.0, float("inf")]
    assert [(f.row, f.what) for f in read.findings] == [
        (3, "reversed box, 5 to 4 s"),
        (5, "empty box, 4 to 4 s"),
        (6, "t_min is 'x', not a number"),
        (7, "reversed box, 900 to 100 Hz"),
        (8, "the box begins at -1 s"),
        (9, "no species"),
        (10, "no recording"),
        (11, "t_min is empty"),
        (12, "t_min is '1_0', not a number"),
    ]
    assert all(f.file.endswith("boxes.csv") for f in read.findings)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_a_spreadsheets_semicolons_and_encodings_are_read(tmp_path, encoding):
    text = (HEADER + "año,1,1,0.5,0,1.5,100\n").replace(",", ";")
    read = read_table(table(tmp_path, text, encoding=encoding), True)
    assert read.annotations == (Annotation("año", 0.5, 1.5, "1", high=100.0, songtype="1"),)


def test_a_decimal_comma_stops_the_reading_and_says_where(tmp_path):
    text = HEADER.replace(",", ";") + "a;1;1;0.5;0;1.5;100\na;1;1;0,5;0;1,5;100\n"
    with pytest.raises(UserError, match=r"boxes\.csv:3: t_min is '0,5', with a decimal comma"):
        read_table(table(tmp_path, text), True)


def test_a_missing_column_is_named_with_its_nearest(tmp_path):
    text = "recording_id,species_id,tmin,t_max\na,1,0,1\n"
    with pytest.raises(UserError, match=r"no column 't_min' \(nearest: 'tmin'\).*rfcx"):
        read_table(table(tmp_path, text), True)


def test_a_strange_table_lists_what_was_seen_and_what_is_known(tmp_path):
    with pytest.raises(UserError, match=r"columns are colour, price; known are antpitta, rfcx"):
        read_table(table(tmp_path, "colour,price\nred,3\n"), True)


def test_present_and_absent_in_one_table_are_refused_unless_one_is_chosen(tmp_path):
    both = [Annotation("a", 0, 1, "1"), Annotation("a", 2, 3, "1", present=False)]
    path = tmp_path / "out.csv"
    with pytest.raises(UserError, match="write one table of each"):
        write_table(both, path, "rfcx")
    assert not path.exists()
    write_table(both, path, "rfcx", verdict=False)
    assert read_table(path, False).annotations == (both[1],)


def test_read_write_read_gives_the_same_annotations_for_any_numbers(tmp_path):
    rng = np.random.default_rng(5)
    start = rng.uniform(0, 3600, 500) ** rng.uniform(0.1, 1, 500)
    boxes = [
        Annotation(f"r,{i}", s, s + d, str(i % 24), False, low, low + 1e-9 + high, songtype="a b")
        for i, (s, d, low, high) in enumerate(
            zip(
                *(start.tolist(), rng.exponential(3, 500).tolist()),
                *(rng.uniform(0, 9e3, 500).tolist(), rng.uniform(1, 1e5, 500).tolist()),
                strict=True,
            )
        )
    ]
    boxes.append(Annotation("whole", 0.0, float("inf"), "*", False))
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    write_table(boxes, first, "rfcx")
    read = read_table(first, False)
    assert read.annotations == tuple(boxes)
    write_table(read.annotations, second, "rfcx")
    assert first.read_text() == second.read_text()


@pytest.mark.skipif(not REAL.is_dir(), reason="the competition's tables are not here")
@pytest.mark.parametrize(("name", "count"), [("train_tp.csv", 1216), ("train_fp.csv", 7781)])
def test_the_real_tables_are_read_whole_and_fast(tmp_path, name, count):
    began = time.perf_counter()
    read = read_table(REAL / name, name == "train_tp.csv")
    assert time.perf_counter() - began < 1
    assert len(read.annotations) == count
    assert not read.findings
    assert len({said.label for said in read.annotations}) == 24
    assert read.rows == tuple(range(2, count + 2))
    write_table(read.annotations, tmp_path / "again.csv", "rfcx")
    again = read_table(tmp_path / "again.csv", name == "train_tp.csv")
    assert again.annotations == read.annotations
