"""Framewise scores to judged cells, and what boxes alone say of prevalence."""

import numpy as np
import pytest

from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import EVERY_CLASS, Annotation, Classes, Scores
from antpitta.scores.cells import box_cells, clip_scores
from antpitta.scores.prevalence import counts_from_boxes

CLASSES = Classes(("a", "b"))


def share_from_boxes(boxes, recordings):
    return (
        counts_from_boxes(boxes, CLASSES, recordings).T @ np.arange(1, recordings + 1) / recordings
    )


def scores(recording="r"):
    value = np.array([[0.1, 0.9], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]], dtype=np.float32)
    return Scores(recording, TimeGrid(hop=1.0, frames=4), CLASSES, value, "run/fold0")


def test_a_box_is_scored_by_the_highest_frame_inside_it():
    cells = box_cells([scores()], [Annotation("r", 0.0, 2.0, "a")], CLASSES)
    assert cells[["species", "present", "score"]].to_numpy().tolist() == [
        ["a", True, pytest.approx(0.2)]
    ]


def test_a_statement_about_all_species_is_a_cell_of_each():
    said = Annotation("r", 0.0, float("inf"), EVERY_CLASS, present=False)
    cells = box_cells([scores()], [said], CLASSES)
    assert list(cells["species"]) == ["a", "b"]
    assert cells["score"].to_numpy() == pytest.approx([0.7, 0.9])
    assert list(cells["stop"]) == [4.0, 4.0]


def test_boxes_without_scores_or_beyond_them_make_no_cell():
    said = [Annotation("other", 0, 1, "a"), Annotation("r", 9, 10, "a"), Annotation("r", 0, 1, "z")]
    assert box_cells([scores()], said, CLASSES).empty


def test_presence_is_the_competition_layout():
    table = clip_scores([scores("x"), scores("y")])
    assert list(table.columns) == ["recording_id", "a", "b"]
    assert table.iloc[1].tolist() == ["y", pytest.approx(0.7), pytest.approx(0.9)]


def test_boxes_that_meet_in_few_recordings_tell_of_a_rare_species():
    one = [Annotation("r", i, i + 1, "a") for i in range(3)]
    # In 1 recording of 2 that might hold it: certain if 1 does; if 2 do, 2 of the 4 ways to lay
    # three boxes into two recordings; that 1 does was twice as likely before.
    assert counts_from_boxes(one, CLASSES, recordings=2)[:, 0] == pytest.approx([4 / 5, 1 / 5])
    rare = [Annotation(f"r{i % 2}", i, i + 1, "a") for i in range(6)]
    common = [Annotation(f"r{i}", 0, 1, "b") for i in range(6)]
    share = share_from_boxes([*rare, *common], 40)
    assert 2 / 40 < share[0] < 0.1
    assert 0.4 < share[1] < 0.95


def test_the_estimate_is_right_on_average_where_what_it_supposes_holds():
    rng = np.random.default_rng(0)
    truth, found = [], []
    for held in np.exp(rng.uniform(0, np.log(100), 1000)).astype(int):
        calls = rng.exponential(size=held)
        picks = rng.choice(held, 12, p=calls / calls.sum())
        boxes = [Annotation(f"r{r}", i, i + 1, "a") for i, r in enumerate(picks)]
        truth.append(held / 100)
        found.append(share_from_boxes(boxes, 100)[0])
    assert np.mean(found) == pytest.approx(np.mean(truth), rel=0.05)
    assert np.corrcoef(np.log(found), np.log(truth))[0, 1] > 0.85


def test_counts_reach_all_recordings_and_two_boxes_say_nothing():
    many = [Annotation(f"r{i}", 0, 1, "a") for i in range(30)]
    few = [Annotation(f"r{i}", 0, 1, "b") for i in range(2)]
    counts = counts_from_boxes([*many, *few], CLASSES, recordings=30)
    assert counts[:, 0] == pytest.approx([*[0] * 29, 1])
    assert np.isnan(counts[:, 1]).all()


def test_absent_boxes_say_nothing_of_prevalence():
    absent = [Annotation(f"r{i}", 0, 1, "a", present=False) for i in range(9)]
    assert np.isnan(counts_from_boxes(absent, CLASSES, 20)).all()
