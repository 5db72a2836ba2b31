"""Folds of one frozen body, heard together, hear what each hears alone."""

import numpy as np
import torch
from torch import nn

from antpitta.core.config import BackboneConfig, HeadConfig
from antpitta.model.inputs import FeatureStore
from antpitta.model.network import MultiHeadNet, SedNet, share_backbone
from antpitta.model.torch_inference import predict_sliding

FROZEN = (
    BackboneConfig(reduction=16, frozen=True),
    HeadConfig(frequency_pooling="none", background_subtraction=1.0),
)


def nets_of(network, count=3):
    torch.manual_seed(1)
    nets = [SedNet(*network, 2).eval() for _ in range(count)]
    for net in nets:
        nn.init.normal_(net.head.class_conv.weight)
    return nets


def test_together_they_hear_what_each_hears_alone():
    nets = nets_of(FROZEN)
    pixels = torch.randint(0, 256, (400, 128), dtype=torch.uint8)
    pictures = FeatureStore(pixels, np.array([400]))
    alone = [predict_sliding(net, pictures, np.array([0]), 256, 128, 4)[0] for net in nets]
    together = predict_sliding(MultiHeadNet(nets), pictures, np.array([0]), 256, 128, 4)[0]
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), atol=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 0.01  # heads that differ, or nothing was shown


def test_only_frozen_bodies_of_equal_weights_are_one():
    nets = nets_of(FROZEN, 2)
    assert share_backbone(nets)
    assert share_backbone(nets[:1])
    with torch.no_grad():
        next(nets[1].backbone.parameters()).add_(1)
    assert not share_backbone(nets)
    learning = nets_of((BackboneConfig(reduction=16), HeadConfig()), 2)
    assert not share_backbone(learning)
