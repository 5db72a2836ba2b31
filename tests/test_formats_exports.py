"""What predict exports, read back as annotations."""

from dataclasses import replace

import pandas as pd
import pytest

from antpitta.core.errors import UserError
from antpitta.core.identity import species_key
from antpitta.core.types import Annotation
from antpitta.files.formats import read_table
from antpitta.files.recordings import ListedFile
from antpitta.predict.exports import FORMATS, write_events
from antpitta.predict.journal import JournalEntry

BOXES = {
    "a": [(1.0, 2.5, 500.25, 2000.0, "Hyla sp", 0.9), (10.125, 11.0, 0.0, 900.0, "3", 0.1234)],
    "b": [],
    "c": [(59.0, 60.0, 500.0, 2000.5, "frog, green", 0.5)],
}


TABLES = ["events.csv", "events.raven.txt", "events.kaleidoscope.csv", "audacity"]


@pytest.fixture
def exports(tmp_path):
    """The exports of an archive with two files of events and one without."""
    entries = []
    for name, boxes in BOXES.items():
        path = tmp_path / "site" / f"{name}.wav"
        events = tuple((*box, "model") for box in boxes)
        entry = JournalEntry(path, (1, 1), duration=60.0, events=events)
        entries.append((ListedFile(name, path), entry))
    write_events(lambda: iter([entries]), tmp_path, FORMATS, tmp_path / "site")
    return tmp_path


def expected(suffix, digits=None, present=True):
    return [
        Annotation(
            *(f"{name}{suffix}", start, stop, label, present, low, high),
            score=score if digits is None else round(score, digits),
        )
        for name, boxes in BOXES.items()
        for start, stop, low, high, label, score in boxes
    ]


def named(annotations):
    """The annotations with the names of their files alone."""
    return [replace(box, recording=box.recording.rpartition("/")[2]) for box in annotations]


@pytest.mark.parametrize("name", TABLES)
def test_export_reads_back_as_unreviewed(exports, name):
    table = read_table(exports / name)
    assert (table.annotations, table.unvalidated) == ((), 3)
    assert [finding.serious for finding in table.findings] in ([], [False])  # an empty track


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("verdict", [True, False])
def test_export_with_a_verdict_of_the_user_reads_back_as_the_same_boxes(exports, name, verdict):
    table = read_table(exports / name, verdict=verdict)
    track = name == "audacity"
    boxes = expected("" if track else ".wav", 3 if track else None, verdict)
    assert named(table.annotations) == boxes


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    ("words", "verdicts"),
    [(("yes", "no"), [True, False]), (("present", "absent"), [True, False]), (("", "FP"), [False])],
)
def test_verdicts_that_are_filled_in_read_back_for_the_same_boxes(exports, name, words, verdicts):
    path = exports / name
    if name == "audacity":
        fill_in_track(path / "a.txt", words)
    else:
        fill_in_table(path, words, "\t" if name.endswith("txt") else ",")
    table = read_table(path)
    assert [box.present for box in table.annotations] == verdicts
    assert table.unvalidated == 3 - len(verdicts)
    labels = [box[4] for box in BOXES["a"]][-len(verdicts) :]
    assert [box.label for box in table.annotations] == labels
    assert {box.recording.rpartition("/")[2].removesuffix(".wav") for box in table.annotations} == {
        "a"
    }


def fill_in_table(path, words, separator):
    frame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    column = next(name for name in frame if name.lower() in ("verdict", "manual id"))
    frame.loc[: len(words) - 1, column] = words
    frame.to_csv(path, sep=separator, index=False)


def fill_in_track(path, words):
    lines = path.read_text().splitlines(keepends=True)
    rows = [i for i, line in enumerate(lines) if not line.startswith("\\")]
    for i, word in zip(rows, words, strict=True):
        lines[i] = lines[i].rstrip() + f";{word}\n"
    path.write_text("".join(lines))


def test_raven_export_without_events_says_nothing(tmp_path):
    write_events(lambda: iter(()), tmp_path, ["raven"], tmp_path)
    table = read_table(tmp_path / "events.raven.txt")
    assert (table.annotations, table.unvalidated) == ((), 0)


@pytest.mark.parametrize(
    "species", ['"', '"quoted"', "a\tb", "x;0.5", "NA", "=cmd", "frog 0.75", "7"]
)
@pytest.mark.parametrize("name", TABLES)
def test_odd_name_of_a_species_reads_back_as_the_same_class(tmp_path, name, species):
    entry = JournalEntry(
        tmp_path / "a.wav", (1, 1), duration=9.0, events=((1.0, 2.0, 0.0, 9.0, species, 0.5, "m"),)
    )
    parts = [(ListedFile("a", entry.path), entry)]
    write_events(lambda: iter([parts]), tmp_path, FORMATS, tmp_path)
    (box,) = read_table(tmp_path / name, verdict=True).annotations
    assert species_key(box.label) == species_key(species)


def test_table_of_events_without_a_verdict_column_is_refused(exports):
    path = exports / "events.csv"
    frame = pd.read_csv(path).drop(columns="verdict")
    frame.to_csv(path, index=False)
    with pytest.raises(UserError) as error:
        read_table(path)
    assert error.value.code == "E_MODEL_EVENTS"
