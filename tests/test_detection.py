"""What predict counts as found: thresholds, species and the best events."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import antpitta as ap
from antpitta.api import evaluate, predict_to
from antpitta.core.errors import UserError
from antpitta.core.thresholds import (
    Estimate,
    OperatingPoint,
    SpeciesThreshold,
    unsupported_threshold,
)
from antpitta.core.types import Classes
from antpitta.files.bundle import Bundle, read_bundle
from antpitta.predict.detection import configure_detection
from antpitta.scores.ensemble.members import member_from_table
from tests.sealed_bundles import change, seal

SPECIES = ("coqui", "owl, the", "7", "wren")
OWN = SpeciesThreshold(
    value=0.4,
    origin="own",
    present=12,
    absent=30,
    interval=(0.3, 0.5),
    precision=Estimate(0.95, 0.9, 1.0),
    recall=Estimate(0.8, 0.7, 0.9),
    conservative=0.9,
    points=(OperatingPoint(0.2, 0.7, 0.9), OperatingPoint(0.4, 0.95, 0.8)),
)
MODEL = Bundle(
    Path("model"),
    "mine",
    SPECIES,
    thresholds={
        "coqui": OWN,
        "owl, the": unsupported_threshold("few boxes", 3, 9, 0.8),
        "7": unsupported_threshold("few boxes", 1, 0, None),
        "wren": unsupported_threshold("no present", 0, 5, None),
    },
)


def test_default_is_what_the_model_says():
    config = configure_detection(MODEL)
    assert config.species == SPECIES
    assert config.thresholds == {"coqui": 0.4, "owl, the": 0.8}
    assert config.support == {"coqui": "supported", "owl, the": "unsupported", "7": "unsupported"}
    assert config.not_learnable == ("wren",)
    unsupported, silent, blank = config.notes()
    assert "owl, the, 7" in unsupported
    assert silent.endswith(": 7")
    assert blank.endswith(": wren")


def test_threshold_is_one_for_all_but_what_was_not_learnable():
    config = configure_detection(MODEL, threshold=0.25)
    assert config.thresholds == {"coqui": 0.25, "owl, the": 0.25, "7": 0.25}
    assert set(config.support.values()) == {"given"}
    assert [note.endswith(": wren") for note in config.notes()] == [True]


def test_expected_precision_is_reached_or_said_to_be_unsupported():
    for precision, value, support in (
        (0.6, 0.2, "supported"),
        (0.7, 0.2, "supported"),
        (0.71, 0.4, "supported"),
        (0.99, 0.9, "unsupported"),
    ):
        config = configure_detection(MODEL, precision=precision)
        assert (config.thresholds["coqui"], config.support["coqui"]) == (value, support)
        assert config.thresholds["owl, the"] == 0.8
        assert ("coqui" in config.notes()[0]) == (support == "unsupported")
        assert "owl, the" in config.notes()[0]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (["Coqui "], ("coqui",)),
        (["owl, the"], ("owl, the",)),
        (["s7,COQUI"], ("coqui", "7")),
        (["7", "owl, the"], ("owl, the", "7")),
    ],
)
def test_species_are_found_by_the_rule_of_names(wanted, names):
    config = configure_detection(MODEL, species=wanted)
    assert config.species == names
    assert set(config.thresholds) <= set(names)


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.5, "precision": 0.9},
        {"threshold": 0},
        {"threshold": 1.01},
        {"precision": 0.0},
        {"precision": 90},
        {"species": ["kiwi"]},
        {"species": ["coqui,kiwi"]},
        {"species": [","]},
        {"species": ["wren"]},
    ],
)
def test_option_that_cannot_be_followed_is_one_message(options):
    with pytest.raises(UserError) as error:
        configure_detection(MODEL, **options)
    assert error.value.code == "E_OPTION"


def test_runs_with_other_thresholds_have_another_key():
    keys = [
        json.dumps(configure_detection(MODEL, **options).key)
        for options in ({}, {"threshold": 0.5}, {"precision": 0.6}, {"top": 2}, {"species": ["7"]})
    ]
    assert len(set(keys)) == 5


# ---- with the tiny run


@pytest.fixture(scope="module")
def partial_model(run, tmp_path_factory):
    """The run's model, which could not learn its first species."""
    import shutil

    folder = tmp_path_factory.mktemp("partial") / "model"
    shutil.copytree(run.model, folder)
    first = read_bundle(folder).species[0]
    blank = unsupported_threshold("no present", 0, 4, None).model_dump(mode="json")
    change(folder, thresholds=lambda own: {**own, first: blank})
    seal(folder)
    return folder


def test_species_that_was_not_learnable_is_a_blank_column(partial_model, simulated, tmp_path):
    test = simulated / "test"
    species = read_bundle(partial_model).species
    made = predict_to(partial_model, test, tmp_path / "out", threshold=0.01)
    assert tuple(made.presence.columns[1:]) == species
    assert made.presence[species[0]].isna().all()
    assert made.presence[list(species[1:])].notna().all(axis=None)
    assert species[0] not in set(made.events["species"]) != set()
    assert any(species[0] in note for note in made.notes)
    frames = ap.predict(partial_model, test)
    assert frames[species[0]].isna().all()
    assert frames[species[1]].notna().all()

    truth = made.presence.copy()
    truth[list(species)] = (np.arange(len(truth)) % 2)[:, None] * np.ones(len(species), int)
    truth.to_csv(tmp_path / "truth.csv", index=False)
    evaluation = evaluate(tmp_path / "out", tmp_path / "truth.csv")
    assert set(evaluation.per_species["species"]) == set(species[1:])
    assert any(species[0] in note for note in evaluation.notes)
    truth[["recording_id", species[0]]].to_csv(tmp_path / "truth.csv", index=False)
    with pytest.raises(UserError) as error:
        evaluate(tmp_path / "out", tmp_path / "truth.csv")
    assert error.value.code == "E_SCORES_MISSING"

    table = pd.read_csv(tmp_path / "out" / "presence.csv", dtype=str, keep_default_na=False)
    ids = list(table["recording_id"])
    member = member_from_table(table, ids, Classes(species), name="mine")
    assert member.scored.tolist() == [False] + [True] * (len(species) - 1)


def test_submission_has_no_gap_for_a_species_that_was_not_learnable(
    partial_model, simulated, tmp_path
):
    species = read_bundle(partial_model).species
    ids = sorted(path.stem for path in (simulated / "test").iterdir())
    pd.DataFrame(0, index=pd.Index(ids, name="recording_id"), columns=species).to_csv(
        tmp_path / "sample.csv"
    )
    made = predict_to(
        *(partial_model, simulated / "test", tmp_path / "out"),
        submission=tmp_path / "sample.csv",
        prevalence=_prevalence(tmp_path, species),
    )
    assert (made.submission[species[0]] == 0).all()
    assert (made.submission[list(species[1:])] > 0).all(axis=None)
    assert made.presence[species[0]].isna().all()
    assert any("score 0" in note for note in made.notes)


def _prevalence(folder, species):
    path = folder / "prevalence.csv"
    pd.DataFrame({"species": species, "prevalence": 0.2}).to_csv(path, index=False)
    return path


def test_options_of_the_command_choose_species_thresholds_and_events(
    run, simulated, tmp_path, antpitta
):
    names = list(read_bundle(run.model).species)
    common = ("predict", run.model, simulated / "test", "-o")
    code, printed, _ = antpitta(*common, tmp_path / "all", "--threshold", "0.2")
    assert code == 0
    every = pd.read_csv(tmp_path / "all" / "events.csv")
    assert set(every["support"]) == {"given"}
    wanted = f"{names[1].upper()},{names[0]}"
    options = ("--threshold", "0.2", "--species", wanted, "--top", "1")
    code, printed, _ = antpitta(*common, tmp_path / "two", *options)
    assert code == 0
    presence = pd.read_csv(tmp_path / "two" / "presence.csv")
    assert list(presence.columns) == ["recording_id", *names[:2]]
    both = pd.read_csv(tmp_path / "all" / "presence.csv")
    pd.testing.assert_frame_equal(presence, both[presence.columns])
    best = pd.read_csv(tmp_path / "two" / "events.csv").set_index(["file", "species"])["score"]
    of_all = every[every["species"].isin(names[:2])].groupby(["file", "species"])["score"].max()
    pd.testing.assert_series_equal(best.sort_index(), of_all)  # one a species and recording
    code, printed, _ = antpitta(*common, tmp_path / "precise", "--expect-precision", "0.9")
    assert "precision 0.9 is not supported" in printed
    note = json.loads((tmp_path / "precise" / "run.json").read_text())
    assert (note["expect_precision"], set(note["support"].values())) == (0.9, {"unsupported"})
    for bad in (
        ("--threshold", "0.5", "--expect-precision", "0.9"),
        ("--threshold", "2"),
        ("--species", "kiwi"),
        ("--species", names[0], "--submission", tmp_path / "all" / "presence.csv"),
        ("--top", "0"),
    ):
        code, _, error = antpitta(*common, tmp_path / "bad", *bad)
        assert code == 2
        assert error.count("\n") == 1
        assert "Traceback" not in error
    assert not (tmp_path / "bad").exists()


def test_resume_with_another_threshold_is_refused(run, simulated, tmp_path):
    test = simulated / "test"
    predict_to(run.model, test, tmp_path, threshold=0.5)
    for options in ({}, {"threshold": 0.4}, {"threshold": 0.5, "top": 1}):
        with pytest.raises(UserError) as error:
            predict_to(run.model, test, tmp_path, resume=True, **options)
        assert error.value.code == "E_RESUME_MISMATCH"
    predict_to(run.model, test, tmp_path, resume=True, threshold=0.5)
