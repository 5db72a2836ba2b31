"""A class's head sees the bands that its boxes lie in, and nothing above or below."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from antpitta.core.config import BackboneConfig, HeadConfig, Recipe
from antpitta.core.errors import UserError
from antpitta.core.features import MelConfig
from antpitta.core.stages import Stage
from antpitta.core.types import Annotation, Classes, Dataset, Recording
from antpitta.model.export import to_openvino
from antpitta.model.inference import OpenVinoBackend
from antpitta.model.network import SedNet
from antpitta.model.torch_inference import TorchBackend
from antpitta.train.training import fill_class_band_limits

CLASSES = Classes(("frog", "bird", "bat"))
SEVERAL = (
    BackboneConfig(reduction=(4, 8, 16), step=8, frozen=True),
    HeadConfig(frequency_pooling="none", background_subtraction=1.0),
)
# Below 1 kHz mels are linear: edges at 0, 200, 400 ... Hz, and band i from 200 i to 200 i + 400.
FRONT = MelConfig(sample_rate=2000, n_fft=512, hop_length=200, n_mels=4, fmin=0.0, fmax=1000.0)


def data_of(*boxes):
    recording = Recording("r", Path("r.wav"), 2000, 2000 * 60)
    said = (Annotation("r", 0, 1, name, yes, *band) for name, yes, *band in boxes)
    return Dataset((recording,), tuple(said), CLASSES)


def filled(*boxes):
    network = HeadConfig(frequency_pooling="none", class_band_limits="boxes")
    recipe = Recipe(
        name="t", description="t", features=FRONT, head=network, stages=(Stage(name="s"),)
    )
    return fill_class_band_limits(recipe, data_of(*boxes)).head.class_band_limits


def test_a_class_reaches_from_the_lowest_to_the_highest_band_its_present_boxes_touch():
    found = filled(
        ("frog", True, 450, 550), ("frog", False, 0, 100),
        ("bird", True, 100, 150), ("bird", True, 650, 700),
        ("bat", False, 600, 800),
    )  # fmt: skip
    assert found == ((1, 3), (0, 4), (2, 4))


def test_boxes_without_frequencies_or_beyond_the_picture_reach_everywhere():
    found = filled(("frog", True), ("frog", True, 450, 550), ("bird", True, 5000, 6000))
    assert found == ((0, 4),) * 3  # the third has no boxes, and takes those of all


def test_nothing_is_filled_in_without_boxes_or_where_nobody_asked():
    with pytest.raises(UserError, match=r"head\.class_band_limits.*no boxes"):
        filled(("*", False))
    plain = Recipe(name="t", description="t", stages=(Stage(name="s"),))
    assert fill_class_band_limits(plain, data_of()) is plain


def test_a_reach_wants_heights_apart_and_bands_filled_in():
    with pytest.raises(ValidationError, match="frequency_pooling"):
        HeadConfig(class_band_limits="boxes")
    with pytest.raises(ValueError, match="filled in"):
        SedNet(
            SEVERAL[0],
            SEVERAL[1].model_copy(update={"class_band_limits": "boxes"}),
            3,
            load_weights=False,
        )


@pytest.mark.parametrize("reduction", [(4, 8, 16), 16])
@pytest.mark.parametrize("bands", [128, 64])
def test_inputs_outside_a_classes_bands_do_not_reach_it(reduction, bands):
    reach = ((0, 32), (32, 48), (16, bands))
    backbone = SEVERAL[0].model_copy(update={"reduction": reduction, "step": None})
    head = SEVERAL[1].model_copy(update={"class_band_limits": reach})
    net = SedNet(backbone, head, 3, bands=bands, load_weights=False).eval()
    # Maps whose every value is the band in the middle of its height, laid out as features are.
    maps = [
        ((torch.arange(bands // r) + 0.5) * r).expand(1, depth, 16 // r, -1)
        for r, depth in ((4, 24), (8, 40), (16, 112))
    ]
    features = net.backbone.stack_maps(maps) if isinstance(reduction, tuple) else maps[-1]
    middle = net.pool_frequency(features)[0, :, 0]
    nn.init.ones_(net.head.class_conv.weight)
    nn.init.ones_(net.head.normalizer.running_var)
    with torch.no_grad():
        labels = net.head(torch.eye(len(middle))[None]).unsmoothed[0].T  # (classes, inputs)
    for column, (first, end) in enumerate(reach):
        inside = (middle > first) & (middle < end)
        np.testing.assert_array_equal(labels[column] > 0.5, inside)
        assert inside.any()


def test_a_class_that_reaches_everywhere_hears_what_it_did_without_a_reach():
    wide = SedNet(
        SEVERAL[0], SEVERAL[1].model_copy(update={"class_band_limits": ((0, 128),) * 3}), 3
    ).eval()
    plain = SedNet(SEVERAL, 3).eval()
    nn.init.normal_(plain.head.class_conv.weight)
    wide.load_state_dict(plain.state_dict())
    pixels = torch.randint(0, 255, (1, 64, 128), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(wide(pixels).framewise, plain(pixels).framewise)


def test_an_exported_network_reaches_as_far():
    net = SedNet(
        SEVERAL[0],
        SEVERAL[1].model_copy(update={"class_band_limits": ((0, 32), (32, 48), (16, 128))}),
        3,
    ).eval()
    nn.init.normal_(net.head.class_conv.weight)
    image = torch.randint(1, 255, (64, 128), dtype=torch.uint8).numpy()
    (expected,) = TorchBackend([net], 64).predict(image)
    (found,) = OpenVinoBackend(to_openvino([net], 128, 64), "float32", 1, 1).predict(image)
    np.testing.assert_allclose(found, expected, atol=2e-3)
