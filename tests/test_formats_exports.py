"""What predict exports, read back as annotations."""

import pytest

from antpitta.core.errors import UserError
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


@pytest.fixture
def exports(tmp_path):
    """The exports of an archive with two files of events and one without."""
    entries = []
    for name, boxes in BOXES.items():
        path = tmp_path / "site" / f"{name}.wav"
        events = tuple((*box, "model") for box in boxes)
        entry = JournalEntry(path, (1, 1), duration=60.0, events=events)
        entries.append((ListedFile(name, path), entry))
    write_events(lambda: iter([entries]), tmp_path, FORMATS)
    return tmp_path


def expected(suffix, with_score):
    return [
        Annotation(
            *(f"{name}{suffix}", start, stop, label, True, low, high),
            score=score if with_score else None,
        )
        for name, boxes in BOXES.items()
        for start, stop, low, high, label, score in boxes
    ]


def test_raven_export_reads_back_as_the_same_boxes(exports):
    table = read_table(exports / "events.raven.txt", verdict=True)
    assert table.format == "raven"
    assert list(table.annotations) == expected(".wav", with_score=True)
    assert table.findings == ()


def test_audacity_export_reads_back_as_the_same_boxes(exports):
    (exports / "audacity" / "b.txt").unlink()  # an empty track is no table
    table = read_table(exports / "audacity", verdict=True)
    assert table.format == "audacity"
    assert list(table.annotations) == expected("", with_score=False)
    assert table.findings == ()


@pytest.mark.parametrize(
    ("name", "code"),
    [("events.csv", "E_MODEL_EVENTS"), ("events.kaleidoscope.csv", "E_UNKNOWN_TABLE")],
)
def test_other_exports_are_refused_as_annotations(exports, name, code):
    with pytest.raises(UserError) as error:
        read_table(exports / name)
    assert error.value.code == code
