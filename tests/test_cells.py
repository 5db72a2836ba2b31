"""Labelled cells: from boxes and from ground truth, as arrays, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from antpitta.core.errors import UserError
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import EVERY_CLASS, Annotation, Classes, Scores
from antpitta.scores.cells import (
    box_cells,
    cell_matrices,
    cells_from_matrices,
    check_cells,
    clip_scores,
    count_unmatched,
    truth_cells,
)
from antpitta.scores.tables import sample_names

FROGS = Classes(("coqui", "whistler", "bullfrog"))


def cells(*rows):
    table = pd.DataFrame(rows, columns=["recording", "species", "present", "score"])
    return table.astype({"present": bool, "score": float})


def test_score_of_a_present_species_is_that_of_its_highest_present_box():
    matrices = cell_matrices(
        cells(
            ("b", "coqui", False, 0.9),  # louder, but not the call
            ("b", "coqui", True, 0.2),
            ("b", "coqui", True, 0.4),
            ("a", "coqui", False, 0.3),
            ("a", "coqui", False, 0.5),
            ("a", "bullfrog", True, 0.1),
        ),
        FROGS,
    )
    assert matrices.recordings == ["a", "b"]
    np.testing.assert_array_equal(matrices.truth, [[False, False, True], [True, False, False]])
    np.testing.assert_array_equal(matrices.known, [[True, False, True], [True, False, False]])
    np.testing.assert_array_equal(matrices.scores, [[0.5, 0, 0.1], [0.4, 0, 0]])


def test_order_of_the_rows_does_not_matter():
    table = cells(
        ("a", "coqui", True, 0.1),
        ("b", "whistler", False, 0.2),
        ("c", "bullfrog", True, 0.3),
        ("a", "coqui", False, 0.4),
    )
    forward, backward = cell_matrices(table, FROGS), cell_matrices(table[::-1], FROGS)
    for first, second in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(first, second)


def test_unmerged_rows_keep_their_order():
    table = cells(("b", "coqui", True, 0.2), ("a", "coqui", False, 0.5), ("b", "coqui", True, 0.1))
    matrices = cell_matrices(table, FROGS, merge=False)
    assert matrices.recordings == ["b", "a", "b"]
    np.testing.assert_array_equal(matrices.scores[:, 0], [0.2, 0.5, 0.1])
    assert matrices.known.sum() == 3
    pd.testing.assert_frame_equal(
        cells_from_matrices(matrices, matrices.scores, FROGS), table, check_dtype=False
    )


def test_negative_scores_are_kept_and_unknown_cells_are_0():
    matrices = cell_matrices(cells(("a", "coqui", False, -4.0)), FROGS)
    np.testing.assert_array_equal(matrices.scores, [[-4, 0, 0]])


def test_empty_table_has_no_rows():
    matrices = cell_matrices(cells(), FROGS)
    assert matrices.truth.shape == (0, 3)
    assert matrices.recordings == []


@pytest.mark.parametrize(
    ("table", "value"),
    [
        (cells().drop(columns="score"), r"\['score'\]"),
        (cells(("a", "coqui", True, 0.1)).astype({"present": int}), "int64"),
        (cells(("a", "coqui", True, 0.1)).astype({"score": str}), "score"),
        (cells(("a", "coqui", True, np.nan)), "1 rows .* score"),
        (cells(("a", "coqui", True, np.inf)), "infinite"),
        (cells((None, "coqui", True, 0.1)), "recording"),
        (cells(("a", "owl", True, 0.1)), r"owl \(1\)"),
        (cells(("a", "*", False, 0.1)), r"\* \(1\)"),
    ],
)
def test_table_that_is_none_of_labelled_cells_is_refused(table, value):
    with pytest.raises(ValueError, match=value):
        check_cells(table, FROGS)


TRUTH = pd.DataFrame({"recording_id": ["x", "y"], "s0": [1, 0], "s1": [0, 1]})
SCORES = pd.DataFrame(
    {"s1": [0.1, 0.2, 0.3], "s9": [0, 0, 0], "recording_id": ["z", "y", "x"], "s0": [0.4, 0.5, 0.6]}
)


def test_ground_truth_is_joined_by_name_and_id():
    table = truth_cells(TRUTH, SCORES)
    assert list(table.itertuples(index=False, name=None)) == [
        ("x", "s0", True, 0.6),
        ("x", "s1", False, 0.3),
        ("y", "s0", False, 0.5),
        ("y", "s1", True, 0.2),
    ]
    check_cells(table, Classes(("s0", "s1")))


def test_scores_without_ground_truth_are_counted():
    unmatched = count_unmatched(TRUTH, SCORES)
    assert unmatched.recordings == ("z",)
    assert unmatched.species == ("s9",)
    assert unmatched.unknown == 0


def test_blank_ground_truth_is_unknown():
    truth = TRUTH.assign(s1=[None, 1])
    assert len(truth_cells(truth, SCORES)) == 3
    assert count_unmatched(truth, SCORES).unknown == 1


def test_ids_that_were_read_as_numbers_match():
    truth = pd.DataFrame({"recording_id": [7, 8], "s0": [True, False]})
    scores = pd.DataFrame({"recording_id": ["8", "7"], "s0": ["0.1", "0.9"]})
    assert truth_cells(truth, scores)["score"].tolist() == [0.9, 0.1]


@pytest.mark.parametrize(
    ("truth", "scores", "code", "values"),
    [
        (TRUTH, SCORES[:2], "E_SCORES_MISSING", ["x"]),
        (TRUTH, SCORES.drop(columns="s1"), "E_SCORES_MISSING", ["s1"]),
        (TRUTH.rename(columns={"recording_id": "id"}), SCORES, "E_SCORE_TABLE", ["id"]),
        (TRUTH, pd.concat([SCORES, SCORES[2:]]), "E_SCORE_TABLE", ["x"]),
        (TRUTH, SCORES.assign(s0=[0.1, None, 0.2]), "E_SCORE_VALUE", ["y", "s0"]),
        (TRUTH, SCORES.assign(s0=[0.1, "loud", 0.2]), "E_SCORE_VALUE", ["'loud'", "y", "s0"]),
        (TRUTH.assign(s0=[2, 0]), SCORES, "E_TRUTH_VALUE", ["2", "x", "s0"]),
        (TRUTH, SCORES.assign(recording_id=["z", None, "x"]), "E_SCORE_TABLE", ["1"]),
        (TRUTH, SCORES.rename(columns={"s9": "s0"}), "E_SCORE_TABLE", ["s0"]),
        (pd.DataFrame(), SCORES, "E_SCORE_TABLE", ["recording_id"]),
    ],
)
def test_table_that_cannot_be_evaluated_is_refused(truth, scores, code, values):
    with pytest.raises(UserError) as error:
        truth_cells(truth, scores)
    assert error.value.code == code
    assert all(value in str(error.value) for value in values)


def test_long_list_of_names_is_shortened_and_counted():
    assert sample_names([f"r{i}" for i in range(9)]) == "r0, r1, r2, ... (9)"


# ---- boxes

TWO = Classes(("a", "b"))


def scores_of(recording="r"):
    value = np.array([[0.1, 0.9], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]], dtype=np.float32)
    return Scores(recording, TimeGrid(hop=1.0, frames=4), TWO, value, "run/fold0")


def test_box_has_the_score_of_the_highest_frame_inside_it():
    table = box_cells([scores_of()], [Annotation("r", 0.0, 2.0, "a")], TWO)
    assert table[["species", "present", "score"]].to_numpy().tolist() == [
        ["a", True, pytest.approx(0.2)]
    ]


def test_box_about_every_class_is_a_cell_of_each():
    box = Annotation("r", 0.0, float("inf"), EVERY_CLASS, present=False)
    table = box_cells([scores_of()], [box], TWO)
    assert list(table["species"]) == ["a", "b"]
    assert table["score"].to_numpy() == pytest.approx([0.7, 0.9])
    assert list(table["stop"]) == [4.0, 4.0]


def test_boxes_without_scores_or_beyond_them_make_no_cell():
    boxes = [
        Annotation("other", 0, 1, "a"), Annotation("r", 9, 10, "a"), Annotation("r", 0, 1, "z"),
    ]  # fmt: skip
    assert box_cells([scores_of()], boxes, TWO).empty


def test_clip_scores_are_the_highest_of_each_recording():
    table = clip_scores([scores_of("x"), scores_of("y")])
    assert list(table.columns) == ["recording_id", "a", "b"]
    assert table.iloc[1].tolist() == ["y", pytest.approx(0.7), pytest.approx(0.9)]


def test_blank_truth_of_a_text_table_is_unknown():
    truth = pd.DataFrame({"recording_id": ["x", "y"], "a": ["1", ""], "b": ["", "0"]})
    scores = pd.DataFrame({"recording_id": ["x", "y"], "a": ["0.1", "0.2"], "b": ["0.3", "0.4"]})
    cells = truth_cells(truth, scores)
    assert cells[["recording", "species", "present", "score"]].values.tolist() == [
        ["x", "a", True, 0.1],
        ["y", "b", False, 0.4],
    ]


@pytest.mark.parametrize("columns", [{"recording_id": ["x"]}, {"recording_id": [], "a": []}])
def test_truth_without_recordings_or_species_is_refused(columns):
    scores = pd.DataFrame({"recording_id": ["x"], "a": ["0.1"]})
    with pytest.raises(UserError) as error:
        truth_cells(pd.DataFrame(columns), scores)
    assert error.value.code == "E_NO_TRUTH"
