"""The recipe: every choice of a run as data, checked when it is read.

A recipe is a TOML table of the shape of :class:`Recipe`; ``recipes/`` holds those that ship.
A stage is data too: three stages are three tables, never three copies of a training loop.
Unknown keys are refused, because a misspelt setting that is passed over trains another model
than the one somebody asked for.

Changes to a recipe's table before it is checked, as ``--set`` takes them.

The words that a user chooses from, where a command and the room that acts on it share them.
"""

import hashlib
import json
import re
from typing import Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from antpitta.core.errors import UserError
from antpitta.core.features import (
    Count,
    EmbeddingConfig,
    FeatureConfig,
    FrozenConfig,
    MelConfig,
    Share,
)
from antpitta.core.stages import Stage


class WindowConfig(FrozenConfig):
    """How images are cut for the network, in frames."""

    frames: Count = 512
    overlap: int = Field(49, ge=0)  # training and pseudo labels
    inference_overlap: int = Field(256, ge=0)  # prediction

    @model_validator(mode="after")
    def _windows_advance(self) -> Self:
        if max(self.overlap, self.inference_overlap) >= self.frames:
            raise ValueError(f"an overlap of {self.frames} frames or more never advances")
        return self


EMBEDDING_BACKBONE = (
    "embedding"  # the backbone of a recipe whose frames are a network's vectors already
)


class BackboneConfig(FrozenConfig):
    """A convolutional backbone by its timm name, or "embedding" for an embedding model."""

    name: str = "tf_efficientnet_lite0"
    weights: str | None = None  # a .safetensors or .pth file instead of timm's hub
    pretrained: bool = True
    frozen: bool = False  # only the head is trained
    # frames per step of the feature map; several maps are stacked
    reduction: Count | tuple[Count, ...] | None = None  # None: the last feature map
    step: Count | None = None  # frames per step of stacked maps; None: the coarsest map's


class HeadConfig(FrozenConfig):
    """The head: how features are pooled and normalised, and how its logits are smoothed."""

    frequency_pooling: Literal["mean", "none"] = "mean"
    background_subtraction: Share = 0.0  # share of a feature's mean over the window taken off
    # frames that framewise logits are averaged over, for all classes or for each; "boxes": the
    # median length of the class's boxes, filled in when training begins
    smoothing_frames: Literal["boxes"] | Count | tuple[Count, ...] = 1
    # mel bands (first, end) that each class's logits see; "boxes": those of the class's boxes,
    # filled in when training begins
    class_band_limits: Literal["boxes"] | tuple[tuple[int, int], ...] | None = None
    within_class_whitening: float = Field(0.0, ge=0, lt=1)
    zero_shot_weight: Share = 0.5  # of an embedding model's own logits, for classes it knows

    @model_validator(mode="after")
    def _band_limits_need_bands(self) -> Self:
        if self.class_band_limits is not None and self.frequency_pooling != "none":
            raise ValueError('class_band_limits needs frequency_pooling = "none"')
        return self


class OverlayConfig(FrozenConfig):
    """Copies of the recordings with validated calls laid over absent boxes (train/overlays.py)."""

    copies: int = Field(0, ge=0)  # of each recording; 0: none
    probability: Share = 0.5  # that an absent box receives a call
    max_gain: float = Field(6.0, ge=0)  # dB, at most, that a call is made louder or quieter


class Recipe(FrozenConfig):
    """A whole run."""

    name: str
    description: str  # one line: when to use it
    seed: int = 1  # of what is learnt
    split_seed: int = 1  # the seed that deals folds and lays calls over copies
    folds: int = Field(5, ge=2)
    features: MelConfig = MelConfig()
    windows: WindowConfig = WindowConfig()
    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = HeadConfig()
    overlay: OverlayConfig = OverlayConfig()
    stages: tuple[Stage, ...]
    embedding: EmbeddingConfig | None = None  # with it ``front`` draws the report's examples only

    @property
    def feature_config(self) -> FeatureConfig:
        """What sound becomes before the network of this recipe."""
        return self.embedding or self.features

    @property
    def has_zero_shot(self) -> bool:
        """Whether the last numbers of a vector are a network's own logits, one a species."""
        return self.embedding is not None and self.embedding.class_map is not None

    @model_serializer(mode="wrap")
    def _say_what_there_is(self, say: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without an embedding none is told of: as runs and bundles were always written."""
        said: dict[str, Any] = say(self)
        if said.get("embedding") is None:
            said.pop("embedding", None)
        return said

    @model_validator(mode="after")
    def _embedding_is_one(self) -> Self:
        backbone, head = self.backbone, self.head
        given = backbone.name == EMBEDDING_BACKBONE
        if given != (self.embedding is not None):
            raise ValueError(f'backbone.name = "{EMBEDDING_BACKBONE}" and [embedding] go together')
        if head.within_class_whitening and not (backbone.frozen or given):
            raise ValueError("head.within_class_whitening needs backbone.frozen = true")
        if self.embedding is None:
            return self
        if backbone.reduction or backbone.weights or head.frequency_pooling != "mean":
            raise ValueError(
                "an embedding has no reduction, weights or frequency_pooling; leave them out"
            )
        if masked := [stage.name for stage in self.stages if stage.masks.probability]:
            raise ValueError(
                f"an embedding cannot be masked; set stages.{masked[0]}.masks.probability = 0"
            )
        return self

    @model_validator(mode="after")
    def _stages_follow(self) -> Self:
        done: list[str] = []
        for stage in self.stages:
            wanted = [stage.init_from, stage.pseudo.teacher if stage.pseudo else None]
            for name in wanted:
                if name is not None and name not in done:
                    raise ValueError(f"stage {stage.name!r} needs {name!r}, which is not before it")
            if stage.name in done:
                raise ValueError(f"two stages are named {stage.name!r}")
            if re.search(r"-c\d+$", stage.name):  # the folder of a later cycle (files/runs.py)
                raise ValueError(f"stage {stage.name!r}: a name cannot end like a cycle's folder")
            done.append(stage.name)
        if not done:
            raise ValueError("a recipe needs a stage")
        return self

    @property
    def digest(self) -> str:
        """Equal for equal settings: a run is resumed only with the recipe it began with."""
        return hashlib.blake2b(self.model_dump_json().encode(), digest_size=8).hexdigest()


def parse_recipe(table: dict[str, Any], where: str, changes: tuple[str, ...] = ()) -> Recipe:
    """Check a recipe's table, after ``changes`` such as ``stages.masked.epochs=3``.

    A stage is addressed by its name, and left out by ``stages.unknown_as_absent=null``. Raises UserError
    naming every wrong key.
    """
    for change in changes:
        apply_change(table, change)
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        said = "; ".join(
            f"{'.'.join(str(at) for at in e['loc']) or 'recipe'}: {e['msg']}"
            for e in error.errors()
        )
        raise UserError("E_TODO", f"{where}: {said}", "correct these settings") from None


def apply_change(table: dict[str, Any], change: str) -> None:
    """Set what ``stages.masked.epochs=3`` says; a stage goes by its name, null leaves it out.

    The value is JSON, or else text. Raises UserError where the path leads nowhere.
    """
    path, sign, text = change.partition("=")
    if not sign:
        raise UserError("E_TODO", f"--set {change}: no '='", "write --set key=value")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    *way, last = path.strip().split(".")
    at: Any = table
    for key in way:
        at = _step(at, key, path)
    if isinstance(at, list):
        if value is not None:
            raise UserError(
                "E_TODO",
                f"--set {path}: name a setting of the stage",
                f"write {path}.epochs=3, say, or {path}=null to leave it out",
            )
        at.remove(_step(at, last, path))
        return
    if not isinstance(at, dict):
        raise UserError(
            "E_TODO", f"--set {path}: {'.'.join(way)} is a value, not a table", "set it itself"
        )
    at[last] = value


def _step(at: Any, key: str, path: str) -> Any:
    if isinstance(at, list):
        stages = [stage for stage in at if isinstance(stage, dict)]
        for stage in stages:
            if stage.get("name") == key:
                return stage
        names = ", ".join(str(stage.get("name")) for stage in stages)
        raise UserError("E_TODO", f"--set {path}: no stage {key!r}", f"the stages are {names}")
    if not isinstance(at, dict):
        raise UserError(
            "E_TODO", f"--set {path}: nothing lies below a value", f"check the key {key!r}"
        )
    return at.setdefault(key, {})


BlendMethod = Literal[
    "mean", "extremized", "rank", "auc", "fit"
]  # how an ensemble blends (scores/ensemble/blend.py)
InferenceMode = Literal["full", "sliding"]  # in what pieces sound is heard (model/inference.py)
Precision = Literal["auto", "float32", "bfloat16", "int8"]  # and by what arithmetic
# what events are written as (predict/exports.py, predict/camtrapdp.py)
EventFormat = Literal["csv", "parquet", "raven", "audacity", "kaleidoscope", "camtrapdp"]
Executor = Literal["local", "ray"]  # on this machine, or on a Ray cluster (predict/cluster.py)
