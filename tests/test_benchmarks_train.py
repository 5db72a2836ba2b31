"""The benchmark of training: counts of the real tables, and a small run with its table."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from antpitta.api.data import SILENT
from antpitta.core.config import BackboneConfig, HeadConfig
from antpitta.core.errors import UserError
from antpitta.files.recipes import read_recipe
from antpitta.files.runs import RunFolder
from antpitta.model.network import SedNet
from antpitta.train.compute import ComputeConfig
from benchmarks.profiling import Sections, data_sheet_peak, window_flops
from benchmarks.synthetic import count_cells, synthetic_dataset, synthetic_training_data
from benchmarks.train import (
    COLUMNS,
    Measurements,
    app,
    benchmark_train,
    find_limit,
    time_training,
)

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


def test_real_tables_give_the_cell_counts_of_the_recipe():
    if not (TABLES / "train_tp.csv").is_file():
        pytest.skip("the competition's tables are not here")
    recipe = read_recipe("rfcx", ("features.n_mels=1",))
    data = synthetic_dataset(
        [TABLES / "train_tp.csv"], [TABLES / "train_fp.csv"], 4727, 32_000, seed=1
    )
    assert (len(data.recordings), len(data.classes)) == (4727, 24)
    training_data = synthetic_training_data(data, recipe, torch.device("cpu"))
    assert training_data.features.pixels.shape == (4727 * 3751, 1)
    cells = count_cells(training_data)
    assert (cells.all, cells.present, cells.absent, cells.both) == (907_584, 1655, 10_829, 2)
    assert "1,655 present, 10,829 absent, 2 of them both" in str(cells)


@pytest.mark.parametrize("count", [5, 12, 40])
def test_recordings_are_drawn_or_added_up_to_the_count(tables, count):
    data = synthetic_dataset([tables[0]], [tables[1]], count, 32_000, seed=1)
    assert len(data.recordings) == count
    assert len({annotation.recording for annotation in data.annotations}) == min(count, 12)
    assert data.classes.names == ("s0", "s1")
    assert synthetic_dataset([tables[0]], [tables[1]], count, 32_000, seed=1) == data


def test_equal_seeds_give_equal_noise(tables):
    data = synthetic_dataset([tables[0]], [tables[1]], 3, 32_000, seed=1)
    recipe = read_recipe("rfcx", ("features.n_mels=4",))
    first, second = (synthetic_training_data(data, recipe, torch.device("cpu")) for _ in range(2))
    assert torch.equal(first.features.pixels, second.features.pixels)
    other = synthetic_training_data(
        data, recipe.model_copy(update={"seed": 2}), torch.device("cpu")
    ).features.pixels
    assert not torch.equal(first.features.pixels, other)
    assert other.float().mean() == pytest.approx(127.5, abs=2)


def test_flops_equal_those_of_the_layers():
    net = SedNet(BackboneConfig(name="test_resnet", pretrained=False), HeadConfig(), 3, bands=32)
    training, scoring = window_flops(net, 64, 32)
    convolutions = 0

    def count(layer, inputs, output):
        nonlocal convolutions
        weight = layer.weight
        convolutions += 2 * weight[0].numel() * output.numel() / output.shape[0]

    kinds = (torch.nn.Conv2d, torch.nn.Conv1d)
    for layer in net.modules():
        if isinstance(layer, kinds):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        net.eval()(torch.zeros(2, 64, 32, dtype=torch.uint8))
    assert scoring == pytest.approx(convolutions)
    assert 2.5 < training / scoring <= 3.0  # the first layer has no gradient of its input
    assert all(p.grad is None for p in net.parameters())


def test_data_sheet_peak_is_found_by_name():
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


def test_command_prints_the_table_and_keeps_the_run(tables, tmp_path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY)
    arguments = [
        *("--present", tables[0], "--absent", tables[1], "--recordings", 14),
        *("--recipe", recipe, "--device", "cpu", "--precision", "bfloat16"),
        *("-o", tmp_path / "run", "--set", "stages.crops.epochs=1"),
    ]
    arguments = [str(argument) for argument in arguments]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for text in ("14 recordings", "of them both", "pseudo-c2", "limited by", "GFLOP", "peak"):
        assert text in result.output
    assert (tmp_path / "run" / "train.csv").is_file()
    assert (tmp_path / "run" / "stages" / "pseudo-c2" / "oof_scores.parquet").is_file()
    assert isinstance(CliRunner().invoke(app, arguments).exception, UserError)


def test_table_counts_steps_windows_and_shares(tables, tmp_path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY)
    result = benchmark_train(
        [tables[0]], [tables[1]], recordings=14, recipe=str(recipe), device="cpu"
    )
    table = result.table.set_index(["stage", "cycle"])
    assert tuple(result.table.columns) == COLUMNS
    assert list(table.index) == [("crops", 1), ("masked", 1), ("pseudo", 1), ("pseudo", 2)]
    # a minute is 121 frames: windows at 0, 24, 48, 72 and 96; each recording trains once
    assert table.loc[("masked", 1), "windows"] == 14 * 5
    # of each epoch: 6 recordings with present boxes, 7 with absent ones, one of them with both
    assert table.loc[("crops", 1), "windows"] == 2 * (6 + 7)
    assert table.loc[("masked", 1), "steps"] == 2 * 2  # 7 recordings a fold, 4 a batch
    assert (table["training"] < table["seconds"]).all()
    assert table["outside"].between(0, 1).all()
    assert np.isfinite(table["tflops"]).all()
    assert result.seconds >= table["seconds"].sum() * 0.99


def test_nothing_to_train_on_is_refused(tables):
    for arguments in (([tables[0]], [tables[1]], 1), ([], [], 14)):
        *paths, recordings = arguments
        with pytest.raises(UserError) as error:
            benchmark_train(*paths, recordings=recordings)
        assert error.value.code == "E_BENCHMARK_EMPTY"


@pytest.mark.parametrize(
    ("row", "sections", "host_share", "limit"),
    [
        ({"seconds": 30.0}, {}, 1.0, "between training steps"),
        ({}, {}, 0.97, "the host: it needs 97%"),
        ({"outside": 0.5}, {"windows and mixup": 4.0, "optimizer": 1.0}, 0.5, "windows and mixup"),
        ({"peak_share": 0.7}, {}, 0.5, "arithmetic: 70%"),
        ({}, {}, 1.0, "memory traffic and small layers of the network: 20%"),
    ],
)
def test_limit_is_what_the_longest_stage_waits_for(row, sections, host_share, limit):
    longest = {
        "stage": "long",
        "training": 10.0,
        "seconds": 12.0,
        "outside": 0.1,
        "peak_share": 0.2,
    }
    short = {**longest, "stage": "short", "training": 0.5, "seconds": 0.6}
    parts = Sections(torch.device("cpu"), {"forward": 5.0, **sections})
    measurements = Measurements({"long": parts}, {"long": host_share}, (1.0, 1.0), 1.0, True)
    assert limit in find_limit(pd.DataFrame([{**longest, **row}, short]), measurements)


def test_several_devices_and_embeddings_are_refused():
    recipe, folder = read_recipe("rfcx"), RunFolder(Path("nowhere"))
    embeddings = SimpleNamespace(embedding=object(), name="embeddings")
    for chosen, compute in ((recipe, ComputeConfig(devices=2)), (embeddings, ComputeConfig())):
        with pytest.raises(UserError) as error:
            time_training([], [], chosen, folder, compute, 4, SILENT)
        assert error.value.code == "E_BENCHMARK_UNSUPPORTED"
