"""Judged cells: boxes and whole truth as arrays, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from antpitta.core.errors import UserError
from antpitta.core.types import Classes
from antpitta.scores.cells import (
    cell_matrices,
    check_cells,
    judged_cell_scores,
    truth_cells,
    unmatched,
)
from antpitta.scores.tables import list_names

FROGS = Classes(("coqui", "whistler", "bullfrog"))


def cells(*rows):
    table = pd.DataFrame(rows, columns=["recording", "species", "present", "score"])
    return table.astype({"present": bool, "score": float})


def test_the_score_of_a_present_species_is_its_highest_present_box():
    judged = cell_matrices(
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
    assert judged.recordings == ["a", "b"]
    np.testing.assert_array_equal(judged.truth, [[False, False, True], [True, False, False]])
    np.testing.assert_array_equal(judged.known, [[True, False, True], [True, False, False]])
    np.testing.assert_array_equal(judged.scores, [[0.5, 0, 0.1], [0.4, 0, 0]])


def test_the_order_of_the_rows_does_not_matter():
    table = cells(
        *[
            (r, s, p, v)
            for r, s, p, v in zip(
                "abca", FROGS.names * 2, [1, 0, 1, 0], [0.1, 0.2, 0.3, 0.4], strict=False
            )
        ]
    )
    forth, back = cell_matrices(table, FROGS), cell_matrices(table[::-1], FROGS)
    for one, other in zip(forth, back, strict=True):
        np.testing.assert_array_equal(one, other)


def test_unmerged_rows_stay_one_by_one_and_in_order():
    table = cells(("b", "coqui", True, 0.2), ("a", "coqui", False, 0.5), ("b", "coqui", True, 0.1))
    judged = cell_matrices(table, FROGS, merge=False)
    assert judged.recordings == ["b", "a", "b"]
    np.testing.assert_array_equal(judged.scores[:, 0], [0.2, 0.5, 0.1])
    assert judged.known.sum() == 3
    pd.testing.assert_frame_equal(
        judged_cell_scores(judged, judged.scores, FROGS), table, check_dtype=False
    )


def test_negative_scores_are_kept_and_unknown_cells_are_zero():
    judged = cell_matrices(cells(("a", "coqui", False, -4.0)), FROGS)
    np.testing.assert_array_equal(judged.scores, [[-4, 0, 0]])


def test_no_cells_are_no_rows():
    judged = cell_matrices(cells(), FROGS)
    assert judged.truth.shape == (0, 3)
    assert judged.recordings == []


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (cells().drop(columns="score"), r"lack the columns \['score'\]"),
        (cells(("a", "coqui", True, 0.1)).astype({"present": int}), "present must be bool"),
        (cells(("a", "coqui", True, 0.1)).astype({"score": str}), "score must be a number"),
        (cells(("a", "coqui", True, np.nan)), "1 rows have no score"),
        (cells(("a", "coqui", True, np.inf)), "infinite"),
        (cells((None, "coqui", True, 0.1)), "no recording"),
        (cells(("a", "owl", True, 0.1)), r"not among the classes: owl \(1\)"),
        (cells(("a", "*", False, 0.1)), "not among the classes"),
    ],
)
def test_refuses(table, message):
    with pytest.raises(ValueError, match=message):
        check_cells(table, FROGS)


TRUTH = pd.DataFrame({"recording_id": ["x", "y"], "s0": [1, 0], "s1": [0, 1]})
SCORES = pd.DataFrame(
    {"s1": [0.1, 0.2, 0.3], "s9": [0, 0, 0], "recording_id": ["z", "y", "x"], "s0": [0.4, 0.5, 0.6]}
)


def test_whole_truth_joins_by_name_and_id_and_never_by_position():
    found = truth_cells(TRUTH, SCORES)
    assert list(found.itertuples(index=False, name=None)) == [
        ("x", "s0", True, 0.6),
        ("x", "s1", False, 0.3),
        ("y", "s0", False, 0.5),
        ("y", "s1", True, 0.2),
    ]
    check_cells(found, Classes(("s0", "s1")))


def test_what_the_truth_does_not_ask_for_is_counted():
    beyond = unmatched(TRUTH, SCORES)
    assert beyond.recordings == ("z",)
    assert beyond.species == ("s9",)
    assert beyond.unknown == 0


def test_a_blank_in_the_truth_is_unknown_and_not_absent():
    truth = TRUTH.assign(s1=[None, 1])
    assert len(truth_cells(truth, SCORES)) == 3
    assert unmatched(truth, SCORES).unknown == 1


def test_ids_that_a_reader_took_for_numbers_still_meet():
    truth = pd.DataFrame({"recording_id": [7, 8], "s0": [True, False]})
    scores = pd.DataFrame({"recording_id": ["8", "7"], "s0": ["0.1", "0.9"]})
    assert truth_cells(truth, scores)["score"].tolist() == [0.9, 0.1]


@pytest.mark.parametrize(
    ("truth", "scores", "message"),
    [
        (TRUTH, SCORES[:2], r"lacks recordings x \(1\)"),
        (TRUTH, SCORES.drop(columns="s1"), r"lacks species s1 \(1\)"),
        (TRUTH.rename(columns={"recording_id": "id"}), SCORES, "no column recording_id"),
        (TRUTH, pd.concat([SCORES, SCORES[2:]]), r"recordings in two rows: x \(1\)"),
        (TRUTH, SCORES.assign(s0=[0.1, None, 0.2]), "no finite number at recording y, species s0"),
        (TRUTH, SCORES.assign(s0=[0.1, "loud", 0.2]), "'loud' at recording y, species s0"),
        (TRUTH.assign(s0=[2, 0]), SCORES, "holds 2 at recording x, species s0"),
        (TRUTH, SCORES.assign(recording_id=["z", None, "x"]), r"rows without recording_id \(1\)"),
        (TRUTH, SCORES.rename(columns={"s9": "s0"}), r"two columns of one name: s0 \(1\)"),
        (pd.DataFrame(), SCORES, "only no column"),
    ],
)
def test_a_table_that_cannot_be_judged_is_the_users_to_mend(truth, scores, message):
    with pytest.raises(UserError, match=message) as mistake:
        truth_cells(truth, scores)
    assert "\n" not in str(mistake.value)


def test_a_long_list_is_cut_and_counted():
    assert list_names([f"r{i}" for i in range(9)]) == "r0, r1, r2, ... (9)"
