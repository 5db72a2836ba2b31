"""Tables: every encoding, separator and line end; and what is refused."""

import csv

import numpy as np
import pandas as pd
import pytest

from antpitta.core.errors import UserError
from antpitta.files.tables import read_frame, read_prevalence, write_csv, write_prevalence

TEXT = "recording;species;note\n00204;Pitta café;NA\n7;coquí;\n"


@pytest.fixture
def table(tmp_path):
    def save(content, encoding="utf-8"):
        path = tmp_path / "table.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return save


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"],
)
def test_table_reads_the_same_in_every_encoding(table, encoding):
    frame = read_frame(table(TEXT, encoding))
    assert list(frame.columns) == ["recording", "species", "note"]
    assert frame.values.tolist() == [["00204", "Pitta café", "NA"], ["7", "coquí", ""]]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_table_reads_the_same_with_every_separator_and_line_end(table, separator, newline):
    text = f'"a, b; c"{separator}d{newline}1{separator}"x{separator}y"{newline}'
    frame = read_frame(table(text))
    assert list(frame.columns) == ["a, b; c", "d"]
    assert frame.values.tolist() == [["1", f"x{separator}y"]]


def test_index_is_the_line_also_after_blank_lines_and_line_breaks(table):
    frame = read_frame(table('a,b\n\n1,"two\nlines"\n,,\n 3 ,4,,\n'))
    assert frame.index.tolist() == [3, 6]
    assert frame.loc[6].tolist() == ["3", "4"]


def test_first_line_of_excel_gives_the_separator(table):
    frame = read_frame(table("sep=;\na,b;c\n1,5;2\n"))
    assert list(frame.columns) == ["a,b", "c"]
    assert frame.index.tolist() == [3]


def test_header_alone_is_a_table_without_rows(table):
    frame = read_frame(table("a,b"))
    assert frame.empty
    assert list(frame.columns) == ["a", "b"]


def test_columns_without_a_name_get_one(table):
    assert list(read_frame(table(",x,,y,\n0,1,2,3,\n")).columns) == [
        "column 1",
        "x",
        "column 3",
        "y",
    ]


@pytest.mark.parametrize(
    ("content", "code", "where"),
    [
        (b"", "E_TABLE_EMPTY", "table.csv"),
        (b"\n \n", "E_TABLE_EMPTY", "table.csv"),
        (b"a,b\n1,2\n3\n", "E_TABLE_ROW", "table.csv:3"),
        (b"a,b\n1,2,3\n", "E_TABLE_ROW", "table.csv:2"),
        (b"a,a\n1,2\n", "E_DUPLICATE_COLUMN", "table.csv:1"),
        (b'a,b\n1,"2\n', "E_TABLE_ROW", "table.csv:2"),
        (b"PK\x03\x04rest", "E_NOT_TEXT", "table.csv"),
        (b"a,b\n1,\x00\n", "E_NOT_TEXT", "table.csv"),
        (b"\xff\xfea", "E_NOT_TEXT", "table.csv"),
    ],
)
def test_wrong_table_is_an_error_with_its_line(table, content, code, where):
    with pytest.raises(UserError) as error:
        read_frame(table(content))
    assert error.value.code == code
    assert f"{where}: " in error.value.what


def test_written_table_reads_back(tmp_path):
    path = tmp_path / "new" / "t.csv"
    frame = pd.DataFrame({"a": ["x,y", 'q"r'], "b": ["línea", ""]})
    write_csv(frame, path)
    assert read_frame(path).values.tolist() == frame.values.tolist()
    assert [p.name for p in path.parent.iterdir()] == ["t.csv"]


def test_prevalences_read_back_in_the_models_order(tmp_path):
    path = tmp_path / "prevalence.csv"
    write_prevalence(("owl", "frog"), np.array([0.25, 0.5]), path)
    np.testing.assert_array_equal(
        read_prevalence(path, ("frog", "newt", "owl")), [0.5, np.nan, 0.25]
    )


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("species\nowl\n", "E_MISSING_COLUMN"),
        ("species,prevalence\nowl,1.2\n", "E_PREVALENCE_VALUE"),
        ("species,prevalence\nowl,often\n", "E_PREVALENCE_VALUE"),
        ("species,prevalence\nowl,0.1\nowl,0.9\n", "E_PREVALENCE_TWICE"),
        ("species,prevalence\nnewt,0.5\n", "E_PREVALENCE_SPECIES"),
    ],
)
def test_wrong_table_of_prevalences_is_an_error(table, content, code):
    with pytest.raises(UserError) as error:
        read_prevalence(table(content), ("owl", "frog"))
    assert error.value.code == code


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_quote_mark_that_swallows_a_row_is_refused(table, newline):
    rows = ["a,b,notes", "1,2,faint", '3,4,"', '5,6,"', "7,8,loud"]
    with pytest.raises(UserError) as error:
        read_frame(table(newline.join(rows) + newline))
    assert error.value.code == "E_TABLE_ROW"
    assert ":3: " in error.value.what


def test_cell_of_several_lines_is_read(table):
    frame = read_frame(table('a,b,notes\n1,2,"far, \nthen near"\n3,4,x\n'))
    assert frame["notes"].tolist() == ["far, \nthen near", "x"]
    assert frame.index.tolist() == [2, 4]


def test_species_with_two_prevalences_is_refused(table):
    path = table("species,prevalence\ns0,0.1\nS0,0.9\n")
    with pytest.raises(UserError) as error:
        read_prevalence(path, ("s0",))
    assert error.value.code == "E_PREVALENCE_TWICE"
    assert ":3: " in error.value.what


def test_prevalence_is_found_by_the_id_of_a_species(table):
    path = table("species,prevalence\n0,0.1\nCoqui,0.9\n")
    assert read_prevalence(path, ("s0", "coqui")).tolist() == [0.1, 0.9]


def test_names_with_separators_and_line_ends_read_back(tmp_path):
    names = ["a\rb", "a\nb", "a,b", 'a"b', "=cmd", "NA", "null", "\U0001f438"]
    write_csv(pd.DataFrame({"file": names, "score": 0.5}), tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    assert table["file"].tolist() == names
    assert table["score"].tolist() == [0.5] * len(names)
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as lines:
        assert [row["file"] for row in csv.DictReader(lines)] == names
    assert read_frame(tmp_path / "t.csv")["file"].tolist() == names


@pytest.mark.parametrize(
    "name", ["a,b\nc", "a\nb,c", "a,b\nc,d", "a\r\nb, c", 'a "b", c\nd', "a,\nb"]
)
def test_name_with_a_line_end_and_commas_in_a_table_of_two_columns_is_read(tmp_path, name):
    write_csv(pd.DataFrame({"species": [name, "owl"], "score": 0.5}), tmp_path / "t.csv")
    assert read_frame(tmp_path / "t.csv")["species"].tolist() == [name, "owl"]


@pytest.mark.parametrize(
    "rows", [['owl,"', 'frog,"'], ['"', 'owl,",1'], ['owl,"', "frog,1", '",x']]
)
def test_quote_mark_that_swallows_a_row_of_two_columns_is_refused(table, rows):
    with pytest.raises(UserError) as error:
        read_frame(table("\n".join(["species,notes", *rows, "newt,x"]) + "\n"))
    assert error.value.code == "E_TABLE_ROW"
