"""One stage of a recipe: its windows, labels, loss and optimizer.

Each setting is described once, in its ``Field``; ``antpitta settings`` and the documentation print
these descriptions (core/settings.py).
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from antpitta.core.features import FramesOrZero, FrozenConfig, Share

Factor = Annotated[float, Field(ge=0, le=1000)]
BetaParameter = Annotated[float, Field(ge=0, le=100)]
Shift = Annotated[int, Field(ge=-65_536, le=65_536)]
Repeats = Annotated[int, Field(ge=1, le=10_000)]


class MaskConfig(FrozenConfig):
    """SpecAugment: one time mask and one frequency mask on each segment, filled with 0."""

    probability: Share = Field(0.5, description="Probability that a segment is masked.")
    max_frames: FramesOrZero = Field(
        40, description="Time masks are shorter than this, in frames; 0: none."
    )
    max_bands: int = Field(
        30,
        ge=0,
        le=1024,
        description="Frequency masks are narrower than this, in bands; 0: none.",
    )


class LossConfig(FrozenConfig):
    """The loss: its kind, which cells it uses and how it is reduced.

    The formulas are in model/losses.py.
    """

    kind: Literal["bce", "lsep"] = Field(
        "bce",
        description="bce: binary cross-entropy; lsep: ranks the present classes of a window above "
        "its absent ones, and has no reduction.",
    )
    unknown: Literal["masked", "absent"] = Field(
        "masked", description="Unknown cells are left out of the loss, or treated as absent."
    )
    reduction: Literal["sum", "positives", "balanced", "mean"] = Field(
        "positives",
        description="How the loss is reduced. sum: no division; positives: positives are divided "
        "by their number, pseudo-labels included; balanced: positives and negatives each by "
        "theirs; mean: by all cells.",
    )
    on: Literal["windows", "boxes"] = Field(
        "windows", description="Compare labels with the maximum of a window or the mean of a box."
    )
    weak_negatives: Factor = Field(
        0.0,
        description="With optimizer = lbfgs: weight of other species' present boxes as negatives "
        "of a species, and of windows without a box of it, beside 1 of its absent boxes. The best "
        "moments of these windows have weak targets of twice this weight. 0: unknown cells are not "
        "used.",
    )
    class_weights: bool = Field(
        False,
        description="Weight the positives of each class by the largest count of present boxes "
        "divided by its own.",
    )
    positive_weight: Factor = Field(
        1.0, description="Weight of the loss on positives, pseudo-labels included."
    )
    focal_gamma: float = Field(
        0.0, ge=0, le=20, description="Exponent of the focal factor on positives; 0: no focal loss."
    )
    soft_weight: Factor = Field(0.5, description="Weight of the loss on pseudo-labels.")
    unlabelled_target: Share | None = Field(
        None, description="Target probability of unlabelled cells; null: they are not used."
    )
    unlabelled_weight: Factor = Field(
        0.1, description="Weight of the loss towards unlabelled_target."
    )


class PseudoLabelConfig(FrozenConfig):
    """Labels from the scores of models that did not train on the recording."""

    teacher: str = Field(
        description="Stage whose out-of-fold scores become labels; later cycles use their own."
    )
    threshold: Share = Field(0.5, description="Scores from here up become positive pseudo-labels.")
    negative_threshold: Share = Field(
        0.01, description="Scores below are counted as hard negatives; the loss does not use them."
    )
    scores: Literal["framewise", "clipwise"] = Field(
        "framewise",
        description="Score of a training window: the highest framewise probability in it, or its "
        "clipwise probability.",
    )
    aggregation: Literal["mean", "vote"] = Field(
        "mean", description="How the scores of several runs are combined."
    )
    min_votes: int = Field(
        3,
        ge=1,
        le=1000,
        description="With aggregation = vote: runs whose score must pass a threshold.",
    )
    members: tuple[str, ...] = Field(
        (),
        description="Folders of other runs on the same data, and tables of scores of any model, "
        "whose scores are added.",
    )
    unproven_members: bool = Field(
        False,
        description="Tables in members need no column fold or trained_on: you know that no model "
        "scored a recording that it trained on.",
    )
    targets: Literal["hard", "soft"] = Field(
        "hard", description="Target of a positive pseudo-label: 1, or the score itself."
    )
    rescale: bool = Field(
        False, description="First rescale the scores to the estimated prevalence of each species."
    )
    cycles: int = Field(
        1,
        ge=1,
        le=100,
        description="How often the stage is trained, each time on labels of the cycle before.",
    )


class Stage(FrozenConfig):
    """One stage: windows, labels, loss and optimizer, and the stage it starts from."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_-]{0,99}$",
        description="Name of the stage: small letters, digits, _ and -.",
    )
    description: str = Field("", description="One line for the report.")
    init_from: str | None = Field(
        None, description="Earlier stage whose weights it starts from; null: the backbone's."
    )
    sample: Literal["crops", "recordings", "verdicts", "known", "balanced"] = Field(
        "recordings",
        description="What an epoch draws: crops around boxes; whole recordings; recordings with "
        "their present boxes, and once more with their absent ones; windows with labels; or "
        "windows with present labels, and in each batch as many with absent ones only.",
    )
    absent_crops: int = Field(
        30,
        ge=0,
        le=100_000,
        description="With sample = crops: crops per epoch around absent boxes, without present "
        "labels.",
    )
    crop_anchor: Literal["start", "centre"] = Field(
        "start",
        description="With sample = crops: the middle of the box lies crop_shifts after the crop's "
        "start, or that far from its centre.",
    )
    crop_shifts: tuple[Shift, ...] = Field(
        (32, 64, 128, 256),
        description="With sample = crops: distances of a box's middle from the anchor, in frames.",
    )
    batch_size: Repeats = Field(32, description="Crops, recordings or windows in a batch.")
    grad_accum_steps: Repeats = Field(
        1,
        description="The optimizer steps after the first batch of an epoch and each time so many "
        "batches later, along the sum of their gradients.",
    )
    epochs: Repeats = Field(5, description="Number of epochs.")
    cosine_t_max: Repeats | None = Field(
        None, description="Epochs of half a cosine of the learning rate; null: all epochs."
    )
    optimizer: Literal["adam", "lbfgs"] = Field(
        "adam", description="Adam, or L-BFGS on a linear head."
    )
    lr: float = Field(3e-4, gt=0, le=10, description="Learning rate of Adam.")
    weight_decay: Factor = Field(
        0.0, description="L2 penalty: half of it times the squared weights joins the loss."
    )
    keep: Literal["last", "best"] = Field(
        "last",
        description="Epoch whose weights are kept: the last, or the one with the best LWLRAP on "
        "the fold that is held out.",
    )
    mixup: BetaParameter = Field(
        0.0, description="Parameter of mixup's Beta distribution, on the input; 0: no mixup."
    )
    mixup_inputs: bool = Field(
        True, description="Mixup mixes inputs and labels; false: the labels only."
    )
    manifold_mixup: BetaParameter = Field(
        0.0, description="Parameter of mixup's Beta distribution, on feature maps; 0: no mixup."
    )
    masks: MaskConfig = MaskConfig()
    loss: LossConfig = LossConfig()
    pseudo: PseudoLabelConfig | None = None

    @property
    def cycles(self) -> int:
        """How often the stage is trained: once, or once for each set of pseudo-labels."""
        return self.pseudo.cycles if self.pseudo else 1

    @model_validator(mode="after")
    def _lbfgs_needs_boxes(self) -> Self:
        if self.optimizer == "lbfgs" and (self.loss.on != "boxes" or self.pseudo):
            raise ValueError('optimizer = "lbfgs" needs loss.on = "boxes" and no pseudo-labels')
        return self

    @model_validator(mode="after")
    def _lsep_ranks_labels_of_windows(self) -> Self:
        loss = self.loss
        mixing = self.mixup or self.manifold_mixup
        weighting = loss.class_weights or loss.focal_gamma or loss.unlabelled_target is not None
        if loss.kind == "lsep" and (mixing or weighting or self.pseudo or loss.on == "boxes"):
            raise ValueError(
                'loss.kind = "lsep" needs loss.on = "windows", and no mixup, pseudo-labels, '
                "class_weights, focal_gamma or unlabelled_target"
            )
        return self

    @model_validator(mode="after")
    def _boxes_exclude_mixup(self) -> Self:
        mixing = self.mixup or self.manifold_mixup or self.loss.unknown == "absent"
        if self.loss.on == "boxes" and (mixing or self.sample in ("crops", "verdicts")):
            raise ValueError(
                'loss.on = "boxes" needs loss.unknown = "masked", no mixup, and neither '
                'sample = "crops" nor "verdicts"'
            )
        return self

    @model_validator(mode="after")
    def _weak_negatives_need_the_solver(self) -> Self:
        if self.loss.weak_negatives and (
            self.optimizer != "lbfgs" or self.loss.reduction != "balanced"
        ):
            raise ValueError(
                'loss.weak_negatives needs optimizer = "lbfgs" and loss.reduction = "balanced"'
            )
        return self

    @model_validator(mode="after")
    def _best_needs_epochs(self) -> Self:
        if self.keep == "best" and self.optimizer == "lbfgs":
            raise ValueError('keep = "best" needs optimizer = "adam"')
        return self
