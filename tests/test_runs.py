"""A run's folder: claimed once, resumed only as it began, and its tables come back as written."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from antpitta.core.config import parse_recipe
from antpitta.core.errors import UserError
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Classes, Scores
from antpitta.files.recipes import read_recipe, shipped_recipes
from antpitta.files.runs import (
    CheckpointFile,
    RunFolder,
    load_tensors,
    read_scores,
    save_tensors,
    write_scores,
)

CONFIG = {"recipe": read_recipe("rfcx").model_dump(), "data": {"digest": "abc"}, "version": "0"}


def test_tensors_and_their_note_come_back(tmp_path):
    state = {
        "deep.weight": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        "turned": torch.arange(6.0).view(2, 3).T,
        "count": torch.tensor(7),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "learns": torch.nn.Parameter(torch.ones(3)),
    }
    path = tmp_path / "new" / "fold0.safetensors"
    save_tensors(state, path, {"stage": "crops"})
    found, note = load_tensors(path)
    assert note == {"stage": "crops"}
    assert set(found) == set(state)
    for key, value in state.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value)
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "fold0.safetensors"
    save_tensors({"a": torch.ones(2)}, path)
    with pytest.raises(Exception, match=r".*"):
        save_tensors({"a": torch.ones(2)}, path, {"stage": 3})
    assert torch.equal(load_tensors(path)[0]["a"], torch.ones(2))
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_is_the_last_one_saved(tmp_path):
    keeper = CheckpointFile(tmp_path / "fold0.checkpoint")
    assert keeper.load() is None
    keeper.save(1, {"a": torch.zeros(1)})
    keeper.save(2, {"a": torch.ones(1)})
    epoch, state = keeper.load()
    assert epoch == 2
    assert torch.equal(state["a"], torch.ones(1))


def test_a_later_cycle_has_a_folder_of_its_own(tmp_path):
    folder = RunFolder(tmp_path)
    names = [folder.stage("pseudo", cycle).name for cycle in (1, 2, 3)]
    assert names == ["pseudo", "pseudo-c2", "pseudo-c3"]
    assert folder.model == tmp_path / "model"


def test_a_run_is_never_overwritten(tmp_path):
    folder = RunFolder(tmp_path / "deep" / "run")
    folder.begin(CONFIG, resume=False)
    assert folder.config()["recipe"]["name"] == "rfcx"
    with pytest.raises(UserError, match="holds a run already; add --resume"):
        folder.begin(CONFIG, resume=False)


def test_a_run_is_resumed_only_as_it_began(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(CONFIG, resume=True)  # nothing there yet: it begins
    folder.begin({**CONFIG, "version": "1"}, resume=True)
    assert folder.config()["version"] == "0"
    other = read_recipe("rfcx", ("stages.masked.epochs=6",)).model_dump()
    with pytest.raises(UserError, match="another recipe"):
        folder.begin({**CONFIG, "recipe": other}, resume=True)
    with pytest.raises(UserError, match="another data"):
        folder.begin({**CONFIG, "data": {"digest": "abd"}}, resume=True)


def test_every_shipped_recipe_comes_back_from_the_config(tmp_path):
    for name in shipped_recipes():
        folder = RunFolder(tmp_path / name)
        recipe = read_recipe(name)
        folder.begin({**CONFIG, "recipe": recipe.model_dump()}, resume=False)
        assert parse_recipe(folder.config()["recipe"], name) == recipe
        folder.begin({**CONFIG, "recipe": recipe.model_dump()}, resume=True)


def test_what_is_no_run_is_the_users_mistake(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(UserError, match="is no run folder"):
        folder.config()
    with pytest.raises(UserError, match="is no run folder"):
        folder.report()
    folder.begin(CONFIG, resume=False)
    with pytest.raises(UserError, match="--resume"):
        folder.report()
    with pytest.raises(UserError, match="--resume"):
        folder.cells()
    with pytest.raises(UserError, match="--resume"):
        read_scores(tmp_path / "oof_scores.parquet")


def row(epoch, loss, stage="crops"):
    return {"stage": stage, "cycle": 1, "fold": 0, "epoch": epoch, "loss": loss}


def test_an_epoch_that_was_run_again_replaces_itself(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.read_log() is None
    folder.log([row(1, 0.5)])
    folder.log([row(2, 0.4), row(1, 0.1, "masked")])
    folder.log([row(2, 0.3)])
    log = folder.read_log()
    assert len(log) == 3
    at = log.set_index(["stage", "epoch"])["loss"]
    assert at["crops", 1] == 0.5
    assert at["crops", 2] == 0.3
    assert at["masked", 1] == 0.1


def test_folds_come_back_with_ids_that_look_like_numbers(tmp_path):
    (tmp_path / "folds.csv").write_text("recording,site,fold\n007,NA,0\nNA,,1\n")
    assert RunFolder(tmp_path).folds() == {"007": 0, "NA": 1}


def scores(recording, rows, source="run/masked/fold1", start=0.0, species=("s0", "s1")):
    value = np.random.default_rng(rows).random((rows, len(species))).astype(np.float32)
    grid = TimeGrid(32 * 60 / 3751, rows, start)
    return Scores(recording, grid, Classes(species), value, source)


def test_scores_come_back_as_they_were_written(tmp_path):
    species = ("coqui", "NA", "1", "élan, le", "start")
    written = [
        scores("b", 118, "run/masked/fold0", species=species),
        scores("00012", 1, species=species),
        scores("NA", 7, species=species),
        scores("a/b c.wav", 3, species=species),
    ]
    path = tmp_path / "deep" / "oof_scores.parquet"
    write_scores(written, path)
    found = read_scores(path)
    assert [one.recording for one in found] == ["b", "00012", "NA", "a/b c.wav"]
    for one, two in zip(written, found, strict=True):
        assert one.classes == two.classes
        assert one.source == two.source
        assert (one.grid.frames, one.grid.start) == (two.grid.frames, two.grid.start)
        assert one.grid.hop == pytest.approx(two.grid.hop, rel=1e-12)
        assert two.value.dtype == np.float32
        np.testing.assert_array_equal(one.value, two.value)


def test_scores_that_begin_late_keep_their_clock(tmp_path):
    write_scores([scores("a", 5, start=86_399.5)], tmp_path / "s.parquet")
    (found,) = read_scores(tmp_path / "s.parquet")
    assert found.grid.start == 86_399.5
    assert found.grid.hop == pytest.approx(32 * 60 / 3751, rel=1e-9)


def test_the_scores_table_has_times_for_people(tmp_path):
    write_scores([scores("a", 3)], tmp_path / "s.parquet")
    table = pd.read_parquet(tmp_path / "s.parquet")
    assert list(table.columns) == ["recording", "start_time", "end_time", "source", "s0", "s1"]
    np.testing.assert_allclose(table["end_time"][:-1], table["start_time"][1:])


def test_the_report_comes_back(tmp_path):
    folder = RunFolder(tmp_path)
    folder.begin(CONFIG, resume=False)
    folder.write_report({"lwlrap": np.float32(0.5), "none": float("nan")}, "<html>é</html>")
    assert folder.report() == {"lwlrap": 0.5, "none": None}
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "<html>é</html>"
    json.loads((tmp_path / "report.json").read_text())
