"""The pictures of the report: their texts, and the numbers behind them."""

from html import unescape
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest

from antpitta.core.types import Classes
from antpitta.report.canvas import shorten, styled, wrap_name
from antpitta.report.results import Example, StageResult
from antpitta.report.species import (
    draw_curves,
    draw_species,
    drawn_curves,
    rank_species,
    why_undefined,
)
from antpitta.report.spectrograms import draw_example, find_rows, mark_frequencies, thin_frames
from antpitta.report.stages import draw_stages, draw_training, tidy_log
from antpitta.report.supervision import (
    count_supervision,
    draw_supervision,
    label_states,
    merge_columns,
    sort_recordings,
)
from antpitta.scores.bootstrap import Interval
from antpitta.scores.evaluate import COUNTS, METRICS, Report
from antpitta.sound.targets import Supervision

NAN = float("nan")
CURVE = (np.array([0.0, 0.5, 1.0]), np.array([1.0, 0.8, 0.2]))


def report(rows=None, **changed):
    if rows is None:
        rows = [
            ("coqui", 10, 30, 0.5, 0.4, 0.6, 0.7, 0.6, 0.8, 0.9),
            ("owl", 0, 40, NAN, NAN, NAN, NAN, NAN, NAN, NAN),
            ("wren", 3, 1, 0.9, NAN, NAN, 0.95, NAN, NAN, 0.8),
        ]
    columns = ["species", *COUNTS, *METRICS]
    fields = {
        "source": "run",
        "lwlrap": Interval(0.812, 0.774, 0.846),
        "macro_ap": Interval(0.7, 0.65, 0.75),
        "macro_auc": Interval(0.825, NAN, NAN),
        "per_species": pd.DataFrame(rows, columns=columns),
        "curves": {"coqui": CURVE, "wren": CURVE},
        "recordings": 40,
        "cells": 84,
        "ranked": 9,
    }
    return Report(**fields | changed)


def supervision():
    present = np.array([[3, 0], [0, 0], [2, 0], [0, 0]])
    absent = np.array([[0, 0], [5, 4], [1, 0], [0, 0]])
    return Supervision(
        Classes(("coqui", "owl")), ("a", "b", "c", "d"), present, absent, 10 - present - absent
    )


def example(**changed):
    fields = {
        "title": "best", "recording": "a", "species": "coqui", "start": 1.0, "stop": 2.0,
        "low": 500.0, "high": float("inf"), "score": 0.934, "present": True,
        "spectrogram": np.random.default_rng(0).random((40, 16)), "image_start": 0.0,
        "image_stop": 3.0, "frequencies": np.linspace(100, 8000, 16),
    }  # fmt: skip
    return Example(**fields | changed)


def texts(svg):
    """The texts of a picture: matplotlib writes each one as a comment beside its outlines."""
    builder = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.fromstring(svg, builder)  # raises if a browser could not read it
    return [unescape(n.text.strip()) for n in root.iter() if n.tag is ElementTree.Comment]


def log(stage="one", fold=0, losses=(1.0, 0.5)):
    rows = [(stage, fold, i, loss, 1e-3, 2.0) for i, loss in enumerate(losses, 1)]
    return pd.DataFrame(rows, columns=["stage", "fold", "epoch", "loss", "lr", "seconds"])


def test_rank_species_puts_undefined_last_and_adds_the_share_of_present():
    table = rank_species(report().per_species)
    assert list(table["species"]) == ["wren", "coqui", "owl"]
    np.testing.assert_allclose(table["chance"], [0.75, 0.25, 0])


def test_bars_show_every_species_with_counts_and_reasons():
    drawn = texts(draw_species(report()))
    assert {"wren", "coqui", "owl", "10 / 30", "0 / 40", "0.50", "0.90", "chance"} <= set(drawn)
    assert "no present labels" in drawn


@pytest.mark.parametrize(
    ("present", "absent", "reason"),
    [(0, 0, "no labels"), (0, 1, "no present labels"),
     (1, 0, "no absent labels"), (1, 1, "not defined")],
)  # fmt: skip
def test_undefined_metric_has_a_reason(present, absent, reason):
    assert why_undefined(present, absent) == reason


@pytest.mark.parametrize("form", ["svg", "png"])
def test_picture_in_both_formats_is_reproducible(form):
    start = {"svg": b"<?xml", "png": b"\x89PNG"}[form]
    for draw, content in (
        (draw_species, report()),
        (draw_curves, report()),
        (draw_stages, [StageResult("one", "", report())]),
        (draw_training, log()),
        (draw_supervision, supervision()),
        (draw_example, example()),
    ):
        picture = draw(content, form)
        assert picture.startswith(start)
        assert picture == draw(content, form)


@pytest.mark.parametrize(
    ("draw", "nothing"),
    [
        (draw_species, report([])),
        (draw_curves, report(curves={})),
        (draw_stages, []),
        (draw_training, log(losses=())),
        (draw_supervision, Supervision(Classes(()), (), *[np.zeros((0, 0), int)] * 3)),
    ],
)
def test_empty_content_is_refused(draw, nothing):
    with pytest.raises(ValueError, match="to draw"):
        draw(nothing)


def test_of_many_curves_those_with_most_present_boxes_are_drawn():
    assert drawn_curves(report()) == ["wren", "coqui"]
    assert drawn_curves(report(), most=1) == ["coqui"]
    assert "wren" not in texts(draw_curves(report(), most=1))


def test_of_many_bars_those_with_most_present_boxes_are_drawn():
    drawn = texts(draw_species(report(), most=2))
    assert {"coqui", "wren"} <= set(drawn)
    assert "owl" not in drawn
    assert "owl" not in texts(draw_supervision(supervision(), most=1))


def test_curve_of_ten_thousand_points_is_thinned():
    recall = np.linspace(0, 1, 10_000)
    svg = draw_curves(report(curves={"coqui": (recall, 1 - recall / 2)}))
    assert len(svg) < 60_000
    assert "AP 0.50" in texts(svg)


def test_stages_show_the_value_of_every_stage_and_of_ground_truth():
    stages = [
        StageResult("crops", "", report(lwlrap=Interval(NAN, NAN, NAN))),
        StageResult("masked", "", report(), report(lwlrap=Interval(0.623, 0.6, 0.65))),
    ]
    drawn = texts(draw_stages(stages))
    assert {"crops", "masked", "0.812", "0.623", "0.825", "not defined"} <= set(drawn)
    assert any("ground truth" in text for text in drawn)
    assert not any("ground truth" in text for text in texts(draw_stages(stages[:1])))


def test_of_an_epoch_that_was_run_twice_the_later_row_is_kept():
    again = pd.concat([log(losses=(1.0, 0.9)), log(losses=(1.0, 0.3)), log(fold=1)])
    assert "final loss 0.4, mean of 2 folds" in texts(draw_training(again))


def test_cycles_of_one_stage_have_a_panel_each():
    cycles = pd.concat([log().assign(cycle=1), log("two").assign(cycle=1), log().assign(cycle=2)])
    assert list(tidy_log(cycles)["stage"].unique()) == ["one, cycle 1", "two", "one, cycle 2"]
    assert {"one, cycle 1", "one, cycle 2", "two"} <= set(texts(draw_training(cycles)))


def test_single_epoch_and_nan_losses_are_drawn():
    drawn = texts(draw_training(pd.concat([log(losses=(2.0,)), log("two", losses=(NAN, NAN))])))
    assert {"one", "two", "final loss 2"} <= set(drawn)


def test_supervision_counts_recordings_in_each_state_and_shares_of_frames():
    table = count_supervision(supervision()).set_index("species")
    assert table.loc["coqui", ["present", "absent", "both", "unknown"]].tolist() == [1, 1, 1, 1]
    assert table.loc["owl", ["present", "absent", "both", "unknown"]].tolist() == [0, 1, 0, 3]
    shares = ["present_share", "absent_share", "unknown_share"]
    np.testing.assert_allclose(table.loc["coqui", shares].astype(float), [5 / 40, 6 / 40, 29 / 40])


def test_recordings_are_sorted_by_present_then_by_labelled_species():
    cells = label_states(supervision())
    assert cells.tolist() == [[2, 0], [1, 1], [3, 0], [0, 0]]
    assert sort_recordings(cells).tolist() == [0, 2, 1, 3]


def test_one_labelled_recording_among_thousands_keeps_its_column():
    cells = np.zeros((4000, 1), np.int8)
    cells[3999] = 2
    columns, size = merge_columns(cells, most=300)
    assert (len(columns), size) == (286, 14)
    assert columns[-1, 0] == 2
    assert columns.sum() == 2


def test_most_frequent_label_of_a_column_is_shown():
    column = np.array([[0], [0], [0], [1], [1], [2]], np.int8)
    assert merge_columns(column, most=1)[0].tolist() == [[1]]
    assert merge_columns(column[4:], most=1)[0].tolist() == [[2]]  # equally frequent: present


def test_supervision_of_a_large_archive_is_a_small_picture():
    rng = np.random.default_rng(1)
    present = rng.integers(0, 50, (4000, 24)) * (rng.random((4000, 24)) < 0.02)
    names = tuple(f"Eleutherodactylus number {i}" for i in range(24))
    recordings = tuple(map(str, range(4000)))
    svg = draw_supervision(
        Supervision(Classes(names), recordings, present, present * 0, 3751 - present)
    )
    assert len(svg) < 250_000
    assert "recordings, sorted (one column: 14)" in texts(svg)


def test_box_with_an_infinite_top_ends_at_the_top_of_the_image():
    frequencies = np.array([100.0, 200.0, 400.0, 800.0])
    assert find_rows(frequencies, 200, 600) == (1.0, 2.5)
    assert find_rows(frequencies, 0, float("inf")) == (-0.5, 3.5)
    assert find_rows(frequencies, 900, 950) == (3.0, 4.0)  # above the picture: a line at the top


def test_round_frequencies_are_marked_at_their_rows():
    rows, labels = mark_frequencies(np.array([500.0, 1500.0, 2500.0]), most=3)
    assert labels == ["1", "2"]  # 0.5 kHz lies too close to 1
    np.testing.assert_allclose(rows, [0.5, 1.5])


def test_thinning_keeps_a_click():
    spectrogram = np.zeros((1000, 2))
    spectrogram[777, 1] = 9
    thin = thin_frames(spectrogram, 100)
    assert thin.shape == (100, 2)
    assert thin.max() == 9


@pytest.mark.parametrize("spectrogram", [np.full((5, 16), 7.0), np.full((5, 16), NAN)])
def test_example_without_contrast_is_drawn(spectrogram):
    drawn = texts(draw_example(example(spectrogram=spectrogram, present=False)))
    assert "score 0.93, labelled absent" in drawn


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"spectrogram": np.zeros((0, 16))}, "image"),
        ({"spectrogram": np.zeros((4, 3))}, "frequencies"),
        ({"start": 2.0}, "reversed"),
        ({"image_stop": -1.0}, "reversed"),
    ],
)
def test_example_that_cannot_be_drawn_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        example(**changed)


def test_names_with_markup_are_neither_formulas_nor_broken_files():
    rows = [(name, 1, 1, 0.5, *[NAN] * 6) for name in ("$\\frac{x$ & <b>", "a\x00b", "--")]
    svg = draw_species(report(rows, curves={}))
    assert "$\\frac{x$ & <b>" in texts(svg)
    assert shorten("a\x00b\udcff\tc") == "a\ufffdb\ufffd c"


def test_long_names_are_shortened_in_the_middle_and_wrapped():
    name = "Eleutherodactylus portoricensis, advertisement call"
    assert len(shorten(name, 20)) <= 20
    assert shorten(name, 20).startswith("Eleuthero")
    assert shorten(name, 20).endswith("call")
    assert wrap_name(name, 23) == "Eleutherodactylus\nportoricensis,…ent call"
    assert shorten("short") == wrap_name("short", 9) == "short"


def test_matplotlib_settings_of_the_user_are_restored():
    with matplotlib.rc_context({"font.size": 31}):
        with styled():
            assert matplotlib.rcParams["font.size"] == 8.5
        assert matplotlib.rcParams["font.size"] == 31
