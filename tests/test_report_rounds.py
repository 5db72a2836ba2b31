"""The learning curve of rounds: its picture, its rows in the page, and its sentences."""

from dataclasses import replace

import pandas as pd
import pytest

from antpitta.report.page import render_page
from antpitta.report.results import LearningCurve
from antpitta.report.rounds import draw_learning_curve, drawn_species, list_rounds
from antpitta.scores.bootstrap import Interval
from antpitta.scores.learning_curve import COLUMNS
from tests.test_report_page import EVIL, NAN, Reader, make_run_report


def table():
    rows = []
    for number, ap in ((0, 0.4), (1, 0.6)):
        rows += [
            ("all", number, f"run-{number}", "*", 5 + number, 7, 30, 40, ap, ap - 0.1, ap + 0.1),
            ("all", number, f"run-{number}", "coqui", 2, 3, 10, 20, ap, ap - 0.1, NAN),
            ("all", number, f"run-{number}", EVIL, 1, 1, 20, 15, ap / 2, 0.1, 0.9),
            ("all", number, f"run-{number}", "owl", 0, 0, 0, 5, NAN, NAN, NAN),
            ("audit", number, f"run-{number}", "*", 5, 7, 3, 1, ap, NAN, NAN),
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


CURVE = LearningCurve(
    table(), {"all": Interval(0.2, 0.1, 0.3), "audit": Interval(0.2, NAN, NAN)}, ("one is gone",)
)


@pytest.mark.parametrize(("form", "head"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_curve_is_drawn_for_the_mean_and_species_with_a_value(form, head):
    every = table()[table()["verdicts"] == "all"]
    assert drawn_species(every) == [EVIL, "coqui"]  # most verdicts first
    assert draw_learning_curve(every, form).startswith(head)
    with pytest.raises(ValueError):
        draw_learning_curve(every.iloc[:0], form)


def test_rows_name_round_run_boxes_and_interval():
    rows = list_rounds(CURVE)
    assert [(row.number, row.verdicts) for row in rows] == [
        *((0, "all"), (0, "audit"), (1, "all"), (1, "audit"))
    ]
    assert (rows[2].trained, rows[2].judged, str(rows[2].ap)) == (
        *("6 / 7", "30 / 40", "0.600 (0.500 to 0.700)"),
    )


def test_page_of_a_round_has_the_section_and_another_page_has_none():
    page = Reader(render_page(replace(make_run_report(), rounds=CURVE)))
    assert "Rounds of review" in page.text
    assert "On 70 verdicts: macro AP 0.600, +0.200 against the model before" in page.text
    assert "One is gone." in page.text
    assert "the fewest: owl" in page.text
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.row("1")[:3] == ["run-1", "6 / 7", "all verdicts"]
    assert "Rounds of review" not in render_page(make_run_report())


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (Interval(0.2, 0.1, 0.3), "better by more than the noise"),
        (Interval(-0.2, -0.3, -0.1), "worse by more than the noise"),
        (Interval(0.1, -0.1, 0.3), "no difference beyond the noise"),
        (Interval(0.1, NAN, NAN), "+0.100 against the model before."),
        (Interval(NAN, NAN, NAN), "macro AP 0.600."),
    ],
)
def test_sentence_tells_whether_the_difference_is_beyond_the_noise(difference, words):
    (line,) = replace(CURVE, differences={"all": difference}).sentences()
    assert words in line
