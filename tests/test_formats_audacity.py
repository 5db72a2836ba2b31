"""Audacity's label tracks."""

import math

import numpy as np
import pytest

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation
from antpitta.files.formats import read_table, write_table


def labels(folder, text, name="dawn.txt"):
    path = folder / name
    path.write_text(text)
    return path


def test_labels_are_present_and_a_second_line_gives_the_band(tmp_path):
    text = "0.500000\t1.250000\tfrog\n\\\t400.0\t900.5\n2\t3\tbird\n\\\t-1.0\t800\n4\t5\tbird\n"
    read = read_table(labels(tmp_path, text))
    assert read.annotations == (
        Annotation("dawn", 0.5, 1.25, "frog", True, 400.0, 900.5),
        Annotation("dawn", 2.0, 3.0, "bird", True, 0.0, 800.0),
        Annotation("dawn", 4.0, 5.0, "bird"),
    )
    assert (read.format, read.rows) == ("audacity", (1, 3, 5))


def test_points_and_nameless_labels_are_reported_with_their_line(tmp_path):
    read = read_table(labels(tmp_path, "1\t1\tfrog\n2\t3\t\n\n4\t5\tfrog\nodd line\n"))
    assert read.rows == (4,)
    assert [(f.row, f.what) for f in read.findings] == [
        (1, "empty box, 1 to 1 s"),
        (2, "no species"),
        (5, "start is 'odd line', not a number"),
    ]


def test_a_verdict_for_the_whole_track_is_taken(tmp_path):
    (said,) = read_table(labels(tmp_path, "1\t2\tfrog\n"), verdict=False).annotations
    assert not said.present


def test_a_models_labels_are_unjudged_until_somebody_says(tmp_path):
    path = labels(tmp_path, "0\t3\tHyla sp, Tree Frog\t0.913\n", "dawn.BirdNET.results.txt")
    read = read_table(path)
    assert (read.annotations, read.unvalidated) == ((), 1)
    assert read_table(path, verdict=True).annotations == (
        Annotation("dawn", 0.0, 3.0, "Hyla sp", score=0.913),
    )


def test_decimal_commas_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"dawn\.txt:1: start is '0,5', with a decimal comma"):
        read_table(labels(tmp_path, "0,5\t1,5\tfrog\n"))


def test_read_write_read_gives_the_same_annotations(tmp_path):
    rng = np.random.default_rng(9)
    said = tuple(
        Annotation(
            f"rec{i % 2}",
            float(start),
            float(start + rng.exponential()),
            ["frog, green", "3", "*"][i % 3],
            present=False,
            low=float(rng.uniform(0, 500)) if i % 5 else 0.0,
            high=float(rng.uniform(600, 4e4)) if i % 4 else math.inf,
        )
        for i, start in enumerate(rng.uniform(0, 5000, 200))
    )
    write_table(said, tmp_path / "tracks", "audacity")
    read = read_table(tmp_path / "tracks", verdict=False)
    assert read.annotations == said[::2] + said[1::2]
    write_table(said[::2], tmp_path / "rec0.txt", "audacity")
    assert read_table(tmp_path / "rec0.txt", verdict=False).annotations == said[::2]


def test_one_track_holds_one_recording_and_one_verdict(tmp_path):
    a, b = Annotation("a", 0, 1, "x"), Annotation("b", 0, 1, "x")
    with pytest.raises(UserError, match="one recording, not 2"):
        write_table([a, b], tmp_path / "a.txt", "audacity")
    no = Annotation("a", 0, 1, "y", present=False)
    with pytest.raises(UserError, match="cannot say present and absent"):
        write_table([a, no], tmp_path / "a.txt", "audacity")
    write_table([a, no], tmp_path / "a.txt", "audacity", verdict=True)
    assert read_table(tmp_path / "a.txt").annotations == (a,)
