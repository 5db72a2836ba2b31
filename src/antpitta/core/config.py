"""The recipe: every choice of a run as data, checked when it is read.

A recipe is a TOML table of the shape of :class:`Recipe`; ``recipes/`` holds those that ship.
A stage is data too: three stages are three tables, never three copies of a training loop.
Unknown keys are refused, because a misspelt setting that is passed over trains another model
than the one somebody asked for.
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

from antpitta.core.drawings import Count, Drawing, Embedding, Front, Positive, Settings, Share
from antpitta.core.errors import UserMistake


class Windows(Settings):
    """How images are cut for the network, in frames."""

    frames: Count = 512
    overlap: int = Field(49, ge=0)  # training and pseudo labels
    scan_overlap: int = Field(256, ge=0)  # prediction

    @model_validator(mode="after")
    def _windows_advance(self) -> Self:
        if max(self.overlap, self.scan_overlap) >= self.frames:
            raise ValueError(f"an overlap of {self.frames} frames or more never advances")
        return self


GIVEN = "embedding"  # the backbone of a recipe whose frames are a network's vectors already


class Network(Settings):
    """A backbone of timm, or GIVEN, with the SED head on it."""

    backbone: str = "tf_efficientnet_lite0"
    pretrained: bool = True
    # frames a step of the features taken; several: side by side, their heights apart
    reduction: Count | tuple[Count, ...] | None = None  # None: the last ones
    step: Count | None = None  # frames a step where several are taken; None: the coarsest's
    frozen: bool = False  # only the head learns
    heights: Literal["mean", "each"] = "mean"  # of the feature maps: averaged, or told apart
    smooth: Count = 1  # steps that a framewise logit is averaged over
    # frames that each class's are averaged over; "boxes": its boxes' median length, filled in
    spans: Literal["boxes"] | tuple[Count, ...] | None = None  # when training begins
    # bands of the picture, from and to, that each class's head sees; "boxes": those its boxes
    reach: Literal["boxes"] | tuple[tuple[int, int], ...] | None = None  # lie in, filled in, too
    centre: Share = 0.0  # of each feature's mean over the window, its background: taken off
    trust: Share = 0.5  # of an embedding's network in the logits of classes it knows by itself
    wccn: float = Field(0.0, ge=0, lt=1)  # of the L2's metric: how boxes of a species differ
    weights: str | None = None  # a .safetensors or .pth file instead of the hub's

    @model_validator(mode="after")
    def _settings_go_together(self) -> Self:
        if self.reach is not None and self.heights != "each":
            raise ValueError('reach goes with heights = "each"')
        if self.wccn and not (self.frozen or self.backbone == GIVEN):
            raise ValueError("wccn goes with frozen = true: what moves has no covariance")
        return self


class Paste(Settings):
    """Copies of the recordings with validated calls laid over absent boxes (learn/copies.py)."""

    copies: int = Field(0, ge=0)  # of each recording; 0: none
    chance: Share = 0.5  # that an absent box receives a call
    gain: float = Field(6.0, ge=0)  # dB, at most, that a call is made louder or quieter


class Masks(Settings):
    """One time mask and one frequency mask on an image, filled with 0."""

    chance: Share = 0.5  # of both together
    frames: int = Field(40, ge=0)  # at most
    bands: int = Field(30, ge=0)  # at most


class Loss(Settings):
    """What is summed, and over which cells."""

    unknown: Literal["masked", "absent"] = "masked"
    reduce: Literal["sum", "positives", "both", "cells"] = (
        "positives"  # net/losses.py has the formulas
    )
    on: Literal["windows", "boxes"] = "windows"  # what a statement is held against
    balance: bool = False  # a class weighs max_count / count
    focal: float = Field(0.0, ge=0)  # gamma of the focal factor on positives
    soft: float = Field(0.5, ge=0)  # weight of soft positives
    pull: Share | None = None  # the probability that unlabelled cells are pulled to
    pull_weight: float = Field(0.1, ge=0)


class Pseudo(Settings):
    """Labels from models that did not train on the recording."""

    teacher: str  # the stage whose out-of-fold scores label; later cycles label themselves
    threshold: Share = 0.5  # from here a soft positive
    hard: Share = 0.01  # below: kept apart as a hard negative, never in the loss
    by: Literal["mean", "vote"] = "mean"
    votes: Count = 3  # members that must reach the threshold, with by = "vote"
    members: tuple[str, ...] = ()  # other runs on the same data whose scores are averaged in
    values: Literal["hard", "soft"] = "hard"  # the target: 1, or the teachers' score
    rescale: bool = False  # scores to prevalences (scores/mixture.py), before all else
    cycles: Count = 1


class Stage(Settings):
    """One stage: which windows, which loss, for how long, starting from where."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    says: str = ""  # one line for the report
    start: str | None = None  # the stage whose weights it starts from; None: the backbone's own
    sample: Literal["crops", "recordings", "known"] = "recordings"
    absent_crops: int = Field(30, ge=0)  # recordings without presents, drawn anew each epoch
    shifts: tuple[int, ...] = (32, 64, 128, 256)  # frames
    batch: Count = 32  # crops, recordings or windows, as sampled
    accumulate: Count = 1  # batches a step
    epochs: Count = 5
    cosine: Count | None = None  # epochs of half a cosine; None: all of them
    solver: Literal["adam", "lbfgs"] = "adam"  # lbfgs: learn/solve.py
    rate: Positive = 3e-4
    decay: float = Field(0.0, ge=0)  # L2: its half times the weights' squared sum joins the loss
    mixup: float = Field(0.0, ge=0)  # alpha of Beta(alpha, alpha) on the input; 0 is off
    last_mixup: float = Field(0.0, ge=0)  # the same, on the backbone's feature maps
    pasted: bool = False  # the recipe's copies with calls laid over them are learnt from too
    masks: Masks = Masks()
    loss: Loss = Loss()
    pseudo: Pseudo | None = None

    @model_validator(mode="after")
    def _only_boxes_are_solved(self) -> Self:
        if self.solver == "lbfgs" and (self.loss.on != "boxes" or self.pseudo):
            raise ValueError('solver = "lbfgs" goes with loss.on = "boxes", without pseudo labels')
        return self

    @model_validator(mode="after")
    def _boxes_are_not_mixed(self) -> Self:
        mixing = self.mixup or self.last_mixup or self.loss.unknown == "absent"
        if self.loss.on == "boxes" and (mixing or self.sample == "crops"):
            raise ValueError('loss.on = "boxes" goes with masked windows, and without mixup')
        return self


class Recipe(Settings):
    """A whole run."""

    name: str
    when: str  # one line: when to use it
    seed: int = 1  # of what is learnt
    deal: int = 1  # the seed that deals folds and lays calls over copies
    folds: int = Field(5, ge=2)
    front: Front = Front()
    windows: Windows = Windows()
    network: Network = Network()
    paste: Paste = Paste()
    stages: tuple[Stage, ...]
    embedding: Embedding | None = None  # with it ``front`` draws the report's examples only

    @property
    def drawing(self) -> Drawing:
        """What sound becomes before the network of this recipe."""
        return self.embedding or self.front

    @property
    def knows(self) -> bool:
        """Whether the last numbers of a vector are a network's own logits, one a species."""
        return self.embedding is not None and self.embedding.known is not None

    @model_serializer(mode="wrap")
    def _say_what_there_is(self, say: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without an embedding none is told of: as runs and bundles were always written."""
        said: dict[str, Any] = say(self)
        if said.get("embedding") is None:
            said.pop("embedding", None)
        return said

    @model_validator(mode="after")
    def _embedding_is_one(self) -> Self:
        network = self.network
        if (network.backbone == GIVEN) != (self.embedding is not None):
            raise ValueError(f'network.backbone = "{GIVEN}" and [embedding] go together')
        if self.embedding is None:
            return self
        if network.reduction or network.weights or network.heights != "mean":
            raise ValueError("an embedding has no reduction, heights or weights; leave them out")
        if masked := [stage.name for stage in self.stages if stage.masks.chance]:
            raise ValueError(
                f"an embedding cannot be masked; set stages.{masked[0]}.masks.chance = 0"
            )
        return self

    @model_validator(mode="after")
    def _stages_follow(self) -> Self:
        done: list[str] = []
        for stage in self.stages:
            wanted = [stage.start, stage.pseudo.teacher if stage.pseudo else None]
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

    A stage is addressed by its name, and left out by ``stages.whole=null``. Raises UserMistake
    naming every wrong key.
    """
    for change in changes:
        _apply(table, change)
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        said = "; ".join(
            f"{'.'.join(str(at) for at in e['loc']) or 'recipe'}: {e['msg']}"
            for e in error.errors()
        )
        raise UserMistake(f"{where}: {said}; correct these settings") from None


def _apply(table: dict[str, Any], change: str) -> None:
    path, sign, text = change.partition("=")
    if not sign:
        raise UserMistake(f"--set {change}: no '='; write --set key=value")
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
            raise UserMistake(
                f"--set {path}: name a setting of the stage; write {path}.epochs=3, say, "
                f"or {path}=null to leave it out"
            )
        at.remove(_step(at, last, path))
        return
    if not isinstance(at, dict):
        raise UserMistake(f"--set {path}: {'.'.join(way)} is a value, not a table; set it itself")
    at[last] = value


def _step(at: Any, key: str, path: str) -> Any:
    if isinstance(at, list):
        stages = [stage for stage in at if isinstance(stage, dict)]
        for stage in stages:
            if stage.get("name") == key:
                return stage
        names = ", ".join(str(stage.get("name")) for stage in stages)
        raise UserMistake(f"--set {path}: no stage {key!r}; the stages are {names}")
    if not isinstance(at, dict):
        raise UserMistake(f"--set {path}: nothing lies below a value; check the key {key!r}")
    return at.setdefault(key, {})
