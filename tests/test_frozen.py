"""A frozen backbone: features by height, the background off, boxes judged where they are."""

import numpy as np
import pytest
import torch

import antpitta as ap
from antpitta.core.config import BackboneConfig, HeadConfig, parse_recipe
from antpitta.core.errors import UserError
from antpitta.core.types import Targets
from antpitta.files.runs import load_tensors
from antpitta.model.head import Logits, box_logits
from antpitta.model.network import SedNet
from antpitta.train.batches import box_batch
from antpitta.train.data import FeatureCache

NET = {"name": "test_efficientnet", "pretrained": False}
FROZEN = (
    BackboneConfig(**NET, reduction=16, frozen=True),
    HeadConfig(frequency_pooling="none", background_subtraction=1.0, smoothing_frames=48),
)
CHANGES = (
    "backbone.reduction=16",
    "backbone.frozen=true",
    'head.frequency_pooling="none"',
    "head.background_subtraction=1.0",
    "head.within_class_whitening=0.2",
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


def pixels(windows=2, frames=64, bands=32):
    rng = np.random.default_rng(1)
    return torch.from_numpy(rng.integers(1, 256, (windows, frames, bands)).astype(np.uint8))


def test_each_height_has_weights_of_its_own():
    net = SedNet(*FROZEN, 3, bands=32)
    seen = net.extract_features(pixels())
    channels = seen.shape[1]
    mean = SedNet(BackboneConfig(**NET, reduction=16), HeadConfig(), 3, bands=32)
    assert channels == 2 * mean.head.class_conv.in_channels  # 32 bands at a reduction of 16
    assert seen.shape[2] == 64 // 16
    assert net.stride == 16


def test_the_steady_background_is_taken_off_and_padding_is_none_of_it():
    net = SedNet(*FROZEN, 3, bands=32).eval()
    whole = net.extract_features(pixels())
    assert torch.allclose(whole.mean(dim=2), torch.zeros(()), atol=1e-4)
    short = pixels()
    short[:, 32:] = 0
    seen = net.extract_features(short)
    assert torch.equal(seen[:, :, 2:], torch.zeros_like(seen[:, :, 2:]))
    assert torch.allclose(seen[:, :, :2].mean(dim=2), torch.zeros(()), atol=1e-4)


def test_only_the_head_learns_and_the_body_keeps_its_statistics():
    net = SedNet(*FROZEN, 3, bands=32).train()
    before = {k: v.clone() for k, v in net.backbone.state_dict().items()}
    net(pixels()).clipwise.sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in net.backbone.state_dict().items())
    assert not any(p.requires_grad for p in net.backbone.parameters())
    assert net.head.class_conv.weight.grad is not None
    assert not net.head.class_conv.weight.any()  # a start that says nothing


def test_an_unknown_reduction_is_refused_with_those_there_are():
    with pytest.raises(UserError, match=r"reduction 5.*16"):
        SedNet(BackboneConfig(**NET, reduction=5), HeadConfig(), 3)


def test_logits_are_smoothed_over_the_steps_that_are_there():
    net = SedNet(*FROZEN, 1, bands=32).eval()
    with torch.no_grad():
        net.head.class_conv.weight.normal_()
    rough = SedNet(
        FROZEN[0], FROZEN[1].model_copy(update={"smoothing_frames": 1}), 1, bands=32
    ).eval()
    rough.load_state_dict(net.state_dict())
    with torch.no_grad():
        a, b = (one(pixels()).framewise[0, :, 0] for one in (rough, net))
    expected = [a[:2].mean(), a[:3].mean(), a[1:4].mean(), a[2:].mean()]
    assert torch.allclose(b, torch.stack(expected), atol=1e-5)


def test_a_box_is_judged_by_its_own_steps_and_a_pseudo_label_by_the_highest():
    sharp = torch.tensor([[[1.0], [2.0], [4.0]], [[7.0], [5.0], [6.0]]])
    averaged = torch.tensor([[[1.5], [2.3], [3.0]], [[6.0], [6.5], [5.5]]])
    focus = torch.tensor([[0, 16, 40], [1, 0, 0], [0, 3, 5]])
    found = box_logits(Logits(averaged.amax(dim=1), averaged, sharp), focus, 16)[:, 0]
    assert found.tolist() == pytest.approx([(2 * 16 + 4 * 8) / 24, 6.5, 1.0])


def test_every_box_is_a_row_and_taught_windows_come_after(staged_data):
    training_data = staged_data
    rows = np.arange(len(training_data.windows))
    shape = training_data.labels.value.shape
    weight = np.zeros(shape, dtype=np.float32)
    weight[0, 1] = 1
    pseudo_labels = Targets(np.full(shape, 0.3, dtype=np.float32), weight)
    batch = box_batch(training_data, rows, pseudo_labels)
    boxes = batch.box_spans[batch.box_spans[:, 2] > 0]
    assert len(boxes) + 1 == len(batch.box_spans) == len(batch.labels.value)
    assert batch.labels.weight.sum() == len(boxes)  # one class a box
    assert batch.pseudo_labels.weight.sum() == 1
    assert batch.pseudo_labels.value[-1, 1] == pytest.approx(0.3)
    assert not batch.labels.weight[-1].any()
    assert (boxes[:, 1] < boxes[:, 2]).all()
    assert (boxes[:, 2] <= training_data.windows.frames).all()


def test_mixing_and_boxes_do_not_go_together():
    stage = {"name": "a", "loss": {"on": "boxes"}, "mixup": 0.1}
    with pytest.raises(UserError, match="without mixup"):
        parse_recipe({"name": "x", "description": "", "stages": [stage]}, "x")


def test_what_a_frozen_body_sees_is_kept_until_another_body_comes(staged_data, staged_recipe):
    stage = staged_recipe.stages[-1].model_copy(update={"manifold_mixup": 0.0, "sample": "known"})
    stage = stage.model_copy(update={"masks": stage.masks.model_copy(update={"probability": 0.0})})
    bank, bands = FeatureCache(), staged_data.features.pixels.shape[1]
    classes = len(staged_data.dataset.classes)
    nets = [SedNet(*FROZEN, classes, bands=bands) for _ in range(2)]
    kept = bank.of(nets[0], stage, staged_data)
    assert bank.of(nets[0], stage, staged_data) is kept
    assert len(kept) == len(staged_data.windows)
    assert not torch.equal(bank.of(nets[1], stage, staged_data), kept)
    warm = SedNet(BackboneConfig(**NET), HeadConfig(), classes, bands=bands)
    assert FeatureCache().get(warm, stage, staged_data) is None
    assert (
        FeatureCache().get(nets[0], stage.model_copy(update={"mixup": 0.1}), staged_data) is None
    )


@pytest.fixture(scope="module")
def frozen_run(tmp_path_factory, scapes, recipe):
    out = tmp_path_factory.mktemp("frozen") / "run"
    return ap.train(ap.open_data(scapes), str(recipe), out, changes=CHANGES)


def test_a_frozen_run_resumes_to_the_same_weights(frozen_run, scapes, recipe, tmp_path):
    class Killed(Exception):
        pass

    ticks = 0

    def tick(what, done, total, loss):
        nonlocal ticks
        ticks += "fold" in what
        if ticks == 7:
            raise Killed

    from antpitta.api import Progress

    data, out = ap.open_data(scapes), tmp_path / "run"
    progress = Progress(lambda text: None, tick)
    with pytest.raises(Killed):
        ap.train(data, str(recipe), out, changes=CHANGES, progress=progress)
    ap.train(data, str(recipe), out, changes=CHANGES, resume=True)
    for path in sorted(frozen_run.path.glob("stages/*/fold*.safetensors")):
        ours = load_tensors(out / path.relative_to(frozen_run.path))[0]
        for name, value in load_tensors(path)[0].items():
            assert torch.equal(value, ours[name]), (path, name)


def test_a_frozen_bundle_listens(frozen_run, scapes):
    assert np.isfinite(ap.predict(frozen_run.model, scapes / "test").to_numpy()).all()
