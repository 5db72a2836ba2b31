"""The head: normalizer, band mask, smoothing, attention, padding and logits of boxes."""

import numpy as np
import pytest
import torch
from torch import nn

from antpitta.core.config import BackboneConfig, HeadConfig
from antpitta.model.head import PADDING_LOGIT, Logits, SedHead, box_logits, smooth_logits
from antpitta.model.network import SedNet
from antpitta.model.normalizer import StepSums

STACKED = BackboneConfig(reduction=(4, 8, 16), step=8, frozen=True)
BY_HEIGHT = HeadConfig(frequency_pooling="none", background_subtraction=1.0)


def head_of(config=BY_HEIGHT, inputs=20, classes=3, stride=8, **options):
    torch.manual_seed(1)
    return SedHead(config, inputs, classes, stride, **options)


def features_of(batch, inputs, steps, seed=0):
    return torch.randn(batch, inputs, steps, generator=torch.manual_seed(seed)) * 3 + 5


# ---- formulas ----


def test_head_logits_follow_the_attention_formula():
    head = head_of(HeadConfig()).eval()
    features = features_of(5, 20, 16)
    with torch.inference_mode():
        logits = head(features)
    weight, attention_weight = (
        layer.weight[:, :, 0].detach().numpy() for layer in (head.class_conv, head.attention_conv)
    )
    framewise = np.einsum("kc,bct->bkt", weight, features.numpy())
    attention = np.exp(np.einsum("kc,bct->bkt", attention_weight, features.numpy()))
    attention /= attention.sum(axis=2, keepdims=True)
    np.testing.assert_allclose(logits.framewise, framewise.transpose(0, 2, 1), atol=1e-4)
    np.testing.assert_allclose(logits.clipwise, (framewise * attention).sum(axis=2), atol=1e-4)


def test_head_without_normalizer_has_no_bias():
    assert {name for name, _ in head_of(HeadConfig()).named_parameters()} == {
        "class_conv.weight",
        "attention_conv.weight",
    }


def test_head_with_fixed_attention_takes_the_highest_frame_as_clipwise():
    head = head_of(HeadConfig()).requires_grad_(False)
    logits = head(features_of(2, 20, 9))
    assert torch.equal(logits.clipwise, logits.framewise.amax(dim=1))


def test_head_in_half_precision_computes_in_float32():
    head = head_of(HeadConfig())
    features = features_of(2, 20, 9)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(features)
    assert torch.equal(logits.framewise, head(features).framewise)


# ---- smoothing ----


def test_smoothing_averages_each_class_over_its_own_steps():
    head = head_of(BY_HEIGHT.model_copy(update={"smoothing_frames": (8, 24, 40)})).eval()
    assert head.steps == (1, 3, 5)
    features = features_of(2, 20, 12)
    with torch.no_grad():
        logits = head(features)
    for column, reach in enumerate((0, 1, 2)):
        for step in range(12):
            around = logits.unsmoothed[:, max(0, step - reach) : step + reach + 1, column]
            torch.testing.assert_close(
                logits.framewise[:, step, column], around.mean(dim=1), atol=1e-3, rtol=1e-3
            )


def test_smoothing_one_length_for_all_uses_the_existing_steps_at_the_ends():
    logits = torch.tensor([[[1.0, 5.0, 3.0, 7.0]]])
    expected = [3.0, 3.0, 5.0, 5.0]
    assert smooth_logits(logits, (3,))[0, 0].tolist() == expected
    valid = torch.tensor([[[True, True, False, True]]])
    assert smooth_logits(logits, (3,), valid)[0, 0].tolist() == [3.0, 3.0, 6.0, 7.0]


def test_smoothing_boxes_without_numbers_raises():
    with pytest.raises(ValueError, match="smoothing_frames"):
        head_of(HeadConfig(smoothing_frames="boxes"))


# ---- normalizer ----


@pytest.mark.parametrize("is_embedding", [False, True])
def test_fit_normalizer_sets_the_statistics_of_all_steps_but_padding(is_embedding):
    head = head_of(HeadConfig() if is_embedding else BY_HEIGHT, is_embedding=is_embedding)
    features = features_of(6, 20, 9)
    features[5, :, 4:] = 0
    head.fit_normalizer(StepSums.of(features))
    steps = features.transpose(1, 2)[(features != 0).any(dim=1)]
    norm = head.normalizer
    torch.testing.assert_close(norm.running_mean, steps.mean(dim=0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        norm.running_var, steps.var(dim=0, correction=0), atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("is_embedding", [False, True])
def test_fitted_normalizer_keeps_its_statistics_in_training(is_embedding):
    head = head_of(HeadConfig() if is_embedding else BY_HEIGHT, is_embedding=is_embedding)
    features = features_of(6, 20, 9)
    head.fit_normalizer(StepSums.of(features))
    mean, var = head.normalizer.running_mean.clone(), head.normalizer.running_var.clone()
    logits = head.train()(features[:2]).framewise
    assert torch.equal(head.normalizer.running_mean, mean)
    normalized = (features[:2] - mean[:, None]) / (var[:, None] + 1e-5).sqrt()
    expected = head.class_conv(normalized).transpose(1, 2)
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)


def test_classify_rows_equals_framewise_logits_of_the_same_features():
    head = head_of().eval()
    head.fit_normalizer(StepSums.of(features_of(4, 20, 9)))
    features = features_of(1, 20, 9, seed=1)
    with torch.no_grad():
        rows = head.classify_rows(features[0].T)
        assert torch.allclose(rows, head(features).unsmoothed[0], atol=1e-5)
        direct = head.class_conv(head.normalizer(features))[0].T
    torch.testing.assert_close(rows, direct, atol=1e-4, rtol=1e-4)


# ---- band mask ----


@pytest.mark.parametrize("reduction", [(4, 8, 16), 16])
@pytest.mark.parametrize("bands", [128, 64])
def test_band_mask_removes_inputs_outside_the_band_of_a_class(reduction, bands):
    limits = ((0, 32), (32, 48), (16, bands))
    net = SedNet(
        STACKED.model_copy(update={"reduction": reduction, "step": None}),
        BY_HEIGHT.model_copy(update={"class_band_limits": limits}),
        3,
        bands=bands,
        load_weights=False,
    ).eval()
    # Feature maps in which every value is the band in the middle of its height.
    maps = [
        ((torch.arange(bands // r) + 0.5) * r).expand(1, channels, 16 // r, -1)
        for r, channels in ((4, 24), (8, 40), (16, 112))
    ]
    stacked = net.backbone.stack_maps(maps) if isinstance(reduction, tuple) else maps[-1]
    middle = net.pool_frequency(stacked)[0, :, 0]
    nn.init.ones_(net.head.class_conv.weight)
    nn.init.ones_(net.head.normalizer.running_var)
    with torch.no_grad():
        logits = net.head(torch.eye(len(middle))[None]).unsmoothed[0].T  # (classes, inputs)
    for column, (first, end) in enumerate(limits):
        inside = (middle > first) & (middle < end)
        np.testing.assert_array_equal(logits[column] > 0.5, inside)
        assert inside.any()


def test_band_mask_of_the_whole_spectrogram_changes_nothing():
    limits = {"class_band_limits": ((0, 128),) * 3}
    masked = SedNet(STACKED, BY_HEIGHT.model_copy(update=limits), 3).eval()
    plain = SedNet(STACKED, BY_HEIGHT, 3).eval()
    nn.init.normal_(plain.head.class_conv.weight)
    masked.load_state_dict(plain.state_dict())
    pixels = torch.randint(0, 255, (1, 64, 128), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(masked(pixels).framewise, plain(pixels).framewise)


def test_band_mask_boxes_without_numbers_raises():
    config = BY_HEIGHT.model_copy(update={"class_band_limits": "boxes"})
    with pytest.raises(ValueError, match="class_band_limits"):
        SedNet(STACKED, config, 3, load_weights=False)


# ---- logits of boxes ----


def test_box_logits_average_the_steps_of_the_box_and_take_the_highest_of_an_empty_one():
    unsmoothed = torch.tensor([[[1.0], [2.0], [4.0]], [[7.0], [5.0], [6.0]]])
    framewise = torch.tensor([[[1.5], [2.3], [3.0]], [[6.0], [6.5], [5.5]]])
    spans = torch.tensor([[0, 16, 40], [1, 0, 0], [0, 3, 5]])
    logits = Logits(framewise.amax(dim=1), framewise, unsmoothed)
    expected = [(2 * 16 + 4 * 8) / 24, 6.5, 1.0]
    assert box_logits(logits, spans, 16)[:, 0].tolist() == pytest.approx(expected)


# ---- padding of embeddings ----


def embeddings(windows=3, frames=12, width=5, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((windows, frames, width)) * 7 + 3
    return torch.from_numpy(values.astype("f2"))


def embedding_net(config=None, width=5, classes=2):
    net = SedNet(BackboneConfig(name="embedding"), config or HeadConfig(), classes, bands=width)
    with torch.no_grad():
        for values in net.head.parameters():
            values.copy_(torch.linspace(-1, 1, values.numel()).view_as(values))
    return net


@pytest.mark.parametrize(
    "settings",
    [{}, {"smoothing_frames": 3}, {"background_subtraction": 1.0}, {"smoothing_frames": 4}],
)
def test_padding_of_embeddings_changes_no_logit_and_no_statistic(settings):
    config = HeadConfig().model_copy(update=settings)
    net, padded_net = embedding_net(config), embedding_net(config)
    vectors = embeddings()
    padded = nn.functional.pad(vectors, (0, 0, 0, 20))
    for training in (True, True, False):
        logits = net.train(training)(vectors)
        padded_logits = padded_net.train(training)(padded)
        torch.testing.assert_close(logits.clipwise, padded_logits.clipwise)
        torch.testing.assert_close(logits.framewise, padded_logits.framewise[:, :12])
        assert (padded_logits.framewise[:, 12:] == PADDING_LOGIT).all()
    norm, padded_norm = net.head.normalizer, padded_net.head.normalizer
    torch.testing.assert_close(norm.running_var, padded_norm.running_var)


def test_embeddings_of_any_scale_give_the_same_logits():
    net = embedding_net()
    vectors = embeddings().float() / 4
    torch.testing.assert_close(
        net(vectors).clipwise, net(vectors * 100).clipwise, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("frames", [0, 1])
def test_embeddings_with_almost_nothing_but_padding_give_finite_logits(frames):
    net = embedding_net().train()
    vectors = embeddings(windows=1)
    vectors[:, frames:] = 0
    logits = net(vectors)
    assert torch.isfinite(logits.clipwise).all()
    logits.clipwise.sum().backward()
    assert torch.isfinite(net.head.class_conv.weight.grad).all()
