"""bench learn: its figures worked out again from the run folders, and what it refuses."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    roc_auc_score,
)
from sklearn.preprocessing import StandardScaler

import antpitta as ap
from antpitta import api
from antpitta.cli import main
from antpitta.core.config import parse_recipe
from antpitta.core.errors import UserError
from antpitta.core.features import EmbeddingConfig
from antpitta.core.types import Classes, Dataset
from antpitta.files.recipes import shipped_recipes
from antpitta.files.runs import RunFolder
from antpitta.train.out_of_fold import assign_folds
from benchmarks.baseline import evaluate_baseline
from benchmarks.figures import judge_labels, seconds_until
from benchmarks.files import shipped_ablations
from benchmarks.tables import FIGURES, Bench
from benchmarks.test_set import read_test_set, read_truth
from benchmarks.variants import choose_variants, read_variants
from benchmarks.vectors import Embed, _embed, open_embed

TINY = """
name = "tiny"
description = "tests"
folds = 2
front = { sample_rate = 16000, n_fft = 512, hop = 320, bands = 32, high = 8000.0 }
windows = { frames = 128, overlap = 16, scan_overlap = 64 }
network = { backbone = "test_efficientnet", pretrained = false }
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
says = "as it is"
base = "tiny.toml"
[[variants]]
name = "again"
says = "two cycles of hard labels"
base = "tiny.toml"
set = [
    "stages.pseudo.pseudo.cycles=2",
    "stages.pseudo.pseudo.targets=hard",
    "stages.pseudo.pseudo.threshold=0.45",
]
rows = ["pseudo", "pseudo-c2"]
[[variants]]
name = "both"
says = "blended"
members = ["plain", "again"]
by = "extremized"
weights = [1, 3]
[[variants]]
name = "plain-rescaled"
says = "plain, rescaled"
rescaled = "plain"
[[variants]]
name = "both-rescaled"
says = "both, rescaled"
rescaled = "both"
[[variants]]
name = "all"
says = "every seed's, blended"
members = ["plain", "again"]
by = "extremized"
weights = [1, 3]
seeds = "all"
[[variants]]
name = "all-rescaled"
says = "all, rescaled"
rescaled = "all"
"""
SILENT = api.Progress(lambda text: None, lambda what, done, total, loss: None)


@pytest.fixture(scope="module", autouse=True)
def _no_pages():
    """The page of a run takes longer to draw than these runs take to train."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("antpitta.api.training.render_page", lambda story: "<html></html>")
        yield


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """A table of variants, its recipe beside it."""
    home = tmp_path_factory.mktemp("variants")
    (home / "tiny.toml").write_text(TINY)
    (home / "table.toml").write_text(VARIANTS)
    return home / "table.toml"


@pytest.fixture(scope="module")
def measure(scapes, table):
    """A function that runs the bench into a folder."""

    def run(out, **more):
        given = {
            "events": scapes / "test_events.csv",
            "train_truth": scapes / "train_truth.csv",
            "recipe": str(table),
            "seeds": 2,
            **more,
        }
        test, truth = [scapes / "test"], given.pop("truth", scapes / "test_truth.csv")
        return api.bench_learn(ap.open_data(scapes), test, truth, out=out, **given)

    return run


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("bench") / "out"


@pytest.fixture(scope="module")
def bench(measure, out):
    """Two variants and their ensemble, two seeds each."""
    return measure(out)


def truth_of(scapes, side="test"):
    return pd.read_csv(scapes / f"{side}_truth.csv").set_index("recording_id")


def earned(scores, truth):
    """LWLRAP and macro AP by scikit-learn."""
    there = truth.loc[scores.index].to_numpy()
    weight = there.sum(axis=1)
    lwlrap = label_ranking_average_precision_score(there, scores.to_numpy(), sample_weight=weight)
    each = [
        average_precision_score(there[:, k], scores.to_numpy()[:, k])
        for k in range(there.shape[1])
        if 0 < there[:, k].sum() < len(there)
    ]
    return lwlrap, np.mean(each)


def test_rows_are_those_of_the_table_in_its_order(bench):
    places = [
        ("plain", "masked"),
        ("plain", "pseudo"),
        ("again", "pseudo"),
        ("again", "pseudo-c2"),
        ("both", "-"),
        ("plain-rescaled", "-"),
        ("both-rescaled", "-"),
    ]
    late = [("all", "-"), ("all-rescaled", "-")]
    assert list(zip(bench.runs["variant"], bench.runs["stage"], strict=True)) == places * 2 + late
    assert list(bench.runs["seed"]) == [1] * 7 + [2] * 7 + [0] * 2
    shown = bench.table
    assert list(zip(shown["variant"], shown["stage"], strict=True)) == places + late


def test_figures_are_those_of_the_run_folders(bench, out, scapes):
    truth = truth_of(scapes)
    own = ~bench.runs["variant"].str.endswith("-rescaled")
    for row in bench.runs[own].itertuples():
        home = out / (f"seed{row.seed}" if row.seed else "seeds") / row.variant
        found = home / "test" / ("" if row.stage == "-" else row.stage)
        scores = pd.read_csv(found / "presence.csv").set_index("recording_id")
        lwlrap, macro_ap = earned(scores[truth.columns], truth)
        assert row.lwlrap == pytest.approx(lwlrap, abs=1e-9)
        assert row.macro_ap == pytest.approx(macro_ap, abs=1e-9)
        f1 = api.evaluate_events(found, scapes / "test_events.csv").set_index("species")["f1"]
        assert row.event_f1 == pytest.approx(f1["macro"])


def test_out_of_fold_figures_are_of_judged_boxes(bench, out):
    rows = bench.runs.set_index(["variant", "stage", "seed"])
    for variant, stage in (("plain", "pseudo"), ("again", "pseudo-c2")):
        for seed in (1, 2):
            cells = pd.read_parquet(out / f"seed{seed}" / variant / "oof_cells.parquet")
            both = [own for _, own in cells.groupby("species") if own["present"].nunique() == 2]
            for name, score in (("oof_ap", average_precision_score), ("oof_auc", roc_auc_score)):
                expected = np.mean([score(own["present"], own["score"]) for own in both])
                assert rows.loc[(variant, stage, seed), name] == pytest.approx(expected)


def test_rescaling_is_what_predict_does_with_the_runs_own_prevalences(bench, out, scapes, tmp_path):
    truth = truth_of(scapes)
    rows = bench.runs.set_index(["variant", "stage", "seed"])
    for name, stage, seed in (("plain", "pseudo", 2), ("both", "-", 2), ("all", "-", 0)):
        home = out / (f"seed{seed}" if seed else "seeds") / name
        found = api.predict_to(
            home, [scapes / "test"], tmp_path / name, prevalence=home / "prevalence.csv"
        )
        lwlrap, macro_ap = earned(found.presence.set_index("recording_id")[truth.columns], truth)
        row = rows.loc[(f"{name}-rescaled", "-", seed)]
        assert row["lwlrap"] == pytest.approx(lwlrap, abs=1e-3)  # tables are rounded
        assert row["macro_ap"] == pytest.approx(macro_ap, abs=1e-3)
        assert row["macro_ap"] == pytest.approx(rows.loc[(name, stage, seed), "macro_ap"], abs=1e-3)
        assert np.isnan(row["oof_ap"])


def test_every_cycle_is_predicted_by_its_own_model(bench, out):
    home = out / "seed1" / "again" / "test"
    models = {json.loads((home / place / "bench.json").read_text())["model"] for place in
              ("pseudo", "pseudo-c2")}  # fmt: skip
    assert len(models) == 2


def test_an_ensemble_takes_as_long_as_its_members(bench):
    rows = bench.runs.set_index(["variant", "stage", "seed"])["seconds"]
    assert (bench.runs["seconds"] > 0).all()
    for seed in (1, 2):
        whole = rows["plain", "pseudo", seed] + rows["again", "pseudo-c2", seed]
        assert rows["both", "-", seed] == pytest.approx(whole)
        assert rows["plain", "masked", seed] < rows["plain", "pseudo", seed]
    assert rows["all", "-", 0] == pytest.approx(rows["both"].sum())


def test_an_ensemble_of_all_seeds_is_the_weighted_mean_of_every_run(bench, out, scapes):
    said, weight = [], []
    for name, place, heavy in (("plain", "pseudo", 1), ("again", "pseudo-c2", 3)):
        for seed in (1, 2):
            found = out / f"seed{seed}" / name / "test" / place / "presence.csv"
            said.append(pd.read_csv(found).set_index("recording_id"))
            weight.append(heavy)
    odds = sum(heavy * one for heavy, one in zip(weight, said, strict=True)) / sum(weight)
    odds = (odds / (1 - odds)) ** 1.5
    heard = pd.read_csv(out / "seeds" / "all" / "test" / "presence.csv").set_index("recording_id")
    pd.testing.assert_frame_equal(heard, (odds / (1 + odds)).loc[heard.index], atol=2e-4)
    names = json.loads((out / "seeds" / "all" / "bundle.json").read_text())["members"]
    assert names == ["seed1-plain", "seed2-plain", "seed1-again", "seed2-again"]
    assert "Median over 2 seeds" in bench.markdown


def test_the_tables_that_are_written_are_the_one_that_is_shown(bench, out):
    page = (out / "learn.md").read_text()
    median = bench.runs.query("variant == 'both'")["lwlrap"].median()
    low, high = bench.runs.query("variant == 'both'")["lwlrap"].agg(["min", "max"])
    cell = f"{median:.3f}" if low == high else f"{median:.3f} ({low:.3f}-{high:.3f})"
    assert f"| {cell} |" in page
    assert "| both | - |" in page
    assert "torch" in page
    kept = pd.read_csv(out / "learn.csv")
    assert kept.loc[kept["variant"] == "both", "lwlrap"].item() == pytest.approx(median)
    assert len(pd.read_csv(out / "learn_runs.csv")) == 16
    assert [path.name for path in out.glob(".*")] == []


def test_soft_labels_are_judged_by_ap_and_brier_score(bench, out, scapes):
    truth = truth_of(scapes, "train").stack()
    labels = pd.read_csv(out / "seed1" / "plain" / "stages" / "pseudo" / "pseudo.csv")
    highest = labels.groupby(["species", "recording"])["score"].max()
    present = pd.Series([truth[recording, species] for species, recording in highest.index],
                        index=highest.index)  # fmt: skip
    each = [
        average_precision_score(present[name], highest[name])
        for name in highest.index.unique("species")
        if present[name].nunique() == 2
    ]
    row = bench.labels.query("variant == 'plain' and seed == 1").iloc[0]
    assert (row["stage"], row["kind"], row["labels"]) == ("pseudo", "soft", len(labels))
    assert row["ap"] == pytest.approx(np.mean(each))
    assert row["brier"] == pytest.approx(((highest - present) ** 2).mean())


def test_hard_labels_are_judged_by_the_share_that_is_right(bench, out, scapes):
    truth = truth_of(scapes, "train").stack()
    for row in bench.labels.query("variant == 'again'").itertuples():
        home = out / f"seed{row.seed}" / "again" / "stages" / row.stage
        labels = pd.read_csv(home / "pseudo.csv")
        right = [truth[pair] for pair in zip(labels["recording"], labels["species"], strict=True)]
        assert row.kind == "hard"
        assert row.right == pytest.approx(np.mean(right))
    assert list(bench.labels.query("variant == 'again'")["stage"]) == ["pseudo", "pseudo-c2"] * 2


def test_a_label_the_truth_does_not_speak_of_is_not_judged(out):
    folder = RunFolder(out / "seed1" / "again")
    recipe = parse_recipe(folder.config()["recipe"], "kept")
    labels = pd.read_csv(folder.stage("pseudo") / "pseudo.csv")
    first = labels.iloc[0]
    truth = pd.DataFrame({"recording_id": [first["recording"]], first["species"]: [1.0]})
    mine = labels.query("recording == @first.recording and species == @first.species")
    row = judge_labels(recipe, folder, truth)[0]
    assert (row["labels"], row["judged"], row["right"]) == (len(labels), len(mine), 1.0)


def test_finished_runs_are_found_and_a_lost_one_is_trained_to_the_same_figures(
    bench, measure, out, tmp_path
):
    home = tmp_path / "copy"
    shutil.copytree(out, home, copy_function=shutil.copy2)
    shutil.rmtree(home / "seed2" / "plain")
    unfinished = home / "seed1" / "plain"
    (unfinished / "report.json").unlink()
    shutil.rmtree(unfinished / "stages" / "pseudo")
    kept = home / "seed1" / "again" / "stages" / "pseudo" / "fold0.safetensors"
    head = unfinished / "stages" / "masked" / "fold0.safetensors"
    before = kept.stat().st_mtime_ns, head.stat().st_mtime_ns
    again = measure(home)
    assert (kept.stat().st_mtime_ns, head.stat().st_mtime_ns) == before
    assert "2 of 4 runs found trained before" in again.facts
    figures = [name for name in FIGURES if name != "seconds"]
    pd.testing.assert_frame_equal(again.runs[figures], bench.runs[figures])
    assert len(json.loads((unfinished / "bench.json").read_text())["sessions"]) == 2


def test_another_run_in_the_folder_is_refused(bench, measure, out, table, tmp_path):
    other = tmp_path / "table.toml"
    (tmp_path / "tiny.toml").write_text(TINY.replace("batch = 8", "batch = 4"))
    other.write_text(table.read_text())
    with pytest.raises(UserError, match=r"plain: the run that is there has another recipe"):
        measure(out, recipe=str(other))


def test_a_chosen_ensemble_brings_its_members(table):
    every = read_variants(str(table))
    assert choose_variants(every, ()) == every
    assert [one.name for one in choose_variants(every, ("both",))] == ["plain", "again", "both"]
    assert [one.name for one in choose_variants(every, ("again",))] == ["again"]
    assert len(choose_variants(every, ("both-rescaled",))) == 4


def test_an_unknown_variant_is_named_with_those_there_are(measure, tmp_path):
    with pytest.raises(UserError, match=r"--variants plian: .*plain, again, both, plain-rescaled"):
        measure(tmp_path, variants=("plian",))


def test_a_truth_without_a_species_stops_the_bench_before_it_trains(measure, scapes, tmp_path):
    truth = pd.read_csv(scapes / "test_truth.csv")
    truth.drop(columns=["s2", "s5"]).to_csv(tmp_path / "truth.csv", index=False)
    with pytest.raises(UserError, match=r"truth.csv: lacks the species s2, s5 \(2\)"):
        measure(tmp_path / "out", truth=tmp_path / "truth.csv")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.rename(columns={"recording_id": "id"}), "has no column recording_id"),
        (lambda t: t.assign(s99=1), "s99 .* in no training table"),
        (lambda t: t.replace({"recording_id": {"test0001": "x"}}), r"x \(1\) are not among"),
        (lambda t: t.assign(s3="yes"), "holds 'yes'"),
    ],
)
def test_a_truth_that_does_not_fit_is_refused(scapes, tmp_path, change, said):
    path = tmp_path / "truth.csv"
    change(pd.read_csv(scapes / "test_truth.csv")).to_csv(path, index=False)
    with pytest.raises(UserError, match=said):
        read_test_set([scapes / "test"], path, None, ap.open_data(scapes).dataset)


def test_a_blank_in_the_truth_is_unknown_and_a_recording_beyond_it_is_told(scapes, tmp_path):
    path = tmp_path / "truth.csv"
    truth = pd.read_csv(scapes / "test_truth.csv").iloc[1:].astype({"s0": object})
    truth.iloc[0, 1] = ""
    truth.to_csv(path, index=False)
    exam = read_test_set([scapes / "test"], path, None, ap.open_data(scapes).dataset)
    assert exam.notes == ("1 test recordings are not in the truth",)
    scores = truth.assign(**dict.fromkeys(exam.classes.names, 0.5))
    assert exam.judge(scores, "flat").cells == 3 * 8 - 1


def test_a_test_recording_that_is_trained_on_is_refused(scapes, tmp_path):
    shutil.copytree(scapes / "test", tmp_path / "test")
    shutil.copy(scapes / "train" / "train0000.flac", tmp_path / "test" / "renamed.flac")
    with pytest.raises(UserError, match=r"renamed .*trained on too"):
        read_test_set(
            [tmp_path / "test"],
            scapes / "test_truth.csv",
            None,
            ap.open_data(scapes).dataset,
        )


def test_events_of_other_recordings_are_refused(measure, scapes, tmp_path):
    with pytest.raises(UserError, match="names none of the test recordings"):
        measure(tmp_path, events=scapes / "train_events.csv")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = [", "is no TOML"),
        ('name = "a"', r"no table of variants; give a file of \[\[variants\]\]"),
        ('[[variants]]\nname = "a"\nsays = ""', "variant a: .*give one of base"),
        ('[[variants]]\nname = "A b"\nsays = ""\nbase = "quick"', "variant A b: name"),
        ('[[variants]]\nname = "a"\nsays = ""\nbase = "quck"', "variant a: recipe 'quck'"),
        ('[[variants]]\nname = "a"\nsays = ""\nbase = "quick"\nset = ["seeed=1"]', "seeed"),
        ('[[variants]]\nname = "a"\nsays = ""\nbase = "quick"\nrows = ["crops"]',
         "no stage 'crops'; rows are of whole, masked, taught"),
        ('[[variants]]\nname = "a"\nsays = ""\nmembers = ["b", "c"]', "'b' is not above it"),
        ('[[variants]]\nname = "a"\nsays = ""\nbase = "quick"\n' * 2, "two variants are named"),
        ('[[variants]]\nname = "a"\nsays = ""\nbase = "quick"\n'
         '[[variants]]\nname = "b"\nsays = ""\nmembers = ["a", "a"]', "two different members"),
        ('[[variants]]\nname = "a"\nsays = ""\nbase = "quick"\nseeds = "all"',
         "only an ensemble is of all seeds"),
        ('[[variants]]\nname = "a"\nsays = ""\nmembers = ["b"]\nrows = ["x"]', "only a recipe"),
        ('[[variants]]\nname = "a"\nsays = ""\nmembers = ["b", "c"]\nweights = [1]',
         "weights are of the members, one each"),
        ('[[variants]]\nname = "a"\nsays = ""\nmembers = ["b", "c"]\nby = "fit"\nweights = [1, 2]',
         "go with by other than auc, fit"),
        ('[[variants]]\nname = "a"\nsays = ""\nmembers = ["b", "c"]\nweights = [1, -2]',
         "not negative"),
        ('[[variants]]\nname = "a"\nsays = ""\nmembers = ["b", "c"]\nweights = [1, inf]',
         "weights, finite"),
    ],
)  # fmt: skip
def test_a_table_of_variants_is_checked_to_its_last_setting(tmp_path, text, said):
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_variants(str(path))


def test_a_table_that_is_nowhere_is_named_with_those_that_ship():
    with pytest.raises(UserError, match="quick"):
        read_variants("nowhere")


def test_no_seed_is_a_mistake(measure, tmp_path):
    with pytest.raises(UserError, match="--seeds 0"):
        measure(tmp_path, seeds=0)


@pytest.mark.parametrize("name", shipped_ablations())
def test_shipped_variants_can_all_be_trained(name):
    variants = read_variants(name)
    assert all(variant.says for variant in variants)
    assert name == "quick" or "quick" in shipped_ablations()


def test_parts_of_an_ablation_are_not_listed_as_recipes():
    assert "crops" not in shipped_recipes()
    assert "crops" not in shipped_ablations()


def made_up(rows):
    table = pd.DataFrame(rows, columns=["variant", "seed", "oof_ap", "oof_auc", "lwlrap"])
    table = table.assign(stage="-", macro_ap=-table["lwlrap"], event_f1=np.nan, seconds=10.4)
    return Bench(table, pd.DataFrame(), {}, ("bird",), "a machine")


def test_rank_correlation_is_of_medians_and_without_the_yardstick():
    bench = made_up(
        [
            *(("a", k, 0.1 * k, 0.5, 0.6) for k in (1, 2, 9)),  # median 0.2
            *(("b", k, 0.3, 0.6, 0.5) for k in (1, 2, 9)),
            *(("c", k, 0.4, 0.7, 0.8) for k in (1, 2, 9)),
            *(("d", k, 0.5, 0.9, 0.7) for k in (1, 2, 9)),
            *(("bird", k, 0.9, 0.1, 0.1) for k in (1, 2, 9)),
        ]
    )
    found = bench.agreement.set_index(["out_of_fold", "test"])
    expected = spearmanr([0.2, 0.3, 0.4, 0.5], [0.6, 0.5, 0.8, 0.7]).statistic
    assert expected == pytest.approx(0.6)  # 1 - 6 * (1 + 1 + 1 + 1) / (4 * 15)
    assert found.loc[("oof_ap", "lwlrap"), "correlation"] == pytest.approx(expected)
    assert found.loc[("oof_auc", "macro_ap"), "correlation"] == pytest.approx(-expected)
    assert (found["rows"] == 4).all()
    assert "rank correlation of out-of-fold AP and test LWLRAP: +0.600, 4 rows" in bench.agreements


def test_two_rows_agree_on_nothing_and_a_missing_figure_is_a_dash():
    bench = made_up([("a", 1, 0.1, 0.5, 0.6), ("a", 2, 0.3, 0.5, 0.6), ("b", 1, 0.2, 0.6, 0.5)])
    assert bench.agreement["correlation"].isna().all()
    first = bench.table.iloc[0]
    assert first["out-of-fold AP"] == "0.200 (0.100-0.300)"
    assert first["event F1"] == "-"
    assert first["seconds"] == "10"
    assert first["test LWLRAP"] == "0.600"


def test_a_session_without_an_end_leaves_no_seconds():
    whole = [{"began": 1.0, "ended": 3.0}, {"began": 10.0, "ended": 14.0}]
    assert seconds_until(whole, 99.0) == 6.0
    assert seconds_until(whole, 2.5) == 1.5
    assert np.isnan(seconds_until([{"began": 1.0}, whole[1]], 99.0))
    assert np.isnan(seconds_until([], 99.0))


def fake_embed(data, seconds=3.0):
    """Vectors that tell a recording and a time; and what was asked for."""
    asked = {}
    place = {one.id: i for i, one in enumerate(data.recordings)}

    def every(recordings, starts, tick):
        found = []
        for one, own in zip(recordings, starts, strict=True):
            asked[one.id] = list(own)
            number = place.get(one.id, int(one.id[-1]) + 50)
            rows = [[np.sin(number), np.cos(1.7 * number + own_), own_] for own_ in own]
            found.append(np.array(rows, dtype=np.float32).reshape(len(own), 3))
            tick(len(found), len(recordings), float("nan"))
        return found

    return Embed(seconds, every), asked


def test_the_yardstick_is_one_logistic_regression_a_species(scapes):
    data = ap.open_data(scapes).dataset
    exam = read_test_set([scapes / "test"], scapes / "test_truth.csv", None, data)
    embed, asked = fake_embed(data)
    rows = evaluate_baseline(data, exam, embed, 2, SILENT)
    assert [row["seed"] for row in rows] == [1, 2]
    assert rows[0]["lwlrap"] == rows[1]["lwlrap"]
    assert asked["test0000"] == [0, 1, 2, 3, 4, 5]  # 3 s every second of 8 s
    vector = {one.id: embed.all([one], [asked[one.id]], lambda *_: None)[0] for one in
              (*data.recordings, *exam.recordings)}  # fmt: skip
    boxes = []
    for one in data.recordings:
        said = [a for a in data.annotations if a.recording == one.id]
        for i, box in enumerate(said):
            start = min(max((box.start + box.stop) / 2 - 1.5, 0), 5)
            assert asked[one.id][i] == pytest.approx(start)
            boxes.append((one.id, box.label, box.present, vector[one.id][i]))

    def fitted(rows):
        scaler = StandardScaler().fit([row[3] for row in rows])
        model = LogisticRegression(class_weight="balanced", max_iter=1000)
        model.fit(scaler.transform([row[3] for row in rows]), [row[2] for row in rows])
        return lambda value: model.predict_proba(scaler.transform(value))[:, 1]

    truth = truth_of(scapes)
    by_species = {name: fitted([b for b in boxes if b[1] == name]) for name in truth.columns}
    scores = pd.DataFrame(
        {name: [model(vector[i]).max() for i in truth.index] for name, model in by_species.items()},
        index=truth.index,
    )
    assert (rows[0]["lwlrap"], rows[0]["macro_ap"]) == pytest.approx(earned(scores, truth))

    folds = dict(zip((one.id for one in data.recordings), assign_folds(data, 3, 1), strict=True))
    each = []
    for name in data.classes.names:
        mine = [box for box in boxes if box[1] == name]
        score = []
        for box in mine:
            others = [one for one in mine if folds[one[0]] != folds[box[0]]]
            both = len({one[2] for one in others}) == 2
            score.append(fitted(others)([box[3]])[0] if both else 0.5)
        each.append(average_precision_score([box[2] for box in mine], score))
    assert rows[0]["oof_ap"] == pytest.approx(np.mean(each))


def test_a_yardstick_stands_below_the_variants(monkeypatch, measure, bench, out, scapes):
    embed, _ = fake_embed(ap.open_data(scapes).dataset)
    monkeypatch.setattr("benchmarks.api.open_embed", lambda name, dataset: embed)
    found = measure(out, yardsticks=("models/bird.tflite",))
    assert list(found.table["variant"])[-1] == "bird"
    assert list(found.table["event F1"])[-1] == "-"
    assert set(found.agreement["rows"]) == {6}
    with pytest.raises(UserError, match="--yardstick plain"):
        measure(out, yardsticks=("plain",))


def test_vectors_are_kept_and_asked_for_one_window_at_a_time(scapes):
    data = ap.open_data(scapes).dataset
    asked = []

    def draw(wave, frames):
        asked.append((len(wave), frames))
        return np.array([[wave.std(), len(asked)]], dtype=np.float16)

    embedding = EmbeddingConfig(model="x.onnx", sample_rate=16_000, seconds=2.0, model_digest="abc")
    engine = SimpleNamespace(embedding=embedding, width=2, draw=draw)
    starts = [np.array([0.0, 6.0]), np.array([])]
    first = _embed(engine, data.recordings[:2], starts, lambda done, total: None)
    assert asked == [(32_000, 1)] * 2
    assert [value.shape for value in first] == [(2, 2), (0, 2)]
    again = _embed(engine, data.recordings[:2], starts, lambda done, total: None)
    assert len(asked) == 2
    np.testing.assert_array_equal(first[0], again[0])
    _embed(engine, data.recordings[:1], [np.array([1.0, 6.0])], lambda done, total: None)
    assert len(asked) == 4  # other windows are not taken for these


def test_a_yardstick_that_is_nowhere_is_the_users_mistake(monkeypatch):
    monkeypatch.delenv("ANTPITTA_EMBEDDING", raising=False)
    with pytest.raises(UserError, match=r"nowhere\.onnx"):
        open_embed("nowhere.onnx", Dataset((), (), Classes(())))


def test_truth_columns_come_in_the_order_of_the_classes(tmp_path):
    (tmp_path / "t.csv").write_text("b,recording_id,a\n1,r0,\n")
    table = read_truth(tmp_path / "t.csv", Classes(("a", "b")))
    assert list(table.columns) == ["recording_id", "a", "b"]
    assert table["a"].isna().all()


def command(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["antpitta", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    return end.value.code or 0, said.out, said.err


def test_the_command_prints_the_table_and_where_it_lies(
    bench, out, scapes, table, monkeypatch, capsys
):
    words = ["bench", "learn", scapes, "--test", scapes / "test", "--recipe", table, "-o", out]
    words += ["--truth", scapes / "test_truth.csv", "--seeds", 2, "--variants", "plain"]
    code, said, _ = command(monkeypatch, capsys, *words)
    assert code == 0
    assert "| plain | masked |" in said
    assert "again" not in said
    assert "found, trained before" in said
    assert str(out / "learn.md") in said
    code, _, err = command(monkeypatch, capsys, *words[:-1], "plain,nobody")
    assert code == 2
    assert err.count("\n") == 1
    assert "--variants nobody" in err


def test_a_terminal_gets_drawn_tables(bench, monkeypatch, capsys):
    import benchmarks.cli as room

    class Terminal:
        is_terminal = True

        def print(self, what, **_):
            room_console.print(what)

    room_console = room.console
    monkeypatch.setattr(room, "console", Terminal())
    room._show(bench)
    said = capsys.readouterr().out
    assert "median over seeds" in said
    assert "pseudo labels" in said
    assert "pseudo-c2" in said
    assert "rank correlation" in said


def test_an_interrupted_bench_says_how_to_go_on(monkeypatch, capsys, scapes, tmp_path):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "bench_learn", stopped)
    words = ["bench", "learn", scapes, "--test", "t", "--truth", "t.csv", "-o", tmp_path]
    code, said, _ = command(monkeypatch, capsys, *words)
    assert code == 130
    assert "the same command goes on" in said
