"""Logits averaged over each class's own box length, and features of several reductions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from antpitta.core.config import BackboneConfig, HeadConfig, Recipe
from antpitta.core.errors import UserError
from antpitta.core.features import MelConfig
from antpitta.core.stages import Stage
from antpitta.core.types import Annotation, Classes, Dataset, Recording
from antpitta.model.backbones import build_backbone
from antpitta.model.network import SedNet
from antpitta.train.training import fill_smoothing_frames

CLASSES = Classes(("frog", "bird", "bat"))
SEVERAL = (
    BackboneConfig(reduction=(4, 8, 16), step=8, frozen=True),
    HeadConfig(frequency_pooling="none", background_subtraction=1.0),
)


def data_of(*boxes):
    recording = Recording("r", Path("r.wav"), 32_000, 32_000 * 60)
    said = tuple(Annotation("r", 0, length, name, yes) for name, length, yes in boxes)
    return Dataset((recording,), said, CLASSES)


def recipe_of():
    front = MelConfig(hop_length=3200, n_fft=3200)  # ten frames a second
    head = HeadConfig(smoothing_frames="boxes")
    return Recipe(name="t", description="t", features=front, head=head, stages=(Stage(name="s"),))


def test_a_class_gets_the_median_length_of_its_present_boxes():
    data = data_of(
        ("frog", 1, True), ("frog", 2, True), ("frog", 9, True), ("frog", 30, False),
        ("bird", 3, False), ("bat", 0.001, True),
    )  # fmt: skip
    assert fill_smoothing_frames(recipe_of(), data).head.smoothing_frames == (20, 30, 1)


def test_a_class_without_boxes_gets_the_median_of_all():
    data = data_of(("frog", 1, True), ("frog", 2, True), ("*", 60, False))
    assert fill_smoothing_frames(recipe_of(), data).head.smoothing_frames == (15, 15, 15)


def test_without_boxes_there_is_no_length_to_fill_in():
    with pytest.raises(UserError, match="no boxes"):
        fill_smoothing_frames(recipe_of(), data_of(("*", 60, False)))


def test_a_recipe_that_asks_for_no_spans_stays_as_it_is():
    recipe = recipe_of().model_copy(update={"head": HeadConfig()})
    assert fill_smoothing_frames(recipe, data_of()) is recipe


def test_a_network_is_not_built_before_the_lengths_are_there():
    with pytest.raises(ValueError, match="filled in"):
        SedNet(BackboneConfig(), HeadConfig(smoothing_frames="boxes"), 3)


def test_each_class_is_averaged_over_its_own_span():
    net = SedNet(
        SEVERAL[0], SEVERAL[1].model_copy(update={"smoothing_frames": (8, 24, 40)}), 3
    ).eval()
    assert net.head.steps == (1, 3, 5)
    seen = torch.randn(2, net.head.class_conv.in_channels, 12, generator=torch.manual_seed(1))
    nn.init.normal_(net.head.class_conv.weight)
    with torch.no_grad():
        raw = net.head.class_conv(net.head.normalizer(seen)).transpose(1, 2)
        found = net.head(seen).framewise
    for column, reach in enumerate((0, 1, 2)):
        for step in range(12):
            around = raw[:, max(0, step - reach) : step + reach + 1, column].mean(dim=1)
            torch.testing.assert_close(found[:, step, column], around, atol=1e-3, rtol=1e-3)


def test_features_of_several_reductions_lie_side_by_side():
    torch.manual_seed(1)
    pixels = torch.rand(1, 3, 256, 128)
    joined = build_backbone(SEVERAL[0])
    assert (joined.channels, joined.stride, joined.heights) == (24 * 32 + 40 * 16 + 112 * 8, 8, 1)
    with torch.no_grad():
        found = joined.module.eval()(pixels)[0, :, :, 0]
        fine, same, coarse = (
            build_backbone(BackboneConfig(reduction=r))
            .module.eval()(pixels)[0]
            .transpose(1, 2)
            .flatten(0, 1)
            for r in (4, 8, 16)
        )
    torch.testing.assert_close(found[: len(fine)], fine.unflatten(1, (32, 2)).mean(dim=2))
    torch.testing.assert_close(found[len(fine) : len(fine) + len(same)], same)
    torch.testing.assert_close(found[-len(coarse) :], coarse.repeat_interleave(2, dim=1))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reduction": (4, 5)}, "has none such"),
        ({"reduction": ()}, "has none such"),
        ({"reduction": (4, 16), "step": 12}, "take 16"),
    ],
)
def test_reductions_that_cannot_be_had_are_refused_in_one_line(settings, said):
    with pytest.raises(UserError, match=said) as error:
        build_backbone(BackboneConfig(**settings))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [False, True])
def test_a_settled_level_is_the_batch_norm_of_all_features_and_stays(given):
    network = (BackboneConfig(name="embedding"), HeadConfig()) if given else SEVERAL
    net = SedNet(*network, 3, bands=40) if given else SedNet(*network, 3)
    width = net.head.class_conv.in_channels
    seen = torch.randn(6, width, 9, generator=torch.manual_seed(2)) * 3 + 5
    seen[5, :, 4:] = 0  # padding
    net.head.fit_normalizer(iter(seen.split(2)))
    steps = seen.transpose(1, 2)[(seen != 0).any(dim=1)]
    torch.testing.assert_close(
        net.head.normalizer.running_mean, steps.mean(dim=0), atol=1e-4, rtol=1e-4
    )
    var = steps.var(dim=0, correction=0)
    torch.testing.assert_close(net.head.normalizer.running_var, var, atol=1e-3, rtol=1e-3)
    nn.init.normal_(net.head.class_conv.weight)
    net.train()
    before = net.head.normalizer.running_mean.clone()
    once, again = net.head(seen[:2]).framewise, net.head(seen[:2] * 1.0).framewise
    np.testing.assert_array_equal(once.detach(), again.detach())
    assert torch.equal(net.head.normalizer.running_mean, before)
    levelled = (seen[:2] - before[:, None]) / (
        net.head.normalizer.running_var[:, None] + 1e-5
    ).sqrt()
    expected = net.head.class_conv(levelled).transpose(1, 2)
    torch.testing.assert_close(once, expected, atol=1e-3, rtol=1e-3)
