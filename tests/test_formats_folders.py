"""Folders and zips of tables, and what is no table."""

import os
import tracemalloc
import zipfile

import pytest

from antpitta.core.errors import UserError
from antpitta.files.formats import read_table

HEADER = "recording,start_time,end_time,species,verdict\n"
GOOD = HEADER + "dawn,1,2,frog,present\n"


@pytest.fixture
def write(tmp_path):
    def save(**texts):
        for name, text in texts.items():
            path = tmp_path / "tables" / name.replace("__", "/").replace("_csv", ".csv")
            path = path.with_name(path.name.replace("_txt", ".txt"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "tables"

    return save


def findings(table):
    return [(f.code, f.file.rpartition("/")[2], f.row, f.serious) for f in table.findings]


def test_lost_table_is_serious_and_names_its_line_and_a_note_is_neither(write):
    folder = write(
        good_csv=GOOD,
        short_csv=GOOD + "dawn,3,4,frog\n",
        comma_csv=HEADER + 'dawn,"1,5",2,frog,present\n',
        notes_txt="Dear all, some, notes\nbye\n",
    )
    table = read_table(folder)
    assert [box.label for box in table.annotations] == ["frog"]
    assert findings(table) == [
        ("W_TABLE_LOST", "comma.csv", 2, True),
        ("W_NOT_A_TABLE", "notes.txt", None, False),
        ("W_TABLE_LOST", "short.csv", 3, True),
    ]


def test_folder_with_nothing_but_a_lost_table_is_refused_with_its_line(write):
    with pytest.raises(UserError) as error:
        read_table(write(short_csv=GOOD + "dawn,3,4,frog\n"))
    assert error.value.code == "E_TABLE_ROW"
    assert "tables/short.csv:3: 4 cells" in error.value.what


def test_rows_of_a_folder_and_of_a_zip_keep_file_and_line(write, tmp_path):
    folder = write(a__one_csv=GOOD, b__two_csv=GOOD + "dawn,3,4,frog,absent\n")
    origins = [(file.relative_to(folder).as_posix(), row) for file, row in
               read_table(folder).origins()]  # fmt: skip
    assert origins == [("a/one.csv", 2), ("b/two.csv", 2), ("b/two.csv", 3)]
    path = tmp_path / "tables.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*.csv"):
            archive.write(file, file.relative_to(folder))
    origins = [(file.relative_to(path).as_posix(), row) for file, row in read_table(path).origins()]
    assert origins == [("a/one.csv", 2), ("b/two.csv", 2), ("b/two.csv", 3)]


def test_pipes_and_devices_are_refused(write, tmp_path):
    folder = write(good_csv=GOOD)
    os.mkfifo(folder / "pipe.csv")
    assert findings(read_table(folder)) == [("W_TABLE_LOST", "pipe.csv", None, True)]
    for path in (folder / "pipe.csv", tmp_path.__class__("/dev/zero")):
        with pytest.raises(UserError) as error:
            read_table(path)
        assert error.value.code == "E_CANNOT_READ"


def damage(path):
    content = bytearray(path.read_bytes())
    content[60:80] = b"\xff" * 20
    path.write_bytes(content)


def test_zip_that_is_damaged_or_too_large_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", HEADER + "dawn,1,2,frog,present\n" * 500)
    damage(path)
    for name, members in (("b.zip", ("a.csv", "a.csv/b.csv")), ("c.zip", ("a.csv",) * 0)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member in members:
                archive.writestr(member, GOOD)
    with zipfile.ZipFile(tmp_path / "d.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", GOOD)
        archive.infolist()[0].file_size = 3 * 1024**3  # what a bomb's directory says
    for name, code in (
        ("a.zip", "E_BAD_ZIP"),
        ("b.zip", "E_BAD_ZIP"),
        ("c.zip", "E_UNKNOWN_TABLE"),
        ("d.zip", "E_BAD_ZIP"),
    ):
        with pytest.raises(UserError) as error:
            read_table(tmp_path / name)
        assert error.value.code == code
        assert name in error.value.what
        assert "/tmp/tmp" not in error.value.what


def test_message_about_a_table_of_many_columns_is_short(tmp_path):
    (tmp_path / "t.csv").write_text(",".join(f"c{i}" for i in range(10_000)) + "\n")
    with pytest.raises(UserError) as error:
        read_table(tmp_path / "t.csv")
    assert error.value.code == "E_UNKNOWN_TABLE"
    assert "and 9988 more" in error.value.what
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("name", "header", "row"),
    [
        (
            "raven.txt",
            "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)"
            "\tHigh Freq (Hz)\tBegin File\tSpecies\n",
            "{i}\tSpectrogram 1\t1\t{start}\t{stop}\t{low}\t{high}\trec{k}.wav\tsp {k}\n",
        ),
        ("audacity.txt", "", "{start}\t{stop}\tsp {k}\n\\\t{low}\t{high}\n"),
        (
            "kaleidoscope.csv",
            "INDIR,FOLDER,IN FILE,OFFSET,DURATION,Fmin,Fmax,AUTO ID,MANUAL ID\n",
            "D:/x,site,rec{k}.wav,{start},{stop},{low},{high},sp {k},sp {k}\n",
        ),
    ],
)
def test_a_large_table_is_held_once(tmp_path, name, header, row):
    rows, table = 5000, tmp_path / name
    cells = (
        {"start": f"{i / 7:.6f}", "stop": f"{i / 7 + 1:.6f}", "low": f"{i / 70:.3f}"}
        | {"high": f"{i / 70 + 900:.3f}", "i": i, "k": i // 100}
        for i in range(rows)
    )
    table.write_text(header + "".join(row.format(**cell) for cell in cells))
    read_table(table)
    tracemalloc.start()
    annotations = read_table(table).annotations
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(annotations) == rows
    assert peak < 650 * rows  # bytes; the annotations alone take 310 of them
