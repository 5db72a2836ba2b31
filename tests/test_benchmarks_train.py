"""The bench of training: the real tables' counts, and a whole small run with its table."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks.peaks import data_sheet_peak, flops_of
from benchmarks.sections import Sections
from benchmarks.train_table import COLUMNS, Measures, limit_of
from typer.testing import CliRunner

from antpitta import api
from antpitta.api.data import SILENT
from antpitta.cli import app
from antpitta.core.config import BackboneConfig, HeadConfig
from antpitta.core.errors import UserError
from antpitta.files.recipes import read_recipe
from antpitta.files.runs import RunFolder
from antpitta.model.network import SedNet
from antpitta.train.compute import ComputeConfig
from benchmarks.synthetic import count_cells, synthetic_dataset, synthetic_material
from benchmarks.train import run_train_bench

TABLES = Path(__file__).parents[1].parent / "shared" / "data" / "rfcx"
HEAD = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Two small tables: a cell that is both, and recordings in one of them only."""
    home = tmp_path_factory.mktemp("tables")
    present, absent = home / "tp.csv", home / "fp.csv"
    present.write_text(
        HEAD + "".join(f"p{i},{i % 2},1,{i + 1},100,{i + 3},900\n" for i in range(6))
    )
    absent.write_text(
        HEAD + "p0,0,1,1,100,2,900\n" + "".join(f"q{i},{i % 2},1,20,100,21,900\n" for i in range(6))
    )
    return present, absent


def test_the_real_tables_give_the_recipes_counts_of_cells():
    if not (TABLES / "train_tp.csv").is_file():
        pytest.skip("the competition's tables are not here")
    recipe = read_recipe("rfcx", ("features.n_mels=1",))
    data = synthetic_dataset(
        [TABLES / "train_tp.csv"], [TABLES / "train_fp.csv"], 4727, 32_000, seed=1
    )
    assert (len(data.recordings), len(data.classes)) == (4727, 24)
    training_data = synthetic_material(data, recipe, torch.device("cpu"))
    assert training_data.features.pixels.shape == (4727 * 3751, 1)
    cells = count_cells(training_data)
    assert (cells.all, cells.present, cells.absent, cells.both) == (907_584, 1655, 10_829, 2)
    assert "1,655 present, 10,829 absent, 2 of them both" in str(cells)


@pytest.mark.parametrize("count", [5, 12, 40])
def test_recordings_are_drawn_or_filled_up_to_the_count(tables, count):
    data = synthetic_dataset([tables[0]], [tables[1]], count, 32_000, seed=1)
    assert len(data.recordings) == count
    named = {said.recording for said in data.annotations}
    assert len(named) == min(count, 12)
    assert data.classes.names == ("s0", "s1")
    again = synthetic_dataset([tables[0]], [tables[1]], count, 32_000, seed=1)
    assert again == data


def test_noise_comes_from_the_seed(tables):
    data = synthetic_dataset([tables[0]], [tables[1]], 3, 32_000, seed=1)
    recipe = read_recipe("rfcx", ("features.n_mels=4",))
    one, two = (synthetic_material(data, recipe, torch.device("cpu")) for _ in range(2))
    assert torch.equal(one.features.pixels, two.features.pixels)
    other = synthetic_material(
        data, recipe.model_copy(update={"seed": 2}), torch.device("cpu")
    ).features.pixels
    assert not torch.equal(one.features.pixels, other)
    assert other.float().mean() == pytest.approx(127.5, abs=2)


def test_flops_are_those_of_the_layers():
    net = SedNet(BackboneConfig(name="test_resnet", pretrained=False), HeadConfig(), 3, bands=32)
    training, scoring = flops_of(net, 64, 32)
    convolutions = 0

    def count(layer, given, found):
        nonlocal convolutions
        weight = layer.weight
        convolutions += 2 * weight[0].numel() * found.numel() / found.shape[0]

    kinds = (torch.nn.Conv2d, torch.nn.Conv1d)
    for layer in net.modules():
        if isinstance(layer, kinds):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        net.eval()(torch.zeros(2, 64, 32, dtype=torch.uint8))
    assert scoring == pytest.approx(convolutions)
    assert 2.5 < training / scoring <= 3.0  # the first layer has no gradient of its input
    assert all(p.grad is None for p in net.parameters())


def test_cards_are_known_by_their_names():
    assert data_sheet_peak("NVIDIA H100 80GB HBM3") == 989e12
    assert data_sheet_peak("NVIDIA H100 PCIe") == 756e12
    assert data_sheet_peak("Some Other Card") is None


def test_shares_of_sections_add_up_to_one():
    sections = Sections(torch.device("cpu"), {"a": 1.0, "b": 3.0})
    assert sections.share("a") == 0.25
    assert sections.share("a", "b") == 1.0
    assert Sections(torch.device("cpu")).share("a") == 0.0


TINY = """
name = "tiny"
description = "tests"
folds = 2
[features]
sample_rate = 8000
n_fft = 256
hop_length = 4000
n_mels = 32
fmin = 50.0
fmax = 4000.0
[windows]
frames = 32
overlap = 8
inference_overlap = 16
[backbone]
name = "test_resnet"
[[stages]]
name = "crops"
sample = "crops"
batch_size = 4
epochs = 2
mixup = 0.1
crop_shifts = [4]
[stages.loss]
unknown = "absent"
reduction = "mean"
class_weights = true
[[stages]]
name = "masked"
init_from = "crops"
batch_size = 4
epochs = 1
[[stages]]
name = "pseudo"
init_from = "crops"
batch_size = 4
epochs = 1
manifold_mixup = 0.1
[stages.pseudo]
teacher = "masked"
threshold = 0.0
cycles = 2
"""


def test_a_whole_run_is_trained_and_told_of(tables, tmp_path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY)
    given = [
        *("bench", "train", "--present", tables[0], "--absent", tables[1], "--recordings", 14),
        *("--recipe", recipe, "--device", "cpu", "--precision", "bfloat16"),
        *("-o", tmp_path / "run", "--set", "stages.crops.epochs=1"),
    ]
    done = CliRunner().invoke(app, [str(one) for one in given])
    assert done.exit_code == 0, done.output
    for part in ("14 recordings", "of them both", "pseudo-c2", "limit:", "GFLOP a window", "peak"):
        assert part in done.output
    assert (tmp_path / "run" / "train.csv").is_file()
    assert (tmp_path / "run" / "stages" / "pseudo-c2" / "oof_scores.parquet").is_file()
    again = CliRunner().invoke(app, [str(one) for one in given])
    assert isinstance(again.exception, UserError)


def test_the_table_counts_steps_windows_and_shares(tables, tmp_path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY)
    found = api.bench_train(
        [tables[0]], [tables[1]], recordings=14, recipe=str(recipe), device="cpu"
    )
    table = found.table.set_index(["stage", "cycle"])
    assert tuple(found.table.columns) == COLUMNS
    assert list(table.index) == [("crops", 1), ("masked", 1), ("pseudo", 1), ("pseudo", 2)]
    # a minute is 121 frames: windows at 0, 24, 48, 72 and 96; each recording trains once
    assert table.loc[("masked", 1), "windows"] == 14 * 5
    assert table.loc[("crops", 1), "windows"] == 2 * 12  # epochs; all that have boxes
    assert table.loc[("masked", 1), "steps"] == 2 * 2  # 7 recordings a fold, 4 a batch
    assert (table["training"] < table["seconds"]).all()
    assert table["outside"].between(0, 1).all()
    assert np.isfinite(table["tflops"]).all()
    assert found.seconds >= table["seconds"].sum() * 0.99


def test_what_cannot_be_measured_is_a_mistake(tables):
    with pytest.raises(UserError, match="at least 2"):
        api.bench_train([tables[0]], [tables[1]], recordings=1)
    with pytest.raises(UserError, match="no boxes"):
        api.bench_train([], [])


@pytest.mark.parametrize(
    ("row", "sections", "asking", "says"),
    [
        ({"seconds": 30.0}, {}, 1.0, "around the training steps"),
        ({}, {}, 0.97, "the host: it needs 97% of a step of one"),
        ({"outside": 0.5}, {"cut and mix": 4.0, "step": 1.0}, 0.5, "most of it cut and mix"),
        ({"peak_share": 0.7}, {}, 0.5, "arithmetic: 70%"),
        ({}, {}, 1.0, "traffic to memory and its small layers: 20%"),
    ],
)
def test_the_limit_is_what_the_longest_stage_waits_for(row, sections, asking, says):
    base = {"stage": "one", "training": 10.0, "seconds": 12.0, "outside": 0.1, "peak_share": 0.2}
    short = {**base, "stage": "two", "training": 0.5, "seconds": 0.6}
    parts = Sections(torch.device("cpu"), {"forward": 5.0, **sections})
    measures = Measures({"one": parts}, {"one": asking}, (1.0, 1.0), 1.0, True)
    assert says in limit_of(pd.DataFrame([{**base, **row}, short]), measures)


def test_several_devices_and_vectors_are_not_measured():
    recipe = read_recipe("rfcx")
    given = ([], [], recipe, RunFolder(Path("nowhere")))
    with pytest.raises(UserError, match="one device"):
        run_train_bench(*given, ComputeConfig(devices=2), 4, SILENT)
    vectors = SimpleNamespace(embedding=object(), name="vectors")
    with pytest.raises(UserError, match="learns from vectors"):
        run_train_bench([], [], vectors, given[3], ComputeConfig(), 4, SILENT)
