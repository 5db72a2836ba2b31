"""A run with a frozen backbone, trained on boxes: cached features, resuming, prediction."""

import numpy as np
import pytest
import torch

import antpitta as ap
from antpitta.api import Progress
from antpitta.core.config import BackboneConfig, HeadConfig
from antpitta.core.types import Targets
from antpitta.files.own_files import load_tensors
from antpitta.model.network import SedNet
from antpitta.train.backbone_features import FeatureCache
from antpitta.train.batches import box_batch

TINY = {"name": "test_efficientnet", "pretrained": False}
FROZEN = (
    BackboneConfig(**TINY, reduction=16, frozen=True),
    HeadConfig(frequency_pooling="none", background_subtraction=1.0, smoothing_frames=48),
)
CHANGES = (
    "backbone.reduction=16",
    "backbone.frozen=true",
    'head.frequency_pooling="none"',
    "head.background_subtraction=1.0",
    'stages.masked.loss.on="boxes"',
    'stages.masked.loss.reduction="balanced"',
    'stages.masked.sample="known"',
    "stages.masked.masks.probability=0",
    'stages.pseudo.loss.on="boxes"',
    "stages.pseudo.masks.probability=0",
    "stages.pseudo.manifold_mixup=0",
    "stages.pseudo.pseudo.threshold=0",
    'stages.pseudo.pseudo.targets="soft"',
    "stages.pseudo.pseudo.rescale=true",
)


def test_box_batch_has_a_row_per_box_and_then_the_pseudo_labelled_windows(staged_data):
    shape = staged_data.labels.value.shape
    weight = np.zeros(shape, dtype=np.float32)
    weight[0, 1] = 1
    pseudo_labels = Targets(np.full(shape, 0.3, dtype=np.float32), weight)
    batch = box_batch(staged_data, np.arange(len(staged_data.windows)), pseudo_labels)
    boxes = batch.box_spans[batch.box_spans[:, 2] > 0]
    assert len(boxes) + 1 == len(batch.box_spans) == len(batch.labels.value)
    assert batch.labels.weight.sum() == len(boxes)  # one class per box
    assert batch.pseudo_labels.weight.sum() == 1
    assert batch.pseudo_labels.value[-1, 1] == pytest.approx(0.3)
    assert not batch.labels.weight[-1].any()
    assert (boxes[:, 1] < boxes[:, 2]).all()
    assert (boxes[:, 2] <= staged_data.windows.frames).all()


def test_feature_cache_keeps_the_features_of_one_backbone(staged_data, staged_recipe):
    stage = staged_recipe.stages[-1]
    masks = stage.masks.model_copy(update={"probability": 0.0})
    stage = stage.model_copy(update={"manifold_mixup": 0.0, "sample": "known", "masks": masks})
    bands, classes = staged_data.features.pixels.shape[1], len(staged_data.dataset.classes)
    nets = [SedNet(*FROZEN, classes, bands=bands) for _ in range(2)]
    cache = FeatureCache()
    features = cache.get(nets[0], stage, staged_data)
    assert cache.get(nets[0], stage, staged_data) is features
    windows = np.arange(len(staged_data.windows))
    steps = features.store.gather(windows)
    assert len(steps) == len(windows)
    assert not torch.equal(cache.get(nets[1], stage, staged_data).store.gather(windows), steps)


def test_feature_cache_with_changing_features_keeps_nothing(staged_data, staged_recipe):
    stage = staged_recipe.stages[-1]
    masks = stage.masks.model_copy(update={"probability": 0.0})
    stage = stage.model_copy(update={"manifold_mixup": 0.0, "sample": "known", "masks": masks})
    bands, classes = staged_data.features.pixels.shape[1], len(staged_data.dataset.classes)
    trained = SedNet(BackboneConfig(**TINY), HeadConfig(), classes, bands=bands)
    assert FeatureCache().get(trained, stage, staged_data) is None
    frozen = SedNet(*FROZEN, classes, bands=bands)
    mixed = stage.model_copy(update={"mixup": 0.1})
    assert FeatureCache().get(frozen, mixed, staged_data) is None


@pytest.fixture(scope="module")
def frozen_run(tmp_path_factory, simulated, recipe):
    out = tmp_path_factory.mktemp("frozen") / "run"
    return ap.train(ap.open_data(simulated), str(recipe), out, changes=CHANGES)


def test_frozen_run_that_was_killed_resumes_to_the_same_weights(
    frozen_run, simulated, recipe, tmp_path
):
    class Killed(Exception):
        pass

    updates = 0

    def kill(what, done, total, loss):
        nonlocal updates
        updates += "fold" in what
        if updates == 7:
            raise Killed

    data, out = ap.open_data(simulated), tmp_path / "run"
    progress = Progress(lambda text: None, kill)
    with pytest.raises(Killed):
        ap.train(data, str(recipe), out, changes=CHANGES, progress=progress)
    ap.train(data, str(recipe), out, changes=CHANGES, resume=True)
    for path in sorted(frozen_run.path.glob("stages/*/fold*.safetensors")):
        weights = load_tensors(out / path.relative_to(frozen_run.path))[0]
        for name, value in load_tensors(path)[0].items():
            assert torch.equal(value, weights[name]), (path, name)


def test_frozen_run_predicts_finite_scores(frozen_run, simulated):
    assert np.isfinite(ap.predict(frozen_run.model, simulated / "test").to_numpy()).all()
