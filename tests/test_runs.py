"""The folder of a run: started once, resumed only as it began; its tables read back."""

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


def test_tensors_and_their_metadata_read_back(tmp_path):
    state = {
        "conv.weight": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        "transposed": torch.arange(6.0).view(2, 3).T,
        "count": torch.tensor(7),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "parameter": torch.nn.Parameter(torch.ones(3)),
    }
    path = tmp_path / "new" / "fold0.safetensors"
    save_tensors(state, path, {"stage": "crops"})
    loaded, metadata = load_tensors(path)
    assert metadata == {"stage": "crops"}
    assert set(loaded) == set(state)
    for key, value in state.items():
        assert loaded[key].dtype == value.dtype
        assert torch.equal(loaded[key], value)
    assert list(path.parent.iterdir()) == [path]


def test_equal_tensors_give_equal_files_in_any_order(tmp_path):
    state = {f"t{i}": torch.full((i + 1,), i, dtype=torch.float32) for i in range(5)}
    metadata = {name: name for name in "abcdefgh"}
    for i in range(6):
        order = sorted(state, reverse=bool(i % 2))
        save_tensors({name: state[name] for name in order}, tmp_path / f"{i}", metadata)
    files = {(tmp_path / f"{i}").read_bytes() for i in range(6)}
    assert len(files) == 1
    [content] = files
    assert content[8:].startswith(b'{"__metadata__":{"a":"a","b":"b"')
    assert int.from_bytes(content[:8], "little") % 8 == 0


def test_failed_write_leaves_the_old_weights(tmp_path):
    path = tmp_path / "fold0.safetensors"
    save_tensors({"a": torch.ones(2)}, path)
    with pytest.raises(Exception, match=r".*"):
        save_tensors({"a": torch.ones(2)}, path, {"stage": 3})
    assert torch.equal(load_tensors(path)[0]["a"], torch.ones(2))
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoint_is_the_last_one_saved(tmp_path):
    file = CheckpointFile(tmp_path / "fold0.checkpoint")
    assert file.load() is None
    file.save(1, {"a": torch.zeros(1)})
    file.save(2, {"a": torch.ones(1)})
    epoch, state = file.load()
    assert epoch == 2
    assert torch.equal(state["a"], torch.ones(1))


def test_later_cycle_has_a_folder_of_its_own(tmp_path):
    folder = RunFolder(tmp_path)
    names = [folder.stage("pseudo", cycle).name for cycle in (1, 2, 3)]
    assert names == ["pseudo", "pseudo-c2", "pseudo-c3"]
    assert folder.model == tmp_path / "model"


def test_run_is_never_overwritten(tmp_path):
    folder = RunFolder(tmp_path / "deep" / "run")
    folder.begin(CONFIG, resume=False)
    assert folder.config()["recipe"]["name"] == "rfcx"
    with pytest.raises(UserError) as error:
        folder.begin(CONFIG, resume=False)
    assert error.value.code == "E_RUN_EXISTS"
    assert "--resume" in error.value.remedy


def test_run_is_resumed_only_with_the_recipe_and_data_it_began_with(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(CONFIG, resume=True)  # nothing there yet: it begins
    folder.begin({**CONFIG, "version": "1"}, resume=True)
    assert folder.config()["version"] == "0"
    other = read_recipe("rfcx", ("stages.masked.epochs=6",)).model_dump()
    for key, value in (("recipe", other), ("data", {"digest": "abd"})):
        with pytest.raises(UserError) as error:
            folder.begin({**CONFIG, key: value}, resume=True)
        assert error.value.code == "E_RUN_DIFFERS"
        assert error.value.what.endswith(key)


def test_run_with_removed_settings_is_not_resumed(tmp_path):
    recipe = read_recipe("rfcx").model_dump()
    folder = RunFolder(tmp_path / "run")
    folder.begin({**CONFIG, "recipe": recipe | {"overlay": {"copies": 0}}}, resume=False)
    with pytest.raises(UserError) as error:
        folder.begin({**CONFIG, "recipe": recipe}, resume=True)
    assert error.value.code == "E_REMOVED_SETTING"
    assert "overlay" in error.value.what


def test_every_shipped_recipe_reads_back_from_the_config(tmp_path):
    for name in shipped_recipes():
        folder = RunFolder(tmp_path / name)
        recipe = read_recipe(name)
        folder.begin({**CONFIG, "recipe": recipe.model_dump()}, resume=False)
        assert parse_recipe(folder.config()["recipe"], name) == recipe
        folder.begin({**CONFIG, "recipe": recipe.model_dump()}, resume=True)


def test_folder_without_a_run_is_an_error(tmp_path):
    folder = RunFolder(tmp_path)
    for read in (folder.config, folder.report):
        with pytest.raises(UserError) as error:
            read()
        assert error.value.code == "E_NO_RUN"


def test_unfinished_run_is_an_error_that_names_resume(tmp_path):
    folder = RunFolder(tmp_path)
    folder.begin(CONFIG, resume=False)
    scores_file = tmp_path / "oof_scores.parquet"
    for read in (folder.report, folder.cells, lambda: read_scores(scores_file)):
        with pytest.raises(UserError) as error:
            read()
        assert error.value.code == "E_RUN_UNFINISHED"
        assert "--resume" in error.value.remedy


def row(epoch, loss, stage="crops"):
    return {"stage": stage, "cycle": 1, "fold": 0, "epoch": epoch, "loss": loss}


def test_epoch_that_was_run_again_replaces_its_row(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.read_log() is None
    folder.log([row(1, 0.5)])
    folder.log([row(2, 0.4), row(1, 0.1, "masked")])
    folder.log([row(2, 0.3)])
    log = folder.read_log()
    assert len(log) == 3
    loss = log.set_index(["stage", "epoch"])["loss"]
    assert loss["crops", 1] == 0.5
    assert loss["crops", 2] == 0.3
    assert loss["masked", 1] == 0.1


def test_folds_read_back_with_ids_that_look_like_numbers(tmp_path):
    (tmp_path / "folds.csv").write_text("recording,site,fold\n007,NA,0\nNA,,1\n")
    assert RunFolder(tmp_path).folds() == {"007": 0, "NA": 1}


def scores(recording, frames, source="run/masked/fold1", start=0.0, species=("s0", "s1")):
    value = np.random.default_rng(frames).random((frames, len(species))).astype(np.float32)
    grid = TimeGrid(32 * 60 / 3751, frames, start)
    return Scores(recording, grid, Classes(species), value, source)


def test_scores_read_back_as_they_were_written(tmp_path):
    species = ("coqui", "NA", "1", "élan, le", "start")
    written = [
        scores("b", 118, "run/masked/fold0", species=species),
        scores("00012", 1, species=species),
        scores("NA", 7, species=species),
        scores("a/b c.wav", 3, species=species),
    ]
    path = tmp_path / "deep" / "oof_scores.parquet"
    write_scores(written, path)
    read = read_scores(path)
    assert [part.recording for part in read] == ["b", "00012", "NA", "a/b c.wav"]
    for before, after in zip(written, read, strict=True):
        assert before.classes == after.classes
        assert before.source == after.source
        assert (before.grid.frames, before.grid.start) == (after.grid.frames, after.grid.start)
        assert before.grid.hop == pytest.approx(after.grid.hop, rel=1e-12)
        assert after.value.dtype == np.float32
        np.testing.assert_array_equal(before.value, after.value)


def test_scores_with_a_late_start_keep_it(tmp_path):
    write_scores([scores("a", 5, start=86_399.5)], tmp_path / "s.parquet")
    (read,) = read_scores(tmp_path / "s.parquet")
    assert read.grid.start == 86_399.5
    assert read.grid.hop == pytest.approx(32 * 60 / 3751, rel=1e-9)


def test_table_of_scores_has_start_and_end_times(tmp_path):
    write_scores([scores("a", 3)], tmp_path / "s.parquet")
    table = pd.read_parquet(tmp_path / "s.parquet")
    assert list(table.columns) == ["recording", "start_time", "end_time", "source", "s0", "s1"]
    np.testing.assert_allclose(table["end_time"][:-1], table["start_time"][1:])


def test_report_reads_back(tmp_path):
    folder = RunFolder(tmp_path)
    folder.begin(CONFIG, resume=False)
    metrics = {"lwlrap": np.float32(0.5), "none": float("nan")}
    stages = [{"name": "masked", "description": "", "report": metrics}]
    table = {"model": "masked", "stages": stages, "left_out": []}
    folder.write_report(table, "<html>é</html>")
    assert folder.report()["stages"][0]["report"] == {"lwlrap": 0.5, "none": None}
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "<html>é</html>"
    json.loads((tmp_path / "report.json").read_text())


# ---- a user's files, and two commands at once ----


def test_run_does_not_begin_among_files_of_a_model_or_an_output(tmp_path):
    for name in ("bundle.json", "presence.csv", "report.html", "model"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / name).write_text("mine")
        with pytest.raises(UserError) as error:
            RunFolder(tmp_path / name).begin(CONFIG, resume=False)
        assert error.value.code == "E_OUT_NOT_EMPTY"
        assert [path.name for path in (tmp_path / name).iterdir()] == [name]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("mine")
    RunFolder(tmp_path / "notes").begin(CONFIG, resume=False)  # in nobody's way
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "mine"


def test_edited_report_is_kept_and_the_run_is_not_resumed(tmp_path):
    folder = RunFolder(tmp_path)
    folder.begin(CONFIG, resume=False)
    folder.write_report({"ap": 1}, "<p>")
    folder.write_report({"ap": 2}, "<p>2")  # its own
    folder.begin(CONFIG, resume=True)
    (tmp_path / "report.html").write_text("annotated by a user")
    for repeat in (
        lambda: folder.begin(CONFIG, resume=True),
        lambda: folder.write_report({"ap": 3}, "<p>3"),
    ):
        with pytest.raises(UserError) as error:
            repeat()
        assert error.value.code == "E_OUTPUT_EDITED"
    assert (tmp_path / "report.html").read_text() == "annotated by a user"
    assert json.loads((tmp_path / "report.json").read_text()) == {"ap": 2}
