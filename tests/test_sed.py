"""The head, against its formulas in numpy; and where mixing happens."""

import numpy as np
import pytest
import torch

from antpitta.core.config import BackboneConfig, HeadConfig
from antpitta.model.inputs import Mixup
from antpitta.model.network import SedNet


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return SedNet(BackboneConfig(name="test_resnet", pretrained=False), HeadConfig(), 3).eval()


def pixels(batch=4, frames=128, bands=64, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (batch, frames, bands), dtype=np.uint8))


def by_hand(net, features):
    """The head as RECIPE 3 says it, in numpy."""
    over_time = np.maximum(features.numpy(), 0).mean(axis=3)  # (batch, channels, steps)
    a = np.einsum("kc,bct->bkt", net.head.class_conv.weight[:, :, 0].detach().numpy(), over_time)
    b = np.einsum(
        "kc,bct->bkt", net.head.attention_conv.weight[:, :, 0].detach().numpy(), over_time
    )
    attention = np.exp(b) / np.exp(b).sum(axis=2, keepdims=True)
    return (a * attention).sum(axis=2), a.transpose(0, 2, 1)


def test_the_head_equals_the_attention_formula(net):
    features = torch.randn(5, 96, 16, 4, generator=torch.Generator().manual_seed(1)) * 3
    with torch.inference_mode():
        found = net.head(net.pool_frequency(features))
    clipwise, framewise = by_hand(net, features)
    assert found.clipwise.shape == (5, 3)
    assert found.framewise.shape == (5, 16, 3)
    np.testing.assert_allclose(found.clipwise.numpy(), clipwise, atol=1e-5)
    np.testing.assert_allclose(found.framewise.numpy(), framewise, atol=1e-5)


def test_the_head_has_two_convolutions_without_bias(net):
    names = {name for name, _ in net.named_parameters() if not name.startswith("backbone.")}
    assert names == {"head.class_conv.weight", "head.attention_conv.weight"}


def test_a_window_of_512_frames_gives_16_steps(net):
    with torch.inference_mode():
        found = net(pixels(1, 512, 128))
    assert found.framewise.shape == (1, 16, 3)
    assert net.stride == 32


def test_time_goes_in_first(net):
    with torch.inference_mode():
        one = net(pixels(1, 128, 64))
        longer = net(pixels(1, 256, 64))
        higher = net(pixels(1, 128, 128))
    assert one.framewise.shape[1] == higher.framewise.shape[1] == 4
    assert longer.framewise.shape[1] == 8


def test_bytes_are_standardised_as_imagenet_is(net):
    found = net.prepare(torch.tensor([[[0, 255]]], dtype=torch.uint8))
    assert found.shape == (1, 3, 1, 2)
    mean, std = net.mean.flatten().numpy(), net.std.flatten().numpy()
    np.testing.assert_allclose(found[0, :, 0, 0].numpy(), -mean / std, rtol=1e-5)
    np.testing.assert_allclose(found[0, :, 0, 1].numpy(), (1 - mean) / std, rtol=1e-5)


def test_late_mixing_happens_before_the_relu(net):
    x = pixels()
    mix = Mixup(torch.tensor([1, 2, 3, 0]), torch.tensor([0.9, 0.5, 0.2, 1.0]))
    with torch.inference_mode():
        features = net.feature_maps(net.prepare(x))
        # timm's networks end in an activation; what is negative must be made
        shifted = 20 * (features - features.mean())
        assert (shifted < 0).any()
        found = net.head(net.pool_frequency(mix(shifted)))
        share = mix.share.view(-1, 1, 1, 1)
        before = by_hand(net, share * shifted + (1 - share) * shifted[mix.partner])
        after = by_hand(net, share * shifted.relu() + (1 - share) * shifted.relu()[mix.partner])
        whole = net(x, late=mix)
        wanted = net.head(
            net.pool_frequency(share * features + (1 - share) * features[mix.partner])
        )
    np.testing.assert_allclose(found.clipwise.numpy(), before[0], atol=1e-5)
    assert np.abs(found.clipwise.numpy() - after[0]).max() > 1e-3
    torch.testing.assert_close(whole.clipwise, wanted.clipwise)


def test_input_mixing_happens_on_the_standardised_picture(net):
    x = pixels()
    mix = Mixup(torch.tensor([3, 0, 1, 2]), torch.tensor([0.7, 0.5, 0.0, 1.0]))
    with torch.inference_mode():
        images = net.prepare(x)
        share = mix.share.view(-1, 1, 1, 1)
        wanted = net.head(
            net.pool_frequency(net.feature_maps(share * images + (1 - share) * images[mix.partner]))
        )
        found = net(x, mix)
        plain = net(x)
    torch.testing.assert_close(found.clipwise, wanted.clipwise)
    torch.testing.assert_close(found.clipwise[2], plain.clipwise[1])
    torch.testing.assert_close(found.clipwise[3], plain.clipwise[3])


def test_what_is_saved_holds_all_but_the_constants(net):
    twin = SedNet(
        BackboneConfig(name="test_resnet", pretrained=False), HeadConfig(), 3, load_weights=False
    ).eval()
    twin.load_state_dict(net.state_dict())
    assert not {"mean", "std"} & set(net.state_dict())
    with torch.inference_mode():
        assert torch.equal(twin(pixels()).clipwise, net(pixels()).clipwise)
