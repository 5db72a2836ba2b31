"""Text and JSON files: written completely or not at all, and plain JSON from any value."""

import gzip
import json
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from antpitta.core.errors import UserError
from antpitta.files.texts import (
    atomic_replace,
    first_line,
    iter_lines,
    path_exists,
    read_json,
    read_text,
    remove_unfinished,
    write_json,
    write_text,
)


def test_missing_file_is_an_error_with_its_path(tmp_path):
    with pytest.raises(UserError) as error:
        read_text(tmp_path / "none.csv")
    assert error.value.code == "E_CANNOT_READ"
    assert str(tmp_path / "none.csv") in error.value.what


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path):
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


def test_json_is_written_from_numpy_paths_dates_and_dataclasses(tmp_path):
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


def test_files_of_killed_writers_are_removed_and_no_others(tmp_path):
    kept = tmp_path / ".hidden.csv"
    kept.write_text("mine")
    with atomic_replace(tmp_path / "t.csv") as unfinished:
        unfinished.write_text("half")
        leftover = unfinished.with_name(unfinished.name.replace(".t.", ".u."))
        leftover.write_text("half")
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden.csv", "t.csv"]


def test_json_object_reads_back_and_no_file_is_an_empty_one(tmp_path):
    assert read_json(tmp_path / "x.json") == {}
    write_json({"a": 1}, tmp_path / "x.json")
    assert read_json(tmp_path / "x.json") == {"a": 1}


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_file_that_is_no_json_object_is_an_error(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError) as error:
        read_json(tmp_path / "x.json")
    assert error.value.code == "E_NOT_JSON"


def _pipe(path):
    os.mkfifo(path)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (_pipe, "E_CANNOT_READ"),
        (_socket, "E_CANNOT_READ"),
        (lambda path: path.symlink_to("/dev/zero"), "E_CANNOT_READ"),
        (lambda path: path.symlink_to(path), "E_CANNOT_READ"),
        (lambda path: path.mkdir(), "E_CANNOT_READ"),
        (lambda path: path.write_bytes(gzip.compress(b"a,b\n1,2\n")), "E_NOT_TEXT"),
        (lambda path: path.write_bytes(b"a,b\n1,\0\n"), "E_NOT_TEXT"),
        (lambda path: path.write_bytes(b"x" * 12_000_000), "E_NOT_TEXT"),
        (lambda path: _write_sparse(path, b"a,b\n"), "E_FILE_TOO_LARGE"),
    ],
)
def test_what_is_no_text_file_is_refused(tmp_path, make, code):
    path = tmp_path / "t.csv"
    make(path)
    with pytest.raises(UserError) as error:
        read_text(path)
    assert error.value.code == code
    assert str(path) in error.value.what


def _write_sparse(path, head):
    with path.open("wb") as file:
        file.write(head)
        file.truncate(5_000_000_000)


def test_name_that_no_disk_can_hold_does_not_exist():
    assert not path_exists(Path("a" * 5000))
    with pytest.raises(UserError) as error:
        read_text(Path("a" * 5000))
    assert error.value.code == "E_CANNOT_READ"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a\n",
        "\n\na\r\nb\rc",
        " \n\t x\u2028y",
        "a\x0bb\x0cc\x85d\x1ee",
        "\r\n\r",
        "\ta\tb",
    ],
)
def test_lines_are_those_of_splitlines(text):
    assert list(iter_lines(text)) == text.splitlines(keepends=True)
    assert first_line(text) == next((x for x in text.splitlines() if x.strip()), "")
