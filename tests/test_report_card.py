"""MODEL_CARD.md: its headings, its tables and the limits it states."""

import re

import numpy as np
import pandas as pd

from antpitta.core.types import Classes
from antpitta.report.canvas import NONE
from antpitta.report.card import escape, markdown_table, render_card
from antpitta.report.results import RunReport, StageResult
from antpitta.scores.bootstrap import Interval
from antpitta.scores.evaluate import COUNTS, METRICS, Report
from antpitta.sound.targets import Supervision

NAN = float("nan")
HEADINGS = [
    "Model details", "Intended use", "Training data", "Evaluation", "Limits", "How to use",
    "Licence", "Provenance",
]  # fmt: skip


def report():
    rows = [
        ("coqui", 110, 30, 0.5512, 0.4123, 0.6987, 0.7071, 0.61, 0.8, 0.9),
        ("a|b_c", 3, 40, 0.25, NAN, NAN, 0.5, NAN, NAN, 0.5),
        ("owl", 0, 40, *[NAN] * 7),
        ("wren", 12, 0, *[NAN] * 7),
    ]
    return Report(
        "run", Interval(0.8123, 0.77, 0.84), Interval(0.4, 0.3, 0.5), Interval(0.6, NAN, NAN),
        pd.DataFrame(rows, columns=["species", *COUNTS, *METRICS]), {}, 44, 235, 9,
    )  # fmt: skip


def make_run_report():
    present, absent = np.array([[3, 0, 0, 1]]), np.array([[0, 5, 7, 0]])
    names = ("coqui", "a|b_c", "owl", "wren")
    return RunReport(
        title='Frogs: "loud" ones',
        stages=(StageResult("masked", "all windows", report()),),
        supervision=Supervision(Classes(names), ("r",), present, absent, 100 - present - absent),
        settings={"seed": "1"},
        provenance={"data digest": "sha256:12ab"},
        left_out=("x.csv:3: no audio",),
    )


def headings(card):
    return [line[3:] for line in card.splitlines() if line.startswith("## ")]


def section(card, name):
    return card.split(f"## {name}\n")[1].split("\n## ")[0]


def test_card_has_the_known_headings_in_order():
    assert headings(render_card(make_run_report(), licence="cc-by-4.0")) == HEADINGS


def test_front_matter_with_quotes_in_the_title_is_yaml():
    front = render_card(make_run_report(), licence="cc-by-4.0").split("---\n")[1].splitlines()
    assert 'model_name: "Frogs: \\"loud\\" ones"' in front
    assert "license: cc-by-4.0" in front
    assert "license: other" in render_card(make_run_report(), licence="Ask: the owners, please.")


def test_metrics_are_those_of_the_report_with_intervals():
    evaluation = section(render_card(make_run_report()), "Evaluation")
    assert (
        "| masked | labelled cells | 0.812 (0.770 to 0.840) | 0.400 (0.300 to 0.500) |"
        in evaluation
    )
    assert (
        "| coqui | 110 | 30 | 0.786 | 0.551 (0.412 to 0.699) | 0.707 (0.610 to 0.800) |"
        in evaluation
    )
    assert f"| owl | 0 | 40{f' | {NONE}' * 4} | no present labels |" in evaluation


def test_limits_name_weak_species_and_the_unlabelled_share():
    limits = section(render_card(make_run_report()), "Limits")
    assert "96.00 % of the training data" in limits  # 384 of 400
    assert r"Fewer than 10 present boxes: a\|b\_c." in limits
    assert re.search(r"No present box.*: owl\.", limits)
    assert re.search(r"No absent box.*: wren\.", limits)


def test_table_with_markup_in_a_name_keeps_its_columns():
    header, rule, row = markdown_table(("name", "n"), [("a|b\n*c*", 3)]).splitlines()
    assert header == "| name | n |"
    assert rule == "| --- | ---: |"
    assert row == r"| a\|b \*c\* | 3 |"
    assert escape("<b>`x`") == r"\<b\>\`x\`"


def test_empty_report_states_what_is_missing():
    card = render_card(RunReport())
    assert headings(card) == HEADINGS
    assert "Not stated" in section(card, "Licence")
    assert "license:" not in card
    assert section(card, "Evaluation").strip()
    assert "|" not in card  # no table without rows


def test_card_shows_how_to_run_the_model():
    how = section(render_card(make_run_report(), model="runs/my frogs/model"), "How to use")
    assert 'antpitta predict "runs/my frogs/model" RECORDINGS -o OUT' in how
    assert 'antpitta.predict("runs/my frogs/model", "RECORDINGS")' in how


def test_findings_about_the_data_are_counted():
    assert "1 finding " in section(render_card(make_run_report()), "Training data")


def test_precisions_are_a_table_with_what_is_left_out():
    precisions = [("float32", 0.8, 0.0, True), ("int8", 0.7, 0.1, False)]
    card = render_card(make_run_report(), precisions=precisions)
    assert "| int8 | 0.7000 | +0.1000 | no |" in card
