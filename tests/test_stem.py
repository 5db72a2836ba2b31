"""Grey pictures through a folded first layer, against the three channels that it stands for."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from antpitta.core.config import BackboneConfig, HeadConfig
from antpitta.model.export import to_int8, to_openvino
from antpitta.model.fusion import GreyConv, GreyStem, with_grey_stem, with_trainable_grey_stem
from antpitta.model.inputs import Mixup
from antpitta.model.network import SedNet

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225])
BANDS = 32


def pixels(frames=50, bands=BANDS):
    rng = np.random.default_rng(1)
    return torch.from_numpy(rng.integers(1, 256, (2, frames, bands)).astype(np.uint8))


def net_of(backbone, bands=BANDS):
    torch.manual_seed(0)
    return SedNet(
        BackboneConfig(name=backbone, pretrained=False), HeadConfig(), 3, bands=bands
    ).eval()


def differ(one, other, seen):
    with torch.inference_mode():
        a, b = (net.feature_maps(net.prepare(seen)) for net in (one, other))
    return float((a - b).abs().max() / a.abs().max())


@pytest.mark.parametrize("mean", [MEAN, torch.full((3,), 0.5).double()], ids=["apart", "alike"])
@pytest.mark.parametrize(("size", "padding", "bias"), [(7, 3, False), (5, 2, True), (3, 1, True)])
def test_the_folded_convolution_is_the_one_of_three_channels(size, padding, bias, mean):
    torch.manual_seed(2)
    first = nn.Conv2d(3, 8, size, 2, padding, bias=bias)
    seen = pixels()
    channels = (seen[:, None] / 255 - mean.view(3, 1, 1)) / STD.view(3, 1, 1)
    stem = GreyStem(first, mean, STD.double())
    with torch.inference_mode():
        wanted, found = first(channels.float()), stem(stem.prepare(seen))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)  # edges and all
    alike = bool((mean == mean[0]).all())
    assert stem.prepare(seen).shape == (2, 4 if alike else 5, 25, 16)


@pytest.mark.parametrize("backbone", ["test_resnet", "tf_efficientnet_lite0", "resnet18d"])
def test_a_network_made_grey_says_the_same(backbone):
    net = net_of(backbone)
    grey = with_grey_stem(net, 64, BANDS)
    assert grey is not net
    assert differ(net, grey, pixels(64)) < 1e-4
    assert any(isinstance(one, GreyStem) for one in grey.modules())
    assert not any(isinstance(one, GreyStem) for one in net.modules())


@pytest.mark.parametrize("backbone", ["test_resnet", "tf_efficientnet_lite0", "resnet18d"])
def test_a_network_that_learns_grey_learns_the_same_under_the_same_names(backbone):
    net = net_of(backbone)
    grey = with_trainable_grey_stem(net, 64, BANDS)
    assert any(isinstance(one, GreyConv) for one in grey.modules())
    assert grey.state_dict().keys() == net.state_dict().keys()
    assert [name for name, _ in grey.named_parameters()] == [n for n, _ in net.named_parameters()]
    assert differ(net, grey, pixels(64)) < 1e-4
    mix = Mixup(torch.tensor([1, 0]), torch.tensor([0.7, 0.4]))
    for one in (net, grey):
        one.extract_features(pixels(64), mix).square().mean().backward()
    first = next(iter(net.backbone.parameters())).grad
    torch.testing.assert_close(
        next(iter(grey.backbone.parameters())).grad,
        first,
        atol=1e-3 * float(first.abs().max()),
        rtol=0,
    )
    assert first.abs().max() > 0
    twin = deepcopy(grey)
    with torch.no_grad():
        next(iter(twin.backbone.parameters())).mul_(2)
    assert differ(net, twin, pixels(64)) > 0.01
    net.load_state_dict(twin.state_dict())
    assert differ(net, twin, pixels(64)) < 1e-4


@pytest.mark.parametrize(
    ("backbone", "bands"), [("convnext_atto", 32), ("vgg11", 32), ("test_resnet", 33)]
)
def test_what_does_not_fold_is_left_as_it_is(backbone, bands):
    net = net_of(backbone, bands)
    assert with_grey_stem(net, 64, bands) is net
    assert with_trainable_grey_stem(net, 64, bands) is net


def test_a_network_that_would_say_something_else_is_left_as_it_is(monkeypatch):
    net = net_of("test_resnet")
    with torch.no_grad():
        net.std *= 2
    assert with_grey_stem(net, 64, BANDS) is not net
    first = next(one for one in net.backbone.modules() if isinstance(one, nn.Conv2d))
    first.register_forward_hook(lambda layer, given, found: found + 1)  # as a subclass might
    assert with_grey_stem(net, 64, BANDS) is net


def test_without_edges_nothing_but_the_edges_changes():
    torch.manual_seed(3)
    first = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
    stem = GreyStem(first, MEAN, STD.double())
    seen = pixels()
    with torch.inference_mode():
        wanted = stem(stem.prepare(seen))
        stem.drop_constant_channel()
        found = stem(stem.prepare(seen))
    assert stem.prepare(seen).shape == (2, 4, 25, 16)
    apart = (found - wanted).abs()
    assert apart[:, :, 2:-2, 2:-2].max() < 1e-4
    assert 1e-3 < apart.max() < 0.5
    grey = torch.full((3, 1, 1), stem.offset / 255)  # a picture in a frame of grey is what it sees
    channels = torch.nn.functional.pad((seen[:, None] / 255).expand(-1, 3, -1, -1) - grey, [3] * 4)
    normal = ((channels + grey - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)).float()
    with torch.inference_mode():
        framed = torch.nn.functional.conv2d(normal, first.weight, stride=2)
    torch.testing.assert_close(found, framed, atol=1e-4, rtol=0)


def test_a_network_is_exported_without_edges_where_that_saves_a_channel():
    net = net_of("resnet18")
    rough = with_grey_stem(net, 64, BANDS, exact_edges=False)
    assert 1e-6 < differ(net, rough, pixels(64)) < 0.1
    [stem] = [one for one in rough.modules() if isinstance(one, GreyStem)]
    assert stem.conv.weight.shape[1] == 4
    alike = net_of("tf_efficientnet_lite0")  # all channels have one mean: there is none to save
    assert differ(alike, with_grey_stem(alike, 64, BANDS, exact_edges=False), pixels(64)) < 1e-4


def test_networks_that_share_their_input_compute_in_int8_from_the_first_layer_on():
    nets = [net_of("test_resnet"), net_of("test_resnet")]
    with torch.no_grad():
        next(iter(nets[1].backbone.parameters())).mul_(0.5)
    plain = to_openvino(nets, BANDS, 128)
    rough = to_openvino(nets, BANDS, 128, exact_edges=False)
    images = [one.numpy() for one in pixels(128)]
    for model in (plain, rough, to_int8(plain, images), to_int8(rough, images)):
        layers = [op for op in model.get_ops() if op.get_type_name() == "Convolution"]
        fed = [op.input_value(0).get_node().get_type_name() for op in layers]
        assert len(layers) > 4
        assert "Pad" not in fed
    assert set(fed) <= {"FakeQuantize", "MaxPool"}  # which passes on what was made int8
