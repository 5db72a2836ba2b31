"""What sound becomes before a network sees it: settings of spectrograms and of embeddings."""

import hashlib
import json
from abc import abstractmethod
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from antpitta.core.timegrid import TimeGrid

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class FrozenConfig(BaseModel):
    """Frozen, and a stranger among the keys is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


DRAWING = 5  # of spectrograms; raised when the same settings come to draw other pictures
EMBEDDING = 1  # the same, of embeddings
WIDEST = 1.5  # times a drawing's rate: beyond it, resampling is less work than longer transforms


class FeatureConfig(FrozenConfig):
    """What sound becomes before a network learns from it: rows of numbers, one a frame."""

    sample_rate: Count
    segment: Positive  # seconds; a longer recording is several images

    @property
    @abstractmethod
    def digest(self) -> str:
        """What a cached picture is keyed by, besides the sound itself."""

    @property
    @abstractmethod
    def min_duration(self) -> float:
        """Seconds that make an image of their own, where they follow a whole one."""

    @abstractmethod
    def n_frames(self, seconds: float) -> int:
        """How many frames a stretch of ``seconds`` gives."""

    def read_rate(self, recorded: int) -> int:
        """At which rate a recording of ``recorded`` samples a second is to be read."""
        return self.sample_rate

    def segments(self, duration: float) -> list[tuple[float, float]]:
        """(start, stop) in seconds of each image of a recording; a remainder is left out."""
        starts = [i * self.segment for i in range(int(duration // self.segment) + 1)]
        cuts = [(start, min(start + self.segment, duration)) for start in starts]
        return [cut for cut in cuts if cut[1] - cut[0] >= self.min_duration] or [(0.0, duration)]

    def time_grid(self, start: float, stop: float) -> TimeGrid:
        """The frames of one image, as the recipe counts them: ``int(frames * t / seconds)``."""
        frames = self.n_frames(stop - start)
        return TimeGrid(hop=(stop - start) / frames, frames=frames, start=start)


class MelConfig(FeatureConfig):
    """Sound to picture: a log-mel spectrogram, scaled per image to 0..255."""

    sample_rate: Count = 32_000
    n_fft: Count = 2048  # samples
    hop_length: Count = 512  # samples
    n_mels: Count = 128
    fmin: float = Field(20.0, ge=0)
    fmax: Positive = 16_000.0
    top_db: Positive = 80.0  # dB below the loudest cell that are kept
    segment: Positive = 60.0

    @model_validator(mode="after")
    def _band_is_heard(self) -> Self:
        if not self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(
                f"low {self.fmin} < high {self.fmax} <= {self.sample_rate / 2} must hold"
            )
        return self

    @property
    def digest(self) -> str:
        """What a cached spectrogram is keyed by, besides the sound itself."""
        return _digest({**self.model_dump(), "drawing": DRAWING})

    @property
    def min_duration(self) -> float:
        """A frame: less is not seen by anyone."""
        return self.hop_length / self.sample_rate

    def n_frames(self, seconds: float) -> int:
        """How many frames a stretch of ``seconds`` gives: frames are centred, so one more."""
        return round(seconds * self.sample_rate) // self.hop_length + 1

    def read_rate(self, recorded: int) -> int:
        """The recording's own rate, where the frames fall on whole samples of it.

        The transform then costs less than resampling would.

        >>> [MelConfig().read_rate(rate) for rate in (16_000, 44_100, 48_000, 96_000)]
        [16000, 32000, 48000, 32000]
        """
        whole = all(
            recorded * size % self.sample_rate == 0 for size in (self.hop_length, self.n_fft)
        )
        even = recorded * self.n_fft // self.sample_rate % 2 == 0  # a frame's middle is a sample
        heard = 2 * self.fmin < recorded <= WIDEST * self.sample_rate
        return recorded if whole and even and heard else self.sample_rate


BESIDE = "beside"  # where the labels of a network that is known by name lie: in its folder


class EmbeddingConfig(FeatureConfig):
    """Sound to vectors, by a trained network that the user brings; one vector is one frame.

    Vector ``i`` is of the ``seconds`` around the middle of frame ``i``; near the ends of an
    image that stretch is moved back inside. With a ``time_axis`` the frames of ``kept`` seconds
    are made of one stretch around them, each of what the tensors say of its own time. Several
    tensors lie side by side in a vector. Last in it stand, where the network has classes that are
    species of ours, its own logits of these, one a species.
    """

    model: (
        str  # a .tflite or .onnx file, or the name of one that files/embedding_models.py can find
    )
    sample_rate: Count = 48_000  # of what the network takes
    seconds: Positive = 3.0  # that it takes
    step: Positive = 0.5  # seconds from one vector to the next
    # the tensor taken, or several; None: the network's first output
    output: str | tuple[str, ...] | None = None
    time_axis: int | None = Field(None, ge=1)  # of those that are more than a vector
    kept_seconds: Positive | None = None  # seconds in the middle of those taken; None: a step
    model_digest: str | None = None  # a hash of the file: any other file is refused
    labels: str | None = BESIDE  # a file that names the classes of the first output; None: not used
    # for each species the places of its classes in that output, which has ``classes``; both are
    class_map: tuple[tuple[int, ...], ...] | None = None  # filled in when training begins
    n_model_classes: Count | None = None
    segment: Positive = 60.0

    @model_validator(mode="after")
    def _all_sound_is_heard(self) -> Self:
        if not self.step <= self.seconds <= self.segment:
            raise ValueError(
                f"step {self.step} <= seconds {self.seconds} <= image {self.segment} must hold"
            )
        kept = self.step if self.kept_seconds is None else self.kept_seconds
        if not self.step <= kept <= self.seconds:
            raise ValueError(f"step {self.step} <= kept {kept} <= seconds {self.seconds} must hold")
        if kept > self.step and self.time_axis is None:
            raise ValueError("a tensor without time_axis says one thing of all that is kept")
        if self.output == ():
            raise ValueError("output names no tensor; leave it out for the first")
        return self

    @model_serializer(mode="wrap")
    def _say_what_there_is(self, say: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without classes of its own none are told of: as runs and bundles were always written."""
        said: dict[str, Any] = say(self)
        usual = {"labels": BESIDE, "known": None, "classes": None}
        return {
            key: value for key, value in said.items() if key not in usual or value != usual[key]
        }

    @property
    def outputs(self) -> tuple[str | None, ...]:
        """The tensors taken; None is the network's first output."""
        return self.output if isinstance(self.output, tuple) else (self.output,)

    @property
    def frames_per_window(self) -> int:
        """How many frames are made of one stretch."""
        return 1 if self.kept_seconds is None else int(self.kept_seconds / self.step + 1e-6)

    @property
    def digest(self) -> str:
        """What cached vectors are keyed by: the file's content counts, its name does not."""
        if self.model_digest is None:
            raise ValueError("the network's file was not looked at yet")
        return _digest({**self.model_dump(exclude={"model", "labels"}), "embedding": EMBEDDING})

    @property
    def min_duration(self) -> float:
        """What the network takes: less would have to be filled up with silence."""
        return self.seconds

    def n_frames(self, seconds: float) -> int:
        """How many frames: they share the stretch evenly, each about ``step`` long."""
        return max(1, round(seconds / self.step))

    def segments(self, duration: float) -> list[tuple[float, float]]:
        """(start, stop) of each image; a short remainder belongs to the last one."""
        cuts = super().segments(duration)
        return [*cuts[:-1], (cuts[-1][0], duration)]


def _digest(said: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=8).hexdigest()
