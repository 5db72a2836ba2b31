"""MODEL_CARD.md: its headings, its tables and what it admits."""

import numpy as np
import pandas as pd

from antpitta.core.types import Classes
from antpitta.report.canvas import NONE
from antpitta.report.card import escape, render_card, write_table
from antpitta.report.results import RunReport, StageResult
from antpitta.scores.bootstrap import Interval
from antpitta.scores.evaluate import COUNTS, FIGURES, Report
from antpitta.sound.targets import Supervision

NAN = float("nan")
HEADINGS = [
    "Model details", "Intended use", "Training data", "Evaluation", "Limits", "How to use",
    "Licence", "Citation", "Provenance",
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
        pd.DataFrame(rows, columns=["species", *COUNTS, *FIGURES]), {}, 44, 235, 9,
    )  # fmt: skip


def run_report():
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


def test_the_card_has_the_known_headings_in_order():
    assert headings(render_card(run_report(), licence="cc-by-4.0")) == HEADINGS


def test_the_front_matter_is_yaml_whatever_the_title():
    front = render_card(run_report(), licence="cc-by-4.0").split("---\n")[1].splitlines()
    assert 'model_name: "Frogs: \\"loud\\" ones"' in front
    assert "license: cc-by-4.0" in front
    assert "license: other" in render_card(run_report(), licence="Ask: the owners, please.")


def test_the_figures_are_the_reports_with_intervals():
    found = section(render_card(run_report()), "Evaluation")
    assert "| masked | judged cells | 0.812 (0.770 to 0.840) | 0.400 (0.300 to 0.500) |" in found
    assert "| coqui | 110 | 30 | 0.786 | 0.551 (0.412 to 0.699) | 0.707 (0.610 to 0.800) |" in found
    assert f"| owl | 0 | 40{f' | {NONE}' * 4} | nothing judged present |" in found


def test_the_limits_name_the_species_and_what_nobody_listened_to():
    limits = section(render_card(run_report()), "Limits")
    assert "96.00 % of all species-frames" in limits  # 384 of 400
    assert r"fewer than 10 boxes: a\|b\_c." in limits
    assert "hears them is not known: owl." in limits
    assert "false alarms were not measured: wren." in limits
    assert "validated boxes only" in limits


def test_a_table_keeps_its_columns_whatever_the_names():
    header, rule, row = write_table(("name", "n"), [("a|b\n*c*", 3)]).splitlines()
    assert header == "| name | n |"
    assert rule == "| --- | ---: |"
    assert row == r"| a\|b \*c\* | 3 |"
    assert escape("<b>`x`") == r"\<b\>\`x\`"


def test_what_is_missing_is_said_to_be_missing():
    card = render_card(RunReport())
    assert headings(card) == HEADINGS
    assert "Not stated: ask before you use the model." in card
    assert "license:" not in card
    assert "Nothing was evaluated" in card
    assert "None was given." in card
    assert "Not given: versions" in card


def test_the_card_says_how_to_run_the_model():
    how = section(render_card(run_report(), model="runs/my frogs/model"), "How to use")
    assert 'antpitta predict "runs/my frogs/model" RECORDINGS -o OUT' in how
    assert 'ap.predict("runs/my frogs/model", "RECORDINGS/")' in how


def test_a_citation_is_quoted_as_it_is_and_contact_and_findings_are_told():
    card = render_card(run_report(), citation="@misc{a,\n title={```}}", contact="me@example.org")
    assert "````\n@misc{a,\n title={```}}\n````" in card
    assert "Contact: me@example.org" in card
    assert "1 finding about the data" in card
