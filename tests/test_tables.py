import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from antpitta.core.errors import UserError
from antpitta.files.tables import read_frame, write_csv
from antpitta.files.texts import atomic_replace, read_text, write_json, write_text

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
def test_a_table_reads_the_same_in_every_encoding(table, encoding):
    frame = read_frame(table(TEXT, encoding))
    assert list(frame.columns) == ["recording", "species", "note"]
    assert frame.values.tolist() == [["00204", "Pitta café", "NA"], ["7", "coquí", ""]]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_table_reads_the_same_with_every_separator_and_line_end(table, separator, newline):
    text = f'"a, b; c"{separator}d{newline}1{separator}"x{separator}y"{newline}'
    frame = read_frame(table(text))
    assert list(frame.columns) == ["a, b; c", "d"]
    assert frame.values.tolist() == [["1", f"x{separator}y"]]


def test_the_index_is_the_line_whatever_comes_before(table):
    frame = read_frame(table('a,b\n\n1,"two\nlines"\n,,\n 3 ,4,,\n'))
    assert frame.index.tolist() == [3, 6]
    assert frame.loc[6].tolist() == ["3", "4"]


def test_a_spreadsheets_first_line_is_obeyed_and_passed_over(table):
    frame = read_frame(table("sep=;\na,b;c\n1,5;2\n"))
    assert list(frame.columns) == ["a,b", "c"]
    assert frame.index.tolist() == [3]


def test_a_header_alone_is_a_table_without_rows(table):
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
    ("content", "words"),
    [
        (b"", "the table is empty"),
        (b"\n \n", "the table is empty"),
        (b"a,b\n1,2\n3\n", "table.csv:3: 1 cells under 2 columns"),
        (b"a,b\n1,2,3\n", "table.csv:2: 3 cells under 2 columns"),
        (b"a,a\n1,2\n", "column 'a' stands twice"),
        (b'a,b\n1,"2\n', "table.csv:2: unexpected end of data"),
        (b"PK\x03\x04rest", "save the table as CSV"),
        (b"a,b\n1,\x00\n", "not a text file"),
        (b"\xff\xfea", "characters cannot be read"),
    ],
)
def test_a_table_that_cannot_be_trusted_is_refused_with_its_line(table, content, words):
    with pytest.raises(UserError, match=r"table\.csv") as told:
        read_frame(table(content))
    assert words in str(told.value)


def test_a_missing_table_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_text(tmp_path / "none.csv")


def test_what_is_written_reads_back(tmp_path):
    path = tmp_path / "new" / "t.csv"
    frame = pd.DataFrame({"a": ["x,y", 'q"r'], "b": ["línea", ""]})
    write_csv(frame, path)
    assert read_frame(path).values.tolist() == frame.values.tolist()
    assert [p.name for p in path.parent.iterdir()] == ["t.csv"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "t.txt"
    write_text("old", path)

    def fail():
        with atomic_replace(path) as unfinished:
            unfinished.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@dataclass
class Point:
    x: float
    where: Path


def test_json_is_plain_whatever_went_in(tmp_path):
    write_json(
        {
            1: np.array([1.0, np.nan]),
            "n": np.int64(3),
            "at": datetime(2020, 6, 7, tzinfo=UTC),
            "point": Point(float("inf"), Path("a") / "b"),
            "set": {2, 1},
            "flag": True,
        },
        tmp_path / "x.json",
    )
    assert json.loads((tmp_path / "x.json").read_text()) == {
        "1": [1.0, None],
        "n": 3,
        "at": "2020-06-07T00:00:00+00:00",
        "point": {"x": None, "where": "a/b"},
        "set": [1, 2],
        "flag": True,
    }
