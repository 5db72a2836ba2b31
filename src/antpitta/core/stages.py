"""A stage of a recipe: which windows, which loss, which labels, for how long."""

from typing import Literal, Self

from pydantic import Field, model_validator

from antpitta.core.features import Count, FrozenConfig, Positive, Share


class MaskConfig(FrozenConfig):
    """One time mask and one frequency mask on an image, filled with 0."""

    probability: Share = 0.5  # of both together
    max_frames: int = Field(40, ge=0)  # at most
    max_bands: int = Field(30, ge=0)  # at most


class LossConfig(FrozenConfig):
    """What is summed, and over which cells."""

    unknown: Literal["masked", "absent"] = "masked"
    reduction: Literal["sum", "positives", "balanced", "mean"] = (
        "positives"  # model/losses.py has the formulas
    )
    on: Literal["windows", "boxes"] = "windows"  # what a statement is held against
    class_weights: bool = False  # a class weighs max_count / count
    focal_gamma: float = Field(0.0, ge=0)  # gamma of the focal factor on positives
    soft_weight: float = Field(0.5, ge=0)  # weight of soft positives
    unlabelled_target: Share | None = None  # the probability that unlabelled cells are pulled to
    unlabelled_weight: float = Field(0.1, ge=0)


class PseudoLabelConfig(FrozenConfig):
    """Labels from models that did not train on the recording."""

    teacher: str  # the stage whose out-of-fold scores label; later cycles label themselves
    threshold: Share = 0.5  # from here a soft positive
    negative_threshold: Share = 0.01  # below: kept apart as a hard negative, never in the loss
    aggregation: Literal["mean", "vote"] = "mean"
    min_votes: Count = 3  # members that must reach the threshold, with by = "vote"
    members: tuple[str, ...] = ()  # other runs on the same data whose scores are averaged in
    targets: Literal["hard", "soft"] = "hard"  # the target: 1, or the teachers' score
    rescale: bool = False  # scores to prevalences (scores/prevalence.py), before all else
    cycles: Count = 1


class Stage(FrozenConfig):
    """One stage: which windows, which loss, for how long, starting from where."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    description: str = ""  # one line for the report
    init_from: str | None = None  # the stage whose weights it starts from; None: the backbone's own
    sample: Literal["crops", "recordings", "known"] = "recordings"
    absent_crops: int = Field(30, ge=0)  # recordings without presents, drawn anew each epoch
    crop_shifts: tuple[int, ...] = (32, 64, 128, 256)  # frames
    batch_size: Count = 32  # crops, recordings or windows, as sampled
    grad_accum_steps: Count = 1  # batches a step
    epochs: Count = 5
    cosine_t_max: Count | None = None  # epochs of half a cosine; None: all of them
    optimizer: Literal["adam", "lbfgs"] = "adam"  # lbfgs: train/linear_head.py
    lr: Positive = 3e-4
    weight_decay: float = Field(
        0.0, ge=0
    )  # L2: its half times the weights' squared sum joins the loss
    mixup: float = Field(0.0, ge=0)  # alpha of Beta(alpha, alpha) on the input; 0 is off
    manifold_mixup: float = Field(0.0, ge=0)  # the same, on the backbone's feature maps
    use_overlays: bool = False  # the recipe's copies with calls laid over them are learnt from too
    masks: MaskConfig = MaskConfig()
    loss: LossConfig = LossConfig()
    pseudo: PseudoLabelConfig | None = None

    @model_validator(mode="after")
    def _only_boxes_are_solved(self) -> Self:
        if self.optimizer == "lbfgs" and (self.loss.on != "boxes" or self.pseudo):
            raise ValueError('solver = "lbfgs" goes with loss.on = "boxes", without pseudo labels')
        return self

    @model_validator(mode="after")
    def _boxes_are_not_mixed(self) -> Self:
        mixing = self.mixup or self.manifold_mixup or self.loss.unknown == "absent"
        if self.loss.on == "boxes" and (mixing or self.sample == "crops"):
            raise ValueError('loss.on = "boxes" goes with masked windows, and without mixup')
        return self
