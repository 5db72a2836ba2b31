"""The shared data types: what they refuse, and their short reprs."""

from pathlib import Path

import numpy as np
import pytest

import antpitta as ap
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import (
    EVERY_CLASS,
    Annotation,
    Classes,
    Dataset,
    Recording,
    Scores,
    Targets,
)

RECORDING = Recording("r", Path("r.wav"), 8000, 16_000)


def test_columns_of_a_label_are_one_all_or_none():
    classes = Classes(("owl", "frog"))
    assert classes.columns("frog") == [1]
    assert classes.columns(EVERY_CLASS) == [0, 1]
    assert classes.columns("newt") == []


@pytest.mark.parametrize(
    "box",
    [(2.0, 1.0, "owl"), (1.0, 1.0, "owl"), (-1.0, 1.0, "owl"), (0.0, 1.0, EVERY_CLASS)],
)
def test_empty_reversed_or_senseless_box_is_refused(box):
    with pytest.raises(ValueError, match="r"):
        Annotation("r", *box)


def test_two_recordings_or_classes_of_one_name_are_refused():
    with pytest.raises(ValueError, match="one id"):
        Dataset((RECORDING, RECORDING), (), Classes(("owl",)))
    with pytest.raises(ValueError, match="owl"):
        Classes(("owl", "owl"))
    with pytest.raises(ValueError, match="gone"):
        Dataset((RECORDING,), (Annotation("gone", 0, 1, "owl"),), Classes(("owl",)))


def test_arrays_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        Targets(np.zeros((2, 1)), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="r"):
        Scores("r", TimeGrid(0.1, 3), Classes(("owl",)), np.zeros((2, 1)), "run")


def test_repr_is_one_short_line_of_counts(simulated):
    boxes = (Annotation("r", 0, 1, "owl"), Annotation("r", 1, 2, "frog", present=False))
    data = Dataset((RECORDING,), boxes, Classes(("owl", "frog")))
    assert repr(data) == "Dataset(1 recordings, 2 classes, 1 present and 1 absent boxes)"
    weight = np.array([[0.0, 1.0], [0.0, 0.5], [0.0, 0.0]])
    assert repr(Targets(np.zeros((3, 2)), weight)) == "Targets(3 x 2 cells, 2 known)"
    scores = Scores("r", TimeGrid(0.1, 3), data.classes, np.zeros((3, 2)), "run/masked")
    assert repr(scores) == "Scores('r': 3 frames, 2 classes, 'run/masked')"
    opened = repr(ap.open_data(simulated))
    assert opened.startswith("OpenedDataset(Dataset(12 recordings, 8 classes, ")
    assert len(opened) < 200
