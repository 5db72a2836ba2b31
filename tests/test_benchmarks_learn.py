"""The benchmark of recipes: its figures computed again from the run folders, and its command."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    roc_auc_score,
)

import antpitta as ap
from antpitta import api
from antpitta.core.config import parse_recipe
from antpitta.core.errors import UserError
from antpitta.files.runs import RunFolder
from benchmarks import cli, learn
from benchmarks.baseline import EmbeddingWindows
from benchmarks.figures import evaluate_pseudo_labels, seconds_until
from benchmarks.runs import shipped_stage
from benchmarks.tables import FIGURES

TINY = """
name = "tiny"
description = "tests"
folds = 2
features = { sample_rate = 16000, n_fft = 512, hop_length = 320, n_mels = 32, fmax = 8000.0 }
windows = { frames = 128, overlap = 16, inference_overlap = 64 }
backbone = { name = "test_efficientnet", pretrained = false }
[[stages]]
name = "masked"
sample = "known"
batch_size = 8
epochs = 1
lr = 1e-3
[[stages]]
name = "pseudo"
init_from = "masked"
sample = "known"
batch_size = 8
epochs = 1
[stages.pseudo]
teacher = "masked"
threshold = 0.0
targets = "soft"
"""
VARIANTS = """
[[variants]]
name = "plain"
description = "without changes"
base = "tiny.toml"
[[variants]]
name = "cycles"
description = "two cycles of hard labels"
base = "tiny.toml"
set = [
    "stages.pseudo.pseudo.cycles=2",
    "stages.pseudo.pseudo.targets=hard",
    "stages.pseudo.pseudo.threshold=0.45",
]
rows = ["pseudo", "pseudo-c2"]
[[variants]]
name = "both"
description = "combined"
members = ["plain", "cycles"]
method = "extremized"
weights = [1, 3]
[[variants]]
name = "plain-rescaled"
description = "plain, rescaled"
rescaled = "plain"
[[variants]]
name = "both-rescaled"
description = "both, rescaled"
rescaled = "both"
[[variants]]
name = "all"
description = "all seeds, combined"
members = ["plain", "cycles"]
method = "extremized"
weights = [1, 3]
seeds = "all"
[[variants]]
name = "all-rescaled"
description = "all, rescaled"
rescaled = "all"
"""


@pytest.fixture(scope="module", autouse=True)
def _no_pages():
    """The page of a run takes longer to draw than these runs take to train."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("antpitta.api.run_report.render_page", lambda report: "<html></html>")
        yield


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """A table of variants with its recipe beside it."""
    home = tmp_path_factory.mktemp("variants")
    (home / "tiny.toml").write_text(TINY)
    (home / "table.toml").write_text(VARIANTS)
    return home / "table.toml"


@pytest.fixture(scope="module")
def measure(simulated, table):
    """A function that runs the benchmark into a folder."""

    def run(out, truth=simulated / "test_truth.csv", **changes):
        options = {
            "events": simulated / "test_events.csv",
            "train_truth": simulated / "train_truth.csv",
            "recipe": str(table),
            "seeds": 2,
            **changes,
        }
        data = ap.open_data(simulated)
        return learn.benchmark_learn(data, [simulated / "test"], truth, out=out, **options)

    return run


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("bench") / "out"


@pytest.fixture(scope="module")
def result(measure, out):
    """Two variants and their ensembles, two seeds each."""
    return measure(out)


def read_truth(simulated, side="test"):
    return pd.read_csv(simulated / f"{side}_truth.csv").set_index("recording_id")


def sklearn_figures(scores, truth):
    """LWLRAP and macro AP by scikit-learn."""
    present = truth.loc[scores.index].to_numpy()
    weight = present.sum(axis=1)
    lwlrap = label_ranking_average_precision_score(present, scores.to_numpy(), sample_weight=weight)
    per_species = [
        average_precision_score(present[:, k], scores.to_numpy()[:, k])
        for k in range(present.shape[1])
        if 0 < present[:, k].sum() < len(present)
    ]
    return lwlrap, np.mean(per_species)


def test_rows_have_the_order_of_the_table(result):
    per_seed = [
        ("plain", "masked"),
        ("plain", "pseudo"),
        ("cycles", "pseudo"),
        ("cycles", "pseudo-c2"),
        ("both", "-"),
        ("plain-rescaled", "-"),
        ("both-rescaled", "-"),
    ]
    of_all_seeds = [("all", "-"), ("all-rescaled", "-")]
    rows = list(zip(result.runs["variant"], result.runs["stage"], strict=True))
    assert rows == per_seed * 2 + of_all_seeds
    assert list(result.runs["seed"]) == [1] * 7 + [2] * 7 + [0] * 2
    shown = zip(result.table["variant"], result.table["stage"], strict=True)
    assert list(shown) == per_seed + of_all_seeds


def test_test_figures_equal_those_of_the_predicted_tables(result, out, simulated):
    truth = read_truth(simulated)
    not_rescaled = ~result.runs["variant"].str.endswith("-rescaled")
    for row in result.runs[not_rescaled].itertuples():
        home = out / (f"seed{row.seed}" if row.seed else "seeds") / row.variant
        folder = home / "test" / ("" if row.stage == "-" else row.stage)
        scores = pd.read_csv(folder / "presence.csv").set_index("recording_id")
        lwlrap, macro_ap = sklearn_figures(scores[truth.columns], truth)
        assert row.lwlrap == pytest.approx(lwlrap, abs=1e-9)
        assert row.macro_ap == pytest.approx(macro_ap, abs=1e-9)
        f1 = api.evaluate_events(folder, simulated / "test_events.csv").set_index("species")["f1"]
        assert row.event_f1 == pytest.approx(f1["macro"])


def test_out_of_fold_figures_equal_those_of_the_validated_boxes(result, out):
    rows = result.runs.set_index(["variant", "stage", "seed"])
    for variant in ("plain", "cycles"):
        for seed in (1, 2):
            stage = shipped_stage(out / f"seed{seed}" / variant)
            if (variant, stage, seed) not in rows.index:
                continue
            cells = pd.read_parquet(out / f"seed{seed}" / variant / "oof_cells.parquet")
            groups = [
                group for _, group in cells.groupby("species") if group["present"].nunique() == 2
            ]
            for name, metric in (("oof_ap", average_precision_score), ("oof_auc", roc_auc_score)):
                expected = np.mean([metric(group["present"], group["score"]) for group in groups])
                assert rows.loc[(variant, stage, seed), name] == pytest.approx(expected)


def test_rescaled_figures_equal_predict_with_the_prevalences_of_the_run(
    result, out, simulated, tmp_path
):
    truth = read_truth(simulated)
    rows = result.runs.set_index(["variant", "stage", "seed"])
    for name, seed in (("plain", 2), ("both", 2), ("all", 0)):
        home = out / (f"seed{seed}" if seed else "seeds") / name
        stage = shipped_stage(home) if name == "plain" else "-"
        prediction = api.predict_to(
            home, [simulated / "test"], tmp_path / name, prevalence=home / "prevalence.csv"
        )
        scores = prediction.presence.set_index("recording_id")[truth.columns]
        lwlrap, macro_ap = sklearn_figures(scores, truth)
        row = rows.loc[(f"{name}-rescaled", "-", seed)]
        assert row["lwlrap"] == pytest.approx(lwlrap, abs=1e-3)  # tables are rounded
        assert row["macro_ap"] == pytest.approx(macro_ap, abs=1e-3)
        assert row["macro_ap"] == pytest.approx(rows.loc[(name, stage, seed), "macro_ap"], abs=1e-3)
        assert np.isnan(row["oof_ap"])


def test_each_cycle_is_predicted_by_its_own_model(result, out):
    home = out / "seed1" / "cycles" / "test"
    notes = [home / stage / "benchmark.json" for stage in ("pseudo", "pseudo-c2")]
    assert len({json.loads(note.read_text())["model"] for note in notes}) == 2


def test_ensemble_takes_as_long_as_its_members(result):
    seconds = result.runs.set_index(["variant", "stage", "seed"])["seconds"]
    assert (result.runs["seconds"] > 0).all()
    for seed in (1, 2):
        members = seconds["plain", "pseudo", seed] + seconds["cycles", "pseudo-c2", seed]
        assert seconds["both", "-", seed] == pytest.approx(members)
        assert seconds["plain", "masked", seed] < seconds["plain", "pseudo", seed]
    assert seconds["all", "-", 0] == pytest.approx(seconds["both"].sum())


def test_ensemble_of_all_seeds_is_the_weighted_extremized_mean_of_all_runs(
    result, out, simulated, tmp_path
):
    tables, weights = [], []
    for name, weight in (("plain", 1), ("cycles", 3)):
        for seed in (1, 2):
            run = out / f"seed{seed}" / name
            own = api.predict_to(run, [simulated / "test"], tmp_path / f"{name}{seed}")
            tables.append(own.presence.set_index("recording_id"))
            weights.append(weight)
    mean = sum(w * table for w, table in zip(weights, tables, strict=True)) / sum(weights)
    odds = (mean / (1 - mean)) ** 1.5
    presence = pd.read_csv(out / "seeds" / "all" / "test" / "presence.csv")
    presence = presence.set_index("recording_id")
    pd.testing.assert_frame_equal(presence, (odds / (1 + odds)).loc[presence.index], atol=2e-4)
    names = json.loads((out / "seeds" / "all" / "bundle.json").read_text())["members"]
    assert names == ["seed1-plain", "seed2-plain", "seed1-cycles", "seed2-cycles"]
    assert "Median over 2 seeds" in result.markdown


def test_written_tables_equal_the_printed_one(result, out):
    page = (out / "learn.md").read_text()
    median = result.runs.query("variant == 'both'")["lwlrap"].median()
    low, high = result.runs.query("variant == 'both'")["lwlrap"].agg(["min", "max"])
    cell = f"{median:.3f}" if low == high else f"{median:.3f} ({low:.3f}-{high:.3f})"
    assert f"| {cell} |" in page
    assert "| both | - |" in page
    assert "torch" in page
    summary = pd.read_csv(out / "learn.csv")
    assert summary.loc[summary["variant"] == "both", "lwlrap"].item() == pytest.approx(median)
    assert len(pd.read_csv(out / "learn_runs.csv")) == 16
    assert [path.name for path in out.glob(".*")] == []


def test_soft_labels_are_evaluated_by_ap_and_brier_score(result, out, simulated):
    truth = read_truth(simulated, "train").stack()
    labels = pd.read_csv(out / "seed1" / "plain" / "stages" / "pseudo" / "pseudo.csv")
    highest = labels.groupby(["species", "recording"])["score"].max()
    present = pd.Series(
        [truth[recording, species] for species, recording in highest.index], index=highest.index
    )
    per_species = [
        average_precision_score(present[name], highest[name])
        for name in highest.index.unique("species")
        if present[name].nunique() == 2
    ]
    row = result.labels.query("variant == 'plain' and seed == 1").iloc[0]
    assert (row["stage"], row["kind"], row["labels"]) == ("pseudo", "soft", len(labels))
    assert row["ap"] == pytest.approx(np.mean(per_species))
    assert row["brier"] == pytest.approx(((highest - present) ** 2).mean())


def test_hard_labels_are_evaluated_by_the_share_that_is_correct(result, out, simulated):
    truth = read_truth(simulated, "train").stack()
    rows = result.labels.query("variant == 'cycles'")
    for row in rows.itertuples():
        home = out / f"seed{row.seed}" / "cycles" / "stages" / row.stage
        labels = pd.read_csv(home / "pseudo.csv")
        correct = [truth[key] for key in zip(labels["recording"], labels["species"], strict=True)]
        assert row.kind == "hard"
        assert row.correct == pytest.approx(np.mean(correct))
    assert list(rows["stage"]) == ["pseudo", "pseudo-c2"] * 2


def test_label_outside_the_truth_is_not_judged(result, out):
    folder = RunFolder(out / "seed1" / "cycles")
    recipe = parse_recipe(folder.config()["recipe"], "kept")
    labels = pd.read_csv(folder.stage("pseudo") / "pseudo.csv")
    first = labels.iloc[0]
    truth = pd.DataFrame({"recording_id": [first["recording"]], first["species"]: [1.0]})
    covered = labels.query("recording == @first.recording and species == @first.species")
    row = evaluate_pseudo_labels(recipe, folder, truth)[0]
    assert (row["labels"], row["judged"], row["correct"]) == (len(labels), len(covered), 1.0)


def test_finished_runs_are_kept_and_a_lost_one_is_trained_to_the_same_figures(
    result, measure, out, tmp_path
):
    home = tmp_path / "copy"
    shutil.copytree(out, home, copy_function=shutil.copy2)
    shutil.rmtree(home / "seed2" / "plain")
    unfinished = home / "seed1" / "plain"
    (unfinished / "report.json").unlink()
    shutil.rmtree(unfinished / "stages" / "pseudo")
    files = [
        home / "seed1" / "cycles" / "stages" / "pseudo" / "fold0.safetensors",
        unfinished / "stages" / "masked" / "fold0.safetensors",
    ]
    before = [file.stat().st_mtime_ns for file in files]
    continued = measure(home)
    assert [file.stat().st_mtime_ns for file in files] == before
    assert "2 of 4 runs were trained before" in continued.machine
    figures = [name for name in FIGURES if name != "seconds"]
    pd.testing.assert_frame_equal(continued.runs[figures], result.runs[figures])
    assert len(json.loads((unfinished / "benchmark.json").read_text())["sessions"]) == 2


def test_run_of_another_recipe_in_the_folder_is_refused(result, measure, out, table, tmp_path):
    other = tmp_path / "table.toml"
    (tmp_path / "tiny.toml").write_text(TINY.replace("batch_size = 8", "batch_size = 4"))
    other.write_text(table.read_text())
    with pytest.raises(UserError, match="plain"):
        measure(out, recipe=str(other))


def test_baseline_has_the_last_row_and_no_part_in_rank_correlations(
    monkeypatch, result, measure, out
):
    def embed(recordings, starts, progress):
        return [np.array([[start, 1.0] for start in times], np.float32) for times in starts]

    windows = EmbeddingWindows(3.0, embed)
    monkeypatch.setattr(learn, "open_embedding_windows", lambda name, dataset: windows)
    with_baseline = measure(out, baselines=("models/bird.tflite",))
    assert list(with_baseline.table["variant"])[-1] == "bird"
    assert list(with_baseline.table["event F1"])[-1] == "-"
    assert set(with_baseline.correlations["rows"]) == {6}
    with pytest.raises(UserError) as error:
        measure(out, baselines=("plain",))
    assert error.value.code == "E_BASELINE_NAME"


def test_what_does_not_fit_is_refused_before_training(measure, simulated, tmp_path):
    incomplete = tmp_path / "truth.csv"
    truth = pd.read_csv(simulated / "test_truth.csv")
    truth.drop(columns=["s2", "s5"]).to_csv(incomplete, index=False)
    for code, changes in {
        "E_BENCHMARK_EMPTY": {"seeds": 0},
        "E_VARIANT_UNKNOWN": {"variants": ("plian",)},
        "E_TEST_SET_TRUTH": {"truth": incomplete},
    }.items():
        with pytest.raises(UserError) as error:
            measure(tmp_path / "out", **changes)
        assert error.value.code == code
    assert not (tmp_path / "out").exists()


def test_session_without_an_end_leaves_no_seconds():
    sessions = [{"began": 1.0, "ended": 3.0}, {"began": 10.0, "ended": 14.0}]
    assert seconds_until(sessions, 99.0) == 6.0
    assert seconds_until(sessions, 2.5) == 1.5
    assert np.isnan(seconds_until([{"began": 1.0}, sessions[1]], 99.0))
    assert np.isnan(seconds_until([], 99.0))


def run_command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["learn", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.run(learn.app)
    output = capsys.readouterr()
    return end.value.code or 0, output.out, output.err


def test_command_prints_the_table_and_its_path(result, out, simulated, table, monkeypatch, capsys):
    arguments = [simulated, "--test", simulated / "test", "--truth", simulated / "test_truth.csv"]
    arguments += ["--recipe", table, "-o", out, "--seeds", 2, "--variants", "plain"]
    code, output, _ = run_command(monkeypatch, capsys, *arguments)
    assert code == 0
    assert "| plain | masked |" in output
    assert "| cycles |" not in output
    assert str(out / "learn.md") in output
    code, _, errors = run_command(monkeypatch, capsys, *arguments[:-1], "plain,nobody")
    assert code == 2
    assert errors.count("\n") == 1
    assert "nobody" in errors


def test_terminal_gets_tables(result, monkeypatch, capsys):
    class Terminal:
        is_terminal = True

        def print(self, what, **_):
            console.print(what)

    console = learn.console
    monkeypatch.setattr(learn, "console", Terminal())
    learn.print_result(result)
    output = capsys.readouterr().out
    for text in ("variant", "LWLRAP", "Brier", "pseudo-c2", "rank correlation"):
        assert text in output
    assert "| --- |" not in output


def test_interrupted_command_ends_with_130(monkeypatch, capsys, simulated, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(learn, "benchmark_learn", interrupt)
    arguments = [simulated, "--test", "t", "--truth", "t.csv", "-o", tmp_path]
    code, output, _ = run_command(monkeypatch, capsys, *arguments)
    assert code == 130
    assert output.count("\n") == 1
