"""A small simulated data set and one finished run, made once for all tests of the verbs."""

from pathlib import Path

import numpy as np
import pytest
import torch

import antpitta as ap
from antpitta import api
from antpitta.core.types import Classes, Dataset, Recording
from antpitta.learn.material import gather_material

SMALL = """
name = "small"
when = "tests: a tiny network on tiny pictures"
folds = 2
[front]
sample_rate = 16000
n_fft = 512
hop = 320
bands = 32
high = 8000.0
[windows]
frames = 128
overlap = 16
scan_overlap = 64
[network]
backbone = "test_efficientnet"
pretrained = false
[[stages]]
name = "crops"
says = "crops around boxes"
sample = "crops"
batch = 8
epochs = 2
rate = 1e-3
mixup = 0.1
[stages.loss]
unknown = "absent"
reduce = "cells"
balance = true
[[stages]]
name = "masked"
says = "a loss only where somebody listened"
start = "crops"
sample = "recordings"
batch = 4
accumulate = 2
epochs = 2
[[stages]]
name = "taught"
says = "pseudo labels"
start = "crops"
sample = "known"
batch = 8
epochs = 1
last_mixup = 0.1
[stages.pseudo]
teacher = "masked"
threshold = 0.4
cycles = 2
"""


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    """No test reads or fills the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTPITTA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="session")
def scapes(tmp_path_factory) -> Path:
    """Simulated recordings, boxes and truth."""
    out = tmp_path_factory.mktemp("scapes") / "data"
    plan = api.Simulation(
        train=12, test=4, seconds=8.0, sample_rate=16_000, present=4, absent=6, seed=3
    )
    api.simulate_callers(out, plan)
    return out


@pytest.fixture(scope="session")
def run(tmp_path_factory, scapes, recipe) -> api.Trained:
    """A run trained to its end."""
    out = tmp_path_factory.mktemp("runs") / "first"
    return ap.train(ap.open_data(scapes), recipe=str(recipe), out=out)


@pytest.fixture(scope="session")
def make_material():
    """A function that makes recordings r0, r1, ... of made-up pixels, no sound behind them."""

    def make(recipe, durations, boxes, species=("a", "b", "c"), sites=None, seed=0):
        sites = sites or [None] * len(durations)
        rate = recipe.front.sample_rate
        recordings = tuple(
            Recording(f"r{i}", Path(f"r{i}.wav"), rate, round(seconds * rate), site=site)
            for i, (seconds, site) in enumerate(zip(durations, sites, strict=True))
        )
        rng = np.random.default_rng(seed)
        drawn = []
        for recording in recordings:
            cuts = recipe.front.images_of(recording.duration)
            frames = sum(recipe.front.frames_of(stop - start) for start, stop in cuts)
            drawn.append(rng.integers(0, 256, (frames, recipe.front.bands), dtype=np.uint8))
        dataset = Dataset(recordings, tuple(boxes), Classes(tuple(species)))
        return gather_material(dataset, recipe, drawn, torch.device("cpu"))

    return make
