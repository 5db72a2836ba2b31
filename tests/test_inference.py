"""Inference with OpenVINO, against PyTorch; padding of segments; choice of the precision."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino
import pytest
import torch

from antpitta.core.config import BackboneConfig, HeadConfig, WindowConfig
from antpitta.model.export import to_int8, to_openvino
from antpitta.model.inference import OpenVinoBackend, padded_length
from antpitta.model.network import SedNet
from antpitta.model.torch_inference import TorchBackend

FRAMES, BANDS, CLASSES = 500, 32, 3
SEPARATE = (BackboneConfig(name="test_efficientnet", pretrained=False), HeadConfig())
SHARED = (
    BackboneConfig(name="test_efficientnet", pretrained=False, frozen=True),
    HeadConfig(background_subtraction=1.0),
)


def nets_of(backbone, head, count=2):
    torch.manual_seed(3)
    state = None
    nets = []
    for _ in range(count):
        net = SedNet(backbone, head, CLASSES, bands=BANDS).eval()
        if backbone.frozen:  # the folds of a frozen backbone share it
            state = state or net.backbone.state_dict()
            net.backbone.load_state_dict(state)
        with torch.no_grad():
            for layer in (net.head.class_conv, net.head.attention_conv):
                layer.weight.normal_(0, 1)
        nets.append(net)
    return nets


def segment_of(frames, seed=0):
    rng = np.random.default_rng(seed)
    smooth = np.cumsum(rng.normal(0, 20, (frames, BANDS)), axis=0) + 128
    return smooth.clip(1, 255).astype(np.uint8)


@pytest.fixture(scope="module", params=[SEPARATE, SHARED], ids=["separate", "shared backbone"])
def nets(request):
    return nets_of(*request.param)


@pytest.fixture(scope="module")
def exported(nets):
    return to_openvino(nets, BANDS, FRAMES)


@pytest.mark.parametrize("frames", [FRAMES, FRAMES - 70, 200, 33, 1])
def test_openvino_gives_the_scores_of_pytorch(nets, exported, frames):
    segment = segment_of(frames)
    expected = TorchBackend(nets, FRAMES).predict(segment)
    scores = OpenVinoBackend(exported, "float32", len(nets), 1).predict(segment)
    assert len(scores) == len(nets)
    for own, reference in zip(scores, expected, strict=True):
        assert own.shape == reference.shape == (-(-frames // nets[0].stride), CLASSES)
        np.testing.assert_allclose(own, reference, atol=2e-3)


def test_openvino_from_a_file_gives_the_same_scores(exported, tmp_path):
    openvino.save_model(exported, tmp_path / "network.xml", compress_to_fp16=False)
    segment = segment_of(FRAMES)
    from_file = OpenVinoBackend(tmp_path / "network.xml", "float32", 2, 1).predict(segment)
    from_memory = OpenVinoBackend(exported, "float32", 2, 1).predict(segment)
    np.testing.assert_allclose(from_file, from_memory, atol=1e-6)


def test_int8_gives_similar_scores(exported):
    segments = [segment_of(FRAMES, seed) for seed in range(8)]
    quantized = to_int8(exported, segments[:6])
    assert "FakeQuantize" in {op.get_type_name() for op in quantized.get_ops()}
    backends = [OpenVinoBackend(model, "float32", 2, 1) for model in (exported, quantized)]
    for segment in segments[6:]:
        exact, int8 = (np.stack(backend.predict(segment)) for backend in backends)
        assert np.corrcoef(exact.ravel(), int8.ravel())[0, 1] > 0.95
        assert not np.array_equal(exact, int8)


def test_segment_of_one_window_has_the_same_scores_in_both_modes(nets):
    windows = WindowConfig(frames=512, overlap=0, inference_overlap=0)
    segment = segment_of(FRAMES)
    full, sliding = TorchBackend(nets, FRAMES), TorchBackend(nets, FRAMES, windows)
    assert full.frames_per_row == sliding.frames_per_row
    np.testing.assert_allclose(full.predict(segment), sliding.predict(segment), atol=1e-6)


def test_openvino_in_several_threads_gives_the_same_scores(exported):
    backend = OpenVinoBackend(exported, "float32", 2, 2)
    segments = [segment_of(FRAMES - 40 * (i % 4), i) for i in range(16)]
    expected = [backend.predict(segment) for segment in segments]
    with backend.session(), ThreadPoolExecutor(4) as pool:
        scores = list(pool.map(backend.predict, segments))
    for own, reference in zip(scores, expected, strict=True):
        np.testing.assert_array_equal(own, reference)


def test_shorter_segment_after_a_longer_one_has_the_same_scores(exported):
    backend = OpenVinoBackend(exported, "float32", 2, 1)
    short = segment_of(FRAMES - 60)
    before = backend.predict(short)
    backend.predict(segment_of(FRAMES, 5))
    np.testing.assert_array_equal(backend.predict(short), before)


def test_class_band_mask_is_exported():
    limits = ((0, 32), (32, 48), (16, 128))
    backbone = BackboneConfig(reduction=(4, 8, 16), step=8, frozen=True)
    head = HeadConfig(
        frequency_pooling="none", background_subtraction=1.0, class_band_limits=limits
    )
    net = SedNet(backbone, head, 3).eval()
    torch.nn.init.normal_(net.head.class_conv.weight)
    segment = torch.randint(1, 255, (64, 128), dtype=torch.uint8).numpy()
    expected = TorchBackend([net], 64).predict(segment)
    exported = to_openvino([net], 128, 64)
    scores = OpenVinoBackend(exported, "float32", 1, 1).predict(segment)
    np.testing.assert_allclose(scores, expected, atol=2e-3)


def test_padded_length_takes_a_few_values_without_remainder():
    assert padded_length(1876, 1876, 8) == 1888
    assert padded_length(3751, 3751, 32) == 3776
    lengths = {padded_length(frames, 3751, 32) for frames in range(1, 3752)}
    assert lengths == {256, 480, 960, 1888, 3776}
    assert padded_length(4000, 3751, 32) == 4000  # longer than a segment of the recipe
