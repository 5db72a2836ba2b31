"""Engines hear alike: PyTorch as a whole and by windows, OpenVINO in float and in int8."""

import numpy as np
import openvino
import pytest
import torch

from antpitta.core.config import BackboneConfig, HeadConfig, WindowConfig
from antpitta.model import inference as engines
from antpitta.model.export import to_int8, to_openvino
from antpitta.model.inference import OpenVinoBackend, fastest_precision, padded_length
from antpitta.model.network import SedNet
from antpitta.model.torch_inference import TorchBackend

WHOLE, BANDS, CLASSES = 500, 32, 3
TINY = (BackboneConfig(name="test_efficientnet", pretrained=False), HeadConfig())
FROZEN = (
    BackboneConfig(name="test_efficientnet", pretrained=False, frozen=True),
    HeadConfig(background_subtraction=1.0),
)


def nets_of(network, count=2):
    torch.manual_seed(3)
    body = None
    nets = []
    for _ in range(count):
        net = SedNet(*network, CLASSES, bands=BANDS).eval()
        if network[0].frozen:  # the folds of a frozen backbone share it
            body = body or net.backbone.state_dict()
            net.backbone.load_state_dict(body)
        with torch.no_grad():
            for head in (net.head.class_conv, net.head.attention_conv):
                head.weight.normal_(0, 1)
        nets.append(net)
    return nets


def image_of(frames, seed=0):
    rng = np.random.default_rng(seed)
    smooth = np.cumsum(rng.normal(0, 20, (frames, BANDS)), axis=0) + 128
    return smooth.clip(1, 255).astype(np.uint8)


@pytest.fixture(scope="module", params=[TINY, FROZEN], ids=["apart", "one body"])
def nets(request):
    return nets_of(request.param)


@pytest.fixture(scope="module")
def exported(nets):
    return to_openvino(nets, BANDS, WHOLE)


@pytest.mark.parametrize("frames", [WHOLE, WHOLE - 70, 200, 33, 1])
def test_an_exported_network_hears_what_its_folds_hear(nets, exported, frames):
    image = image_of(frames)
    wanted = TorchBackend(nets, WHOLE).predict(image)
    found = OpenVinoBackend(exported, "float32", len(nets), 1).predict(image)
    assert len(found) == len(nets)
    for mine, its in zip(found, wanted, strict=True):
        assert mine.shape == its.shape == (-(-frames // nets[0].stride), CLASSES)
        np.testing.assert_allclose(mine, its, atol=2e-3)


def test_the_file_of_a_network_hears_as_the_network_does(nets, exported, tmp_path):
    openvino.save_model(exported, tmp_path / "network.xml", compress_to_fp16=False)
    image = image_of(WHOLE)
    for mine, its in zip(
        OpenVinoBackend(tmp_path / "network.xml", "float32", 2, 1).predict(image),
        OpenVinoBackend(exported, "float32", 2, 1).predict(image),
        strict=True,
    ):
        np.testing.assert_allclose(mine, its, atol=1e-6)


def test_int8_hears_nearly_the_same(nets, exported):
    images = [image_of(WHOLE, seed) for seed in range(8)]
    small = to_int8(exported, images[:6])
    kinds = {op.get_type_name() for op in small.get_ops()}
    assert "FakeQuantize" in kinds  # else it would be the same network
    plain, eight = (OpenVinoBackend(model, "float32", 2, 1) for model in (exported, small))
    for image in images[6:]:
        a, b = np.stack(plain.predict(image)), np.stack(eight.predict(image))
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95
        assert not np.array_equal(a, b)


def test_an_image_of_one_window_is_heard_alike_whole_and_by_windows(nets):
    window = WindowConfig(frames=512, overlap=0, inference_overlap=0)
    image = image_of(WHOLE)
    whole, cut = TorchBackend(nets, WHOLE), TorchBackend(nets, WHOLE, window)
    assert whole.frames_per_row == cut.frames_per_row
    for a, b in zip(whole.predict(image), cut.predict(image), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_many_threads_hear_through_one_engine(exported):
    from concurrent.futures import ThreadPoolExecutor

    engine = OpenVinoBackend(exported, "float32", 2, 2)
    images = [image_of(WHOLE - 40 * (i % 4), i) for i in range(16)]
    alone = [engine.predict(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(engine.predict, images))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_a_longer_image_left_behind_is_not_heard_in_a_shorter_one(exported):
    engine = OpenVinoBackend(exported, "float32", 2, 1)
    short = image_of(WHOLE - 60)
    before = engine.predict(short)
    engine.predict(image_of(WHOLE, 5))
    np.testing.assert_array_equal(engine.predict(short), before)


def test_images_are_filled_up_to_a_few_lengths_without_a_remainder():
    assert padded_length(1876, 1876, 8) == 1888
    assert padded_length(3751, 3751, 32) == 3776
    assert {padded_length(frames, 3751, 32) for frames in range(1, 3752)} == {
        256,
        480,
        960,
        1888,
        3776,
    }
    assert padded_length(4000, 3751, 32) == 4000  # longer than any image: as it is


def test_the_faster_of_two_floats_is_found_by_trial(monkeypatch):
    capable = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    asked = []
    monkeypatch.setattr(engines, "_seconds", lambda request, inputs: asked.append(0) or len(asked) % 2)
    fastest_precision.cache_clear()
    found = fastest_precision()  # the first, float32, takes 1 s, the second none
    fastest_precision.cache_clear()
    assert found == ("bfloat16" if "BF16" in capable else "float32")
    monkeypatch.undo()
    assert fastest_precision() in ("float32", "bfloat16")
