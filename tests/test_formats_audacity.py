"""Audacity's label tracks."""

import math

import numpy as np
import pytest

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation
from antpitta.files.formats import read_table
from antpitta.files.formats.audacity import write_track


def write(folder, text, name="dawn.txt"):
    path = folder / name
    path.write_text(text)
    return path


def test_labels_are_present_and_a_second_line_gives_the_frequencies(tmp_path):
    text = "0.500000\t1.250000\tfrog\n\\\t400.0\t900.5\n2\t3\tbird\n\\\t-1.0\t800\n4\t5\tbird\n"
    table = read_table(write(tmp_path, text))
    assert table.annotations == (
        Annotation("dawn", 0.5, 1.25, "frog", True, 400.0, 900.5),
        Annotation("dawn", 2.0, 3.0, "bird", True, 0.0, 800.0),
        Annotation("dawn", 4.0, 5.0, "bird"),
    )
    assert (table.format, table.rows) == ("audacity", (1, 3, 5))


def test_points_and_labels_without_text_are_reported_with_their_line(tmp_path):
    table = read_table(write(tmp_path, "1\t1\tfrog\n2\t3\t\n\n4\t5\tfrog\nodd line\n"))
    assert table.rows == (4,)
    assert [(finding.row, finding.code) for finding in table.findings] == [
        (1, "W_BOX_EMPTY"),
        (2, "W_CELL_EMPTY"),
        (5, "W_NOT_A_NUMBER"),
    ]
    assert "1 to 1 s" in table.findings[0].what
    assert "'odd line'" in table.findings[2].what


def test_verdict_for_the_whole_track_is_taken(tmp_path):
    (annotation,) = read_table(write(tmp_path, "1\t2\tfrog\n"), verdict=False).annotations
    assert not annotation.present


def test_labels_with_a_confidence_are_unknown_until_the_user_gives_a_verdict(tmp_path):
    path = write(tmp_path, "0\t3\tHyla sp, Tree Frog\t0.913\n", "dawn.BirdNET.results.txt")
    table = read_table(path)
    assert (table.annotations, table.unvalidated) == ((), 1)
    assert read_table(path, verdict=True).annotations == (
        Annotation("dawn", 0.0, 3.0, "Hyla sp", score=0.913),
    )


def test_decimal_commas_are_refused(tmp_path):
    with pytest.raises(UserError) as error:
        read_table(write(tmp_path, "0,5\t1,5\tfrog\n"))
    assert error.value.code == "E_DECIMAL_COMMA"
    assert error.value.what.endswith("dawn.txt:1: start is '0,5', with a decimal comma")


def test_track_reads_back_as_it_was_written(tmp_path):
    rng = np.random.default_rng(9)
    rows = [
        (
            float(start),
            float(start + rng.exponential()),
            float(rng.uniform(0, 500)) if i % 5 else 0.0,
            float(rng.uniform(600, 4e4)) if i % 4 else math.inf,
            ["frog, green", "3", "*"][i % 3],
        )
        for i, start in enumerate(rng.uniform(0, 5000, 200))
    ]
    write_track(rows, tmp_path / "rec0.txt")
    annotations = read_table(tmp_path / "rec0.txt", verdict=False).annotations
    assert [(a.start, a.stop, a.low, a.high, a.label) for a in annotations] == rows
    assert {(a.recording, a.present) for a in annotations} == {("rec0", False)}


def test_tab_in_a_label_becomes_a_space(tmp_path):
    write_track([(0.0, 1.0, 0.0, math.inf, "ñ\té")], tmp_path / "a.txt")
    assert read_table(tmp_path / "a.txt").annotations == (Annotation("a", 0.0, 1.0, "ñ é"),)


@pytest.mark.parametrize(
    ("text", "label", "score"),
    [
        ("WOTH;0.953", "WOTH", 0.953),
        ("WOTH; 1", "WOTH", 1.0),
        ("WOTH|.5", "WOTH", 0.5),
        ("wood thrush (0.25)", "wood thrush", 0.25),
        ("wood thrush: 0.25", "wood thrush", 0.25),
        ("wood thrush 95 %", "wood thrush", 0.95),
        ("x;0.5;0.900", "x;0.5", 0.9),
    ],
)
def test_label_that_ends_in_a_score_is_unknown(tmp_path, text, label, score):
    path = write(tmp_path, f"1\t2\t{text}\n3\t4\tfrog\n")
    table = read_table(path)
    assert ([box.label for box in table.annotations], table.unvalidated) == (["frog"], 1)
    path = write(tmp_path, f"1\t2\t{text}\n")
    assert read_table(path, verdict=True).annotations == (
        Annotation("dawn", 1.0, 2.0, label, score=score),
    )


@pytest.mark.parametrize("text", ["species 2", "Rana 1.5 kHz", "frog;green", "S;12", "call 0"])
def test_label_that_ends_in_another_number_is_a_name(tmp_path, text):
    (box,) = read_table(write(tmp_path, f"1\t2\t{text}\n")).annotations
    assert (box.label, box.score) == (text, None)


def test_verdict_behind_a_score_is_taken(tmp_path):
    text = "1\t2\ta;0.9;yes\n2\t3\tb;0.8;absent\n3\t4\tc;0.7\n4\t5\td;0.6;what\n5\t6\te\n"
    table = read_table(write(tmp_path, text))
    assert [(box.label, box.present) for box in table.annotations] == [
        ("a", True),
        ("b", False),
        ("e", True),
    ]
    assert table.unvalidated == 1
    assert [(finding.code, finding.row) for finding in table.findings] == [
        ("W_VERDICT_UNREADABLE", 4)
    ]


@pytest.mark.parametrize(
    ("text", "present"),
    [
        ("1.0\t2.0\ta\n\\\t100.0\t200.0\n3.0\t4.0\tb\n\\\t100.0\t200.0\n", 0),
        ("1.0\t2.0\ta\n\\\t100.0\t200.0\n3.0\t4.0\tb\n", 2),
        ("1.000000\t2.000000\ta\n\\\t100.000000\t200.000000\n", 1),
    ],
)
def test_track_of_bands_that_audacity_did_not_write_is_a_programs(tmp_path, text, present):
    assert len(read_table(write(tmp_path, text)).annotations) == present
