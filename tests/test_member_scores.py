"""How much the networks of a model disagree on candidates, and what that is used for."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import antpitta as ap
from antpitta import api
from antpitta.api import member_scores
from antpitta.core.errors import UserError
from antpitta.files.bundle import read_bundle
from antpitta.files.recordings import list_files
from antpitta.predict.pipeline import predict_files
from antpitta.predict.predictor import Predictor
from antpitta.review.lookups import filter_choices
from antpitta.review.store import Store


@pytest.fixture(scope="module")
def predicted(run, simulated, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted") / "out"
    api.predict_to(run.model, [simulated / "test"], out)
    return out


@pytest.fixture(scope="module")
def by_hand(run, simulated):
    """The framewise scores of each network by itself, computed by PyTorch."""
    bundle = read_bundle(run.path)
    assert len(bundle.weights) == 2
    alone = [replace(bundle, weights=(name,), networks={}) for name in bundle.weights]
    files, _ = list_files([simulated / "test"])
    return [
        {result.file.id: result.scores for result in predict_files(Predictor(own), files)}
        for own in alone
    ]


def rows_of(queue):
    with Store.open(queue) as store:
        return list(store.candidates())


def expected(row, by_hand):
    highest = []
    for scores in by_hand:
        own = scores[row["recording_id"]]
        start = np.arange(own.grid.frames) * own.grid.hop
        centre = start + own.grid.hop / 2
        inside = (centre >= row["start_time"]) & (centre < row["end_time"])
        highest.append(own.value[inside, own.classes.names.index(row["species"])].max())
    return abs(highest[0] - highest[1]) / 2  # the standard deviation of two numbers


def test_disagreement_is_the_deviation_of_the_networks_scores(run, predicted, by_hand, tmp_path):
    ap.candidates(predicted, tmp_path / "queue", model=run.path)
    rows = rows_of(tmp_path / "queue")
    assert len(rows) > 10
    spread = np.array([row["disagreement"] for row in rows], dtype=float)
    np.testing.assert_allclose(spread, [expected(row, by_hand) for row in rows], atol=2e-5)
    assert spread.max() > 0.003
    assert len(set(spread)) > 5


def test_networks_of_all_models_of_an_ensemble_are_members(run, predicted, tmp_path):
    shutil.copytree(run.path, tmp_path / "copy")
    ap.ensemble([run.path, tmp_path / "copy"], tmp_path / "both")
    spread = []
    for model in (run.path, tmp_path / "both"):
        queue = tmp_path / f"queue of {model.name}"
        ap.candidates(predicted, queue, model=model)
        spread.append([row["disagreement"] for row in rows_of(queue)])
    np.testing.assert_allclose(*spread, atol=1e-6)  # each network twice


def test_disagreement_is_unknown_without_a_model_and_comes_with_one(run, predicted, tmp_path):
    queue = tmp_path / "queue"
    first = ap.candidates(predicted, queue)
    assert {row["disagreement"] for row in rows_of(queue)} == {None}
    with Store.open(queue) as store:
        assert filter_choices(store, 1)["disagreement"] is False
    again = ap.candidates(predicted, queue, model=run.model)
    assert (again.added, again.known) == (0, first.added)
    spread = [row["disagreement"] for row in rows_of(queue)]
    assert None not in spread
    ap.candidates(predicted, queue)
    assert [row["disagreement"] for row in rows_of(queue)] == spread
    least = float(np.median(spread))
    with Store.open(queue) as store:
        assert filter_choices(store, 1)["disagreement"] is True
        items = store.draw_items(1, limit=1000, filters={"disagreement_from": least})
    assert len(items) == sum(value >= least for value in spread) < len(spread)
    assert all(item["disagreement"] >= least for item in items)


def test_species_that_the_model_does_not_score_have_no_disagreement(run, simulated, tmp_path):
    bundle = read_bundle(run.path)
    known = next(name for name in bundle.species if name not in bundle.not_learnable)
    file = min(path.name for path in (simulated / "test").iterdir())
    table = tmp_path / "own.csv"
    table.write_text(
        "file,start_time,end_time,species,score,verdict\n"
        f"{file},1,2,{known.upper()},0.5,\n{file},3,4,no such bird,0.5,\n"
    )
    queue = tmp_path / "queue"
    ap.candidates(table, queue, audio=simulated / "test", model=run.path, teach=2)
    by_species = {row["species"].lower(): row["disagreement"] for row in rows_of(queue)}
    assert by_species["no such bird"] is None
    assert by_species[known.lower()] > 0


def test_teaching_asks_about_what_the_networks_disagree_on(run, predicted, tmp_path, monkeypatch):
    pools = []
    draw = ap.api.queue.draw_teach
    monkeypatch.setattr(
        "antpitta.api.queue.draw_teach",
        lambda pool, *rest: pools.append(pool) or draw(pool, *rest),
    )
    ap.candidates(predicted, tmp_path / "without", teach=5)
    ap.candidates(predicted, tmp_path / "with", teach=5, model=run.path)
    assert pools[0].disagreement is None
    spread = [row["disagreement"] for row in rows_of(tmp_path / "with")]
    assert sorted(pools[1].disagreement) == sorted(spread)


@pytest.mark.parametrize("in_parts", [False, True], ids=["model", "models of an ensemble"])
def test_species_that_was_not_learnable_has_no_disagreement(
    run, predicted, tmp_path, monkeypatch, in_parts
):
    model = run.path
    if in_parts:
        shutil.copytree(run.path, tmp_path / "copy")
        model = ap.ensemble([run.path, tmp_path / "copy"], tmp_path / "both").path
    bundle = read_bundle(model)
    before = [row["species"] for row in _scored(predicted, tmp_path / "before", model)]
    blank = before[0]
    with monkeypatch.context() as patch:
        names = property(lambda own: () if in_parts and own.members else (blank,))
        patch.setattr(type(bundle), "not_learnable", names)
        rows = _scored(predicted, tmp_path / "queue", model)
    assert {row["disagreement"] for row in rows if row["species"] == blank} == {None}
    others = {row["disagreement"] for row in rows if row["species"] != blank}
    assert others
    assert None not in others


def _scored(predicted, queue, model):
    ap.candidates(predicted, queue, model=model)
    return rows_of(queue)


def test_model_of_one_network_is_refused_before_there_is_a_queue(
    run, predicted, tmp_path, monkeypatch
):
    bundle = read_bundle(run.path)
    alone = replace(bundle, weights=bundle.weights[:1])
    monkeypatch.setattr(member_scores, "read_bundle", lambda path: alone)
    with pytest.raises(UserError) as error:
        ap.candidates(predicted, tmp_path / "queue", model=run.path)
    assert error.value.code == "E_OPTION"
    assert not (tmp_path / "queue").exists()


def test_command_takes_a_model(run, predicted, tmp_path, antpitta):
    code, out, _ = antpitta("candidates", predicted, "-o", tmp_path / "queue", "--model", run.path)
    assert code == 0
    assert "members of" in out
    assert None not in {row["disagreement"] for row in rows_of(tmp_path / "queue")}
