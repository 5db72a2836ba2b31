import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import EVERY_CLASS, Annotation, Classes, Dataset, Recording
from antpitta.sound import supervision as module
from antpitta.sound.supervision import count_supervision_frames
from antpitta.sound.targets import frame_targets


def recording(id, seconds):
    return Recording(id, Path(id), 8000, round(seconds * 8000))


def test_frames_are_counted_by_hand():
    data = Dataset(
        (recording("a", 10), recording("b", 4.1)),
        (
            Annotation("a", 1.0, 3.0, "owl"),
            Annotation("a", 2.0, 6.0, "owl", present=False),
            Annotation("a", 9.0, 12.0, EVERY_CLASS, present=False),
            Annotation("b", 0.0, 1.0, "wren"),
        ),
        Classes(("owl", "wren", "bat")),
    )
    counted = count_supervision_frames(data, 0.5)
    assert counted.recordings == ("a", "b")
    assert counted.classes == data.classes
    assert counted.present.tolist() == [[4, 0, 0], [0, 2, 0]]
    assert counted.absent.tolist() == [[6 + 2, 2, 2], [0, 0, 0]]
    assert counted.unknown.tolist() == [[8, 18, 18], [9, 7, 9]]


@pytest.mark.parametrize("cells", [1, 7, 64, 1 << 21])
def test_pieces_of_any_size_count_what_one_drawing_does(monkeypatch, cells):
    monkeypatch.setattr(module, "_CELLS", cells)
    rng = np.random.default_rng(cells)
    classes = Classes(("a", "b", "c"))
    said = []
    for _ in range(60):
        start = round(float(rng.uniform(0, 21)), 3)
        stop = start + round(float(rng.choice([0.004, 0.03, 1.0, 5.0])), 3)
        label = str(rng.choice(["a", "b", "stranger"]))
        said.append(Annotation("r", start, stop, label, bool(rng.random() < 0.5)))
    counted = count_supervision_frames(Dataset((recording("r", 20),), tuple(said), classes), 0.016)
    drawn = frame_targets(said, TimeGrid(0.016, 1250), classes)
    np.testing.assert_array_equal(counted.present[0], drawn.value.sum(axis=0))
    np.testing.assert_array_equal(
        counted.absent[0], (drawn.weight - drawn.value).sum(axis=0).astype(int)
    )
    total = counted.present + counted.absent + counted.unknown
    assert (total == 1250).all()


def test_a_days_recording_with_many_classes_needs_little_memory():
    classes = Classes(tuple(f"s{i}" for i in range(200)))
    day = recording("day", 86_400)
    whole = Annotation("day", 0.0, 40_000.0, EVERY_CLASS, present=False)
    box = Annotation("day", 80_000.0, 80_001.0, "s7")
    tracemalloc.start()
    counted = count_supervision_frames(Dataset((day,), (whole, box), classes), 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counted.absent[0].tolist() == [80_000] * 200
    assert counted.present[0].sum() == 2
    assert peak < 100e6


def test_a_recording_that_nobody_judged_is_unknown_throughout():
    counted = count_supervision_frames(
        Dataset((recording("a", 0.001),), (), Classes(("owl",))), 0.016
    )
    assert counted.unknown.tolist() == [[1]]
