"""report.html, parsed as a browser would, and the tables behind it."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from antpitta.core.types import Classes
from antpitta.report import page as page_module
from antpitta.report.canvas import NONE, format_interval, format_share
from antpitta.report.card import render_card
from antpitta.report.page import group_example, render_page
from antpitta.report.results import Example, RunReport, StageResult
from antpitta.report.tables import list_sources, pseudo_table
from antpitta.scores.bootstrap import Interval
from antpitta.scores.evaluate import COUNTS, METRICS, Report
from antpitta.sound.targets import Supervision

NAN = float("nan")
EVIL = "<script>alert('x')</script><img src=http://example.org/a.png>"


class Reader(HTMLParser):
    """Every tag with its attributes, every table as rows of texts, and all of the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.tables, self.text, self.open = [], [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        while self.open.pop() != tag:  # tags without an end are popped on the way
            pass

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += f" {data.strip()}" if data.strip() else ""
        if "style" not in self.open:
            self.text += data

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]

    def row(self, first):
        rows = [row for table in self.tables for row in table if row[0].strip().startswith(first)]
        return [" ".join(cell.split()) for row in rows for cell in row[1:]]


def report(lwlrap=0.8123, **changed):
    rows = [
        ("coqui", 1010, 30, 0.5512, 0.4123, 0.6987, 0.7071, 0.61, 0.8, 0.9),
        ("owl", 0, 40, *[NAN] * 7),
        (EVIL, 3, 1, 0.9, NAN, NAN, 0.95, NAN, NAN, 0.8),
    ]
    curve = (np.array([0.0, 0.5, 1.0]), np.array([1.0, 0.8, 0.2]))
    fields = {
        "source": "run, out of fold",
        "lwlrap": Interval(lwlrap, lwlrap - 0.02, lwlrap + 0.03),
        "macro_ap": Interval(0.7256, 0.65, 0.75),
        "macro_auc": Interval(0.8286, NAN, NAN),
        "per_species": pd.DataFrame(rows, columns=["species", *COUNTS, *METRICS]),
        "curves": {"coqui": curve},
        "recordings": 4044,
        "cells": 1084,
        "ranked": 9,
    }
    return Report(**fields | changed)


def example(score=0.93, present=True, **changed):
    fields = {
        "title": "best", "recording": "rec & 7", "species": "coqui", "start": 1.0, "stop": 2.0,
        "low": 500.0, "high": 900.0, "score": score, "present": present,
        "spectrogram": np.random.default_rng(0).random((20, 8)), "image_start": 0.0,
        "image_stop": 3.0, "frequencies": np.linspace(100, 8000, 8),
    }  # fmt: skip
    return Example(**fields | changed)


def make_run_report():
    present, absent = np.array([[3, 0, 0]] * 2), np.array([[0, 5, 0]] * 2)
    log = [("crops", fold, i, 1 / i, 1e-3, 30.0) for fold in (0, 1) for i in (1, 2)]
    return RunReport(
        title=f"Frogs {EVIL}",
        subtitle="two stages",
        stages=(
            StageResult("crops", "boxes only", report(0.5678)),
            StageResult("masked", "all windows", report(), report(0.6543, source="test set")),
        ),
        supervision=Supervision(
            Classes(("coqui", "owl", EVIL)), ("a", "b"), present, absent, 10 - present - absent
        ),
        examples=(example(), example(0.02), example(0.8, present=False)),
        log=pd.DataFrame(log, columns=["stage", "fold", "epoch", "loss", "lr", "seconds"]),
        pseudo=pd.DataFrame(
            {"cycle": [1, 1, 2], "species": ["coqui", "owl", "coqui"], "soft": [1500, 2, 7]}
        ),
        settings={"backbone": "resnet18", "<i>": "&amp;"},
        provenance={"data digest": "sha256:12ab"},
        left_out=("train_tp.csv:7: no audio for recording z", EVIL),
    )


@pytest.fixture(scope="module")
def html():
    return render_page(make_run_report())


def test_page_loads_nothing_from_outside(html):
    read = Reader(html)
    assert all(source.startswith("data:") for source in read.attributes("src"))
    assert all(link.startswith("#") for link in read.attributes("href"))
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in read.tags}
    assert "@import" not in html
    assert "url(" not in html
    assert "default-src 'none'" in html


def test_markup_in_names_is_shown_as_text(html):
    assert "<script" not in html
    assert "<i>" not in html
    read = Reader(html)
    assert f"Frogs {EVIL}" in read.text
    assert "rec & 7" in read.text
    assert read.row("<i>") == ["&amp;"]


def test_numbers_on_the_page_are_those_of_the_report(html):
    read = Reader(html)
    for field in ("0.812", "0.792 to 0.842", "0.726", "0.650 to 0.750", "0.829", "0.654"):
        assert field in read.text
    assert read.row("crops")[1:4] == ["0.568 0.548 to 0.598", "0.726 0.650 to 0.750", "0.829"]
    final = read.row("coqui")
    assert final[7:15] == [
        "1,010", "30", "0.971", "0.551 0.412 to 0.699", "0.707 0.610 to 0.800", "0.900",
        "0.551", "0.707",
    ]  # fmt: skip
    assert "1,084 cells (1,013 present, 71 absent) in 4,044 recordings" in read.text


def test_species_without_metrics_keeps_its_row_with_the_reason(html):
    rows = [row for table in Reader(html).tables for row in table if "no present labels" in row[0]]
    assert [" ".join(cell.split()) for cell in rows[0]] == [
        "owl no present labels", "0", "40", *[NONE] * 6,
    ]  # fmt: skip
    assert "fewer than 10 present" in html


def test_supervision_is_counted_in_recordings_and_frames(html):
    cells = Reader(html).row("coqui")[:7]
    assert cells == ["2", "0", "0", "0", "30.00 %", "0.00 %", "70.00 %"]
    # 6 present and 10 absent of 60 species-frames
    assert "26.67 %" in html


def test_every_picture_and_table_has_a_text(html):
    read = Reader(html)
    pictures = [attributes for tag, attributes in read.tags if tag == "img"]
    assert len(pictures) == 8  # stages, supervision, bars, curves, three examples, losses
    assert all(len(attributes["alt"]) > 40 for attributes in pictures)
    names = [tag for tag, _ in read.tags]
    assert names.count("table") == names.count("caption") == 6
    assert all("scope" in attributes for tag, attributes in read.tags if tag == "th")
    targets = set(read.attributes("id"))
    assert {link[1:] for link in read.attributes("href")} == targets


def test_empty_report_states_it_in_every_section():
    read = Reader(render_page(RunReport()))
    sections = sum(tag == "section" for tag, _ in read.tags)
    assert sections == 10
    assert read.text.count("Nothing to show: ") == sections + 1  # recipe and provenance
    assert not {"img", "table", "figure"} & {tag for tag, _ in read.tags}


def test_report_without_species_labels_and_epochs_has_no_pictures_of_them():
    bare = report(per_species=report().per_species.iloc[:0], curves={}, lwlrap=NAN)
    none = np.zeros((0, 3), int)
    unlabelled = Supervision(Classes(("a", "b", "c")), (), none, none, none)
    text = Reader(
        render_page(
            RunReport(stages=(StageResult("x", "", bare),), supervision=unlabelled, log=EMPTY_LOG)
        )
    ).text
    assert text.count("Nothing to show: ") == 10  # all but the stages, and two of the settings
    assert "0 recordings" in text
    assert NONE in text


EMPTY_LOG = pd.DataFrame(columns=["stage", "fold", "epoch", "loss", "lr", "seconds"])


def test_truth_of_other_species_leaves_dashes():
    other = report(per_species=report().per_species.iloc[:1])
    last = replace(make_run_report().stages[-1], truth=other)
    read = Reader(render_page(RunReport(stages=(last,))))
    assert read.row("owl")[-2:] == [NONE, NONE]
    assert read.row("coqui")[-2:] == ["0.551", "0.707"]


def test_examples_and_findings_beyond_the_limits_are_counted(monkeypatch):
    monkeypatch.setattr(page_module, "MAX_CHARACTERS", 100_000)
    monkeypatch.setattr(page_module, "MAX_FINDINGS", 2)
    examples = (example(),) * 8 + (example(present=False),)
    text = Reader(render_page(RunReport(examples=examples, left_out=("a", "b", "c")))).text
    drawn = text.count("recording rec & 7")
    assert 0 < drawn < 9
    assert "False alarms" in text  # though handed in last
    assert f"{9 - drawn} more examples" in text
    assert "3 findings" in text
    assert "1 more finding " in text


def test_page_is_small_enough_to_be_mailed(html):
    assert len(html) < 1_000_000
    assert page_module.MAX_CHARACTERS < 5_000_000


def test_page_without_room_counts_its_examples(monkeypatch):
    monkeypatch.setattr(page_module, "MAX_CHARACTERS", 10)
    assert "2 examples " in render_page(RunReport(examples=(example(),) * 2))


def test_of_many_species_pictures_show_some_and_tables_all(monkeypatch):
    monkeypatch.setattr(page_module, "ROWS", 5)
    names = tuple(f"species {i:04}" for i in range(30))
    rows = [(name, i, 5, 0.5, *[NAN] * 6) for i, name in enumerate(names)]
    table = pd.DataFrame(rows, columns=["species", *COUNTS, *METRICS])
    cells = np.ones((2, 30), int)
    page = render_page(
        RunReport(
            stages=(StageResult("x", "", report(per_species=table, curves={})),),
            supervision=Supervision(Classes(names), ("a", "b"), cells, cells, cells),
        )
    )
    assert page.count("5 of 30 species") == 2
    assert page.count('<th scope="row">species 0000') == 2


@pytest.mark.parametrize(
    ("box", "heading"),
    [
        (example(0.5), "Detected"),
        (example(0.4), "Missed"),
        (example(0.5, present=False), "False alarms"),
        (example(0.4, present=False), "Rejected"),
        (example(group="Mine"), "Mine"),
    ],
)
def test_example_is_grouped_by_verdict_and_score(box, heading):
    assert group_example(box) == heading


def test_page_with_a_file_name_that_is_no_utf8_can_be_written():
    odd = render_page(RunReport(examples=(example(recording="a\udcff"),), left_out=("b\udcff",)))
    assert r"recording a\udcff" in odd.encode().decode()


@pytest.mark.parametrize("name", ["\x1b]0;x\x07", "\u202egpj", "\x7f", "a\rb"])
def test_page_and_card_show_control_characters_escaped(name):
    report = RunReport(title=name, examples=(example(recording=name),), left_out=(name,))
    for text in (render_page(report), render_card(report)):
        assert name not in text
        assert ascii(name)[1:-1].replace("\\", "") in text.replace("\\", "")


def test_pseudo_labels_are_counted_by_species_and_cycle(html):
    table = pseudo_table(make_run_report().pseudo)
    assert table.quantities == ("soft",)
    assert table.cycles == ("1", "2")
    assert table.rows == (
        ("coqui", ("1,500", "7")), ("owl", ("2", NONE)), ("all species", ("1,502", "7")),
    )  # fmt: skip
    assert Reader(html).row("all species") == ["1,502", "7"]


def test_pseudo_labels_with_one_row_each_are_counted_with_their_mean_score():
    rows = pd.DataFrame(
        {"recording": ["a", "b", "b"], "species": ["owl", "owl", "coqui"],
         "score": [0.5, 0.75, 0.9], "source": ["fold 1", "fold 0", "fold 0"]}
    )  # fmt: skip
    table = pseudo_table(rows)
    assert table.quantities == ("labels", "mean score")
    assert table.rows[0] == ("owl", ("2", "0.625"))
    assert table.rows[-1] == ("all species", ("3", NONE))
    assert list_sources(rows) == ["cycle 1: source fold 0, fold 1"]


def test_recordings_of_several_species_are_not_added_up():
    counted = pd.DataFrame(
        {"cycle": [1, 1], "species": ["a", "b"], "labels": [3, 4], "recordings": [2, 2]}
    )
    assert pseudo_table(counted).rows[-1] == ("all species", ("7", NONE))


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0.00 %"), (0.00001, "< 0.01 %"), (0.99999, "> 99.99 %"), (1.0, "100.00 %"),
     (0.1234, "12.34 %"), (NAN, NONE)],
)  # fmt: skip
def test_share_is_never_rounded_to_none_or_all(share, text):
    assert format_share(share) == text


def test_interval_that_is_undefined_is_left_out():
    assert str(format_interval(0.5, NAN, NAN)) == "0.500"
    assert str(format_interval(NAN, 0.1, 0.2)) == NONE
    assert str(format_interval(0.5, 0.4, 0.6)) == "0.500 (0.400 to 0.600)"


def test_text_has_enough_contrast_in_light_and_dark(html):
    schemes = re.findall(r"--paper: (#\w+); --ink: (#\w+); --muted: (#\w+);.*?--accent: (#\w+)",
                         html, re.DOTALL)  # fmt: skip
    assert len(schemes) == 2
    for paper, *inks in schemes:
        assert min(contrast(paper, ink) for ink in inks) >= 4.5  # WCAG 2.1, AA


def contrast(first, second):
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
