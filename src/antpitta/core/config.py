"""A recipe: all settings of a run as data, checked when they are read.

A recipe is a TOML table in the form of :class:`Recipe`; those in ``recipes/`` ship with antpitta.
A stage is data too: three stages are three tables, not three training loops. An unknown key is an
error, because a misspelt setting that is ignored would train another model than the one asked for.

Each setting is described once, in its ``Field``; ``antpitta settings`` and the documentation print
these descriptions (core/settings.py).
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from antpitta.core.errors import UserError
from antpitta.core.features import (
    EmbeddingConfig,
    FeatureConfig,
    Frames,
    FramesOrZero,
    FrozenConfig,
    MelConfig,
    Share,
)
from antpitta.core.settings import apply_change, check_settings
from antpitta.core.stages import Factor, Stage

EMBEDDING_BACKBONE = "embedding"  # the backbone of recipes whose features are embeddings already
BASELINE_STAGE = "unknown_as_absent"  # recipes/presets/baseline.toml
MAX_SMOOTHING = 10_000  # frames
MAX_BATCH_CELLS = 1 << 26  # frames x bands x windows of one batch
MAX_SEED = 1_000_000_000

# Choices that a command shares with the code that acts on them.
# scores/ensemble/blend.py
BlendMethod = Literal["mean", "extremized", "rank", "aligned", "auc", "fit"]
InferenceMode = Literal["full", "sliding"]  # model/inference.py
Precision = Literal["float32", "bfloat16", "int8"]
# predict/exports.py and predict/camtrapdp.py
EventFormat = Literal["csv", "parquet", "raven", "audacity", "kaleidoscope", "camtrapdp"]
Executor = Literal["local", "ray"]  # predict/cluster.py


Reduction = Annotated[int, Field(ge=1, le=1024)]
Smoothing = Annotated[int, Field(ge=1, le=MAX_SMOOTHING)]
Band = Annotated[int, Field(ge=0, le=1024)]
Bands = Annotated[int, Field(ge=16, le=1024)]


class WindowConfig(FrozenConfig):
    """Windows of a segment's features."""

    frames: Frames = Field(512, description="Length of a window, in frames.")
    overlap: FramesOrZero = Field(
        49, description="Overlap of windows in training and for pseudo-labels, in frames."
    )
    inference_overlap: FramesOrZero = Field(
        256, description="Overlap of windows in sliding inference, in frames."
    )
    padding: Literal["silence", "mean"] = Field(
        "silence",
        description="Frames of a window beyond the end of its segment: silence, whose scores are "
        "left out, or the mean of all pixels (0 after normalization), whose scores count.",
    )

    @model_validator(mode="after")
    def _windows_advance(self) -> Self:
        if max(self.overlap, self.inference_overlap) >= self.frames:
            raise ValueError(f"an overlap must be below the {self.frames} frames of a window")
        return self


class BackboneConfig(FrozenConfig):
    """The convolutional network or vision transformer that computes feature maps."""

    name: str = Field(
        "tf_efficientnet_lite0",
        description="Name of an architecture of timm, or embedding in recipes with [embedding].",
    )
    weights: str | None = Field(
        None, description="File of weights, .safetensors or .pth; null: timm's."
    )
    pretrained: bool = Field(True, description="Start from ImageNet weights.")
    frozen: bool = Field(False, description="Train the head only.")
    reduction: Reduction | tuple[Reduction, ...] | None = Field(
        None,
        description="Input frames for each step of the feature maps used; several maps are "
        "concatenated; null: the last map.",
    )
    step: Reduction | None = Field(
        None,
        description="Input frames for each step of the concatenated maps; null: as the coarsest.",
    )
    image_bands: Bands | None = Field(
        None,
        description="Bands are interpolated linearly to this number before the network; null: as "
        "they are.",
    )
    normalize: bool = Field(
        True, description="Subtract ImageNet's mean and divide by its deviation; false: 0 to 1."
    )

    @model_validator(mode="after")
    def _name_is_no_address(self) -> Self:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", self.name):
            raise ValueError(
                f"name {self.name!r} is no architecture of timm, such as resnet18; weights of "
                "your own go into backbone.weights, as a file"
            )
        return self


class HeadConfig(FrozenConfig):
    """The head: how feature maps become framewise and clipwise logits."""

    frequency_pooling: Literal["mean", "none"] = Field(
        "mean", description="Average feature maps over frequency, or keep the bands apart."
    )
    background_subtraction: Literal["duration"] | Share = Field(
        0.0,
        description="Share of each feature's mean over the window that is subtracted; duration: "
        "0.5 for recordings of a minute or more, less for shorter ones.",
    )
    smoothing_frames: Literal["boxes"] | Smoothing | tuple[Smoothing, ...] = Field(
        1,
        description="Moving average of framewise logits, in frames, for all classes or for each; "
        "boxes: the median length of the class's boxes.",
    )
    class_band_limits: Literal["boxes"] | tuple[tuple[Band, Band], ...] | None = Field(
        None,
        description="First and last + 1 mel band that the logits of each class use; boxes: those "
        "of the class's boxes; null: all.",
    )
    zero_shot_weight: Factor = Field(
        0.5,
        description="Weight of the embedding model's own logits, for species that it classifies.",
    )

    layers: Literal["linear", "dense"] = Field(
        "linear",
        description="linear: convolutions of width 1 on the features; dense: before them the sum "
        "of maximum and mean over 3 steps and a dense layer, with dropout, and tanh in the "
        "attention.",
    )
    scores: Literal["framewise", "clipwise"] = Field(
        "framewise",
        description="Scores of a window: framewise, or its clipwise score in every frame.",
    )

    @model_validator(mode="after")
    def _band_limits_need_bands(self) -> Self:
        if self.class_band_limits is not None and self.frequency_pooling != "none":
            raise ValueError('class_band_limits needs frequency_pooling = "none"')
        if isinstance(self.class_band_limits, tuple):
            for first, end in self.class_band_limits:
                if first >= end:
                    raise ValueError(f"class_band_limits: {first} is not below {end}")
        return self


class Recipe(FrozenConfig):
    """General settings of a run."""

    name: str = Field(description="Name of the recipe.")
    description: str = Field(description="One line: when to use it.")
    seed: int = Field(1, ge=0, le=MAX_SEED, description="Seed of training.")
    split_seed: int = Field(1, ge=0, le=MAX_SEED, description="Seed of the folds.")
    folds: int = Field(5, ge=2, le=100, description="Number of folds, and of models in a bundle.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Precision of training; auto: bfloat16 on a GPU that supports it."
    )
    features: MelConfig = MelConfig()
    windows: WindowConfig = WindowConfig()
    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = HeadConfig()
    embedding: EmbeddingConfig | None = None  # [features] then serves the report's pictures only
    stages: tuple[Stage, ...]

    def __repr__(self) -> str:
        stages = ", ".join(stage.name for stage in self.stages)
        return f"Recipe({self.name!r}: {self.folds} folds, stages {stages})"

    __str__ = __repr__

    @property
    def feature_config(self) -> FeatureConfig:
        """What the network of this recipe reads: embeddings or spectrograms."""
        return self.embedding or self.features

    def stage(self, name: str) -> Stage:
        """The stage of this name."""
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def has_zero_shot(self) -> bool:
        """Whether embeddings end with the embedding model's own logits of the species."""
        return self.embedding is not None and self.embedding.class_map is not None

    @model_serializer(mode="wrap")
    def _leave_out_no_embedding(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the key of an embedding that there is not."""
        dumped: dict[str, Any] = serialize(self)
        if dumped.get("embedding") is None:
            dumped.pop("embedding", None)
        return dumped

    @model_validator(mode="after")
    def _embedding_fits_the_backbone(self) -> Self:
        backbone, head = self.backbone, self.head
        is_embedding = backbone.name == EMBEDDING_BACKBONE
        if is_embedding != (self.embedding is not None):
            raise ValueError(f'backbone.name = "{EMBEDDING_BACKBONE}" and [embedding] go together')
        if self.embedding is None:
            return self
        own = backbone.reduction or backbone.weights or backbone.image_bands
        if own or head.frequency_pooling != "mean":
            raise ValueError(
                "a recipe with [embedding] takes no reduction, weights, bands or frequency_pooling"
            )
        if masked := [stage.name for stage in self.stages if stage.masks.probability]:
            raise ValueError(
                f"embeddings cannot be masked; set stages.{masked[0]}.masks.probability = 0"
            )
        return self

    @model_validator(mode="after")
    def _clipwise_head_has_clipwise_losses(self) -> Self:
        head = self.head
        if head.layers == "linear" and head.scores == "framewise":
            return self
        boxes = [
            f"stages.{stage.name}.loss.on" for stage in self.stages if stage.loss.on == "boxes"
        ]
        unfit = {
            "[embedding]": self.embedding is not None,
            "head.background_subtraction": head.background_subtraction != 0,
            'head.frequency_pooling = "none"': head.frequency_pooling == "none",
        }
        names = [*(f'{name} = "boxes"' for name in boxes), *(name for name in unfit if unfit[name])]
        if names:
            raise ValueError(
                'head.layers = "dense" and head.scores = "clipwise" do not go with '
                f"{', '.join(names)}"
            )
        return self

    @model_validator(mode="after")
    def _weak_negatives_need_a_normalizer(self) -> Self:
        solved = [stage.name for stage in self.stages if stage.loss.weak_negatives]
        if solved and not self.head.background_subtraction and self.embedding is None:
            raise ValueError(
                f"stages.{solved[0]}.loss.weak_negatives needs head.background_subtraction above "
                "0: only then are the inputs of the head normalized"
            )
        return self

    @model_validator(mode="after")
    def _batches_fit_into_memory(self) -> Self:
        bands = 1
        if self.embedding is None:
            bands = max(self.features.n_mels, self.backbone.image_bands or 0)
        for stage in self.stages:
            cells = stage.batch_size * self.windows.frames * bands
            if cells > MAX_BATCH_CELLS:
                raise ValueError(
                    f"stage {stage.name!r}: batch_size {stage.batch_size} x windows.frames "
                    f"{self.windows.frames} x {bands} bands are more than {MAX_BATCH_CELLS} values"
                )
        limits = self.head.class_band_limits
        if isinstance(limits, tuple) and any(end > self.features.n_mels for _, end in limits):
            raise ValueError(f"head.class_band_limits: there are {self.features.n_mels} bands")
        return self

    @model_validator(mode="after")
    def _stages_follow(self) -> Self:
        earlier: list[str] = []
        for stage in self.stages:
            needed = [stage.init_from, stage.pseudo.teacher if stage.pseudo else None]
            for name in needed:
                if name is not None and name not in earlier:
                    raise ValueError(f"stage {stage.name!r} needs {name!r}, which is not before it")
            if stage.name in earlier:
                raise ValueError(f"two stages are named {stage.name!r}")
            if re.search(r"-c\d+$", stage.name):  # the folder of a later cycle (files/runs.py)
                raise ValueError(f"stage {stage.name!r}: -c and a number is the name of a cycle")
            earlier.append(stage.name)
            if boxes := self._without_clipwise(stage):
                raise ValueError(
                    f"stages.{stage.name}.pseudo.scores: stage {boxes[0]!r} has its loss on boxes "
                    "and no clipwise scores"
                )
        if not earlier:
            raise ValueError("a recipe needs a stage")
        return self

    def _without_clipwise(self, stage: Stage) -> list[str]:
        """The stages that would label this one by clipwise scores, which they do not train."""
        if stage.pseudo is None or stage.pseudo.scores != "clipwise":
            return []
        teachers = {stage.pseudo.teacher, stage.name}
        return [own.name for own in self.stages if own.name in teachers and own.loss.on == "boxes"]

    @property
    def digest(self) -> str:
        """A short hash of all settings."""
        return hashlib.blake2b(self.model_dump_json().encode(), digest_size=8).hexdigest()


def removed_settings(table: Mapping[str, Any]) -> str:
    """Name the settings of a recipe's table that earlier versions had (decision 41).

    Parameters
    ----------
    table : the content of a recipe file

    Returns
    -------
    Their keys, with commas in between; empty without any.
    """
    head, stages = table.get("head"), table.get("stages")
    keys = ["overlay"] if "overlay" in table else []
    if isinstance(head, dict) and "within_class_whitening" in head:
        keys.append("head.within_class_whitening")
    for stage in stages if isinstance(stages, list | tuple) else ():
        if isinstance(stage, dict) and "use_overlays" in stage:
            keys.append(f"stages.{stage.get('name')}.use_overlays")
    return ", ".join(keys)


def parse_recipe(table: dict[str, Any], where: str, changes: tuple[str, ...] = ()) -> Recipe:
    """Check a recipe's table after changing it.

    Parameters
    ----------
    table : the content of a recipe file; it is changed in place
    where : name of the file or recipe, for messages
    changes : settings such as ``stages.masked.epochs=3``; ``stages.pseudo=null`` removes a stage

    Returns
    -------
    The recipe.

    Raises
    ------
    UserError
        E_SET, E_REMOVED_SETTING, E_UNKNOWN_SETTING, E_SETTING_VALUE.
    """
    for change in changes:
        apply_change(table, change)
    if removed := removed_settings(table):
        raise UserError(
            "E_REMOVED_SETTING",
            f"{where}: no longer settings, as models were no better with them: {removed}",
            "leave them out",
        )
    return check_settings(Recipe, table, where)
