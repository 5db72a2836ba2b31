"""Settings of what a model reads instead of sound: spectrograms or embeddings.

Each setting is described once, in its ``Field``; ``antpitta settings`` and the documentation print
these descriptions (core/settings.py).
"""

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
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
SampleRate = Annotated[int, Field(ge=100, le=2_000_000)]
SegmentLength = Annotated[float, Field(ge=0.1, le=3600)]
Frames = Annotated[int, Field(ge=1, le=65_536)]
FramesOrZero = Annotated[int, Field(ge=0, le=65_536)]

SPECTROGRAM_VERSION = 5  # part of the cache key; raised when equal settings give other values
EMBEDDING_VERSION = 1  # the same, for embeddings
MAX_CELLS = 100_000_000  # of the spectrogram of one segment
MAX_TRANSFORMED = 2_000_000_000  # samples of all transforms of one segment
MAX_EMBEDDINGS = 1_000_000  # of one segment
MAX_INPUT = 50_000_000  # samples of an embedding model's input window
MAX_NATIVE_RATIO = 1.5  # above it, resampling costs less than the longer transforms
LABELS_BESIDE_MODEL = "beside"  # the label file lies in the folder of a model known by name


class FrozenConfig(BaseModel):
    """Settings that cannot change once they are read; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FeatureConfig(FrozenConfig):
    """How a recording becomes rows of numbers, one row per frame."""

    sample_rate: SampleRate
    segment: SegmentLength

    @property
    @abstractmethod
    def digest(self) -> str:
        """The part of the cache key that stands for these settings."""

    @property
    @abstractmethod
    def min_duration(self) -> float:
        """The shortest remainder, in seconds, that becomes a segment of its own."""

    @abstractmethod
    def n_frames(self, seconds: float) -> int:
        """The number of frames of a stretch of sound.

        Parameters
        ----------
        seconds : length of the stretch, seconds
        """

    def read_rate(self, recorded: int) -> int:
        """The sample rate at which a recording is read.

        Parameters
        ----------
        recorded : the recording's own sample rate, Hz
        """
        return self.sample_rate

    def segments(self, duration: float) -> list[tuple[float, float]]:
        """Divide a recording into segments; a short remainder is left out.

        Parameters
        ----------
        duration : length of the recording, seconds

        Returns
        -------
        (start, stop) of each segment, seconds; at least one.
        """
        starts = [i * self.segment for i in range(int(duration // self.segment) + 1)]
        segments = [(start, min(start + self.segment, duration)) for start in starts]
        return [(start, stop) for start, stop in segments if stop - start >= self.min_duration] or [
            (0.0, duration)
        ]

    def time_grid(self, start: float, stop: float) -> TimeGrid:
        """The frames of one segment, from ``start`` to ``stop`` (seconds)."""
        frames = self.n_frames(stop - start)
        return TimeGrid(hop=(stop - start) / frames, frames=frames, start=start)


class MelConfig(FeatureConfig):
    """A log-mel spectrogram, scaled to 0..255 in each segment."""

    sample_rate: SampleRate = Field(32_000, description="Sample rate of the spectrogram, in Hz.")
    n_fft: int = Field(
        2048, ge=16, le=32_768, description="Length of the Fourier transform, in samples."
    )
    hop_length: Frames = Field(512, description="Samples from one frame to the next.")
    n_mels: int = Field(
        128, ge=1, le=1024, description="Number of mel bands, at most half of n_fft."
    )
    fmin: NonNegative = Field(20.0, description="Lowest frequency, in Hz.")
    fmax: Positive = Field(
        16_000.0, description="Highest frequency, in Hz, at most half of sample_rate."
    )
    top_db: float = Field(
        80.0, ge=1, le=300, description="Range kept below the loudest value of a segment, in dB."
    )
    segment: SegmentLength = Field(
        60.0, description="Length of a segment in seconds; longer recordings are divided."
    )

    @model_validator(mode="after")
    def _band_limits_fit_the_sample_rate(self) -> Self:
        if not self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(
                f"fmin {self.fmin} < fmax {self.fmax} <= half of sample_rate "
                f"{self.sample_rate / 2} must hold"
            )
        if self.fmax - self.fmin < 1:
            raise ValueError(f"fmin {self.fmin} and fmax {self.fmax} must be 1 Hz apart")
        return self

    @model_validator(mode="after")
    def _segments_can_be_computed(self) -> Self:
        if self.n_fft % 2:
            raise ValueError(f"n_fft {self.n_fft} must be even")
        if self.n_mels > self.n_fft // 2:
            raise ValueError(f"n_mels {self.n_mels} <= half of n_fft {self.n_fft} must hold")
        frames = self.n_frames(self.segment)
        for size, limit in ((self.n_mels, MAX_CELLS), (self.n_fft, MAX_TRANSFORMED)):
            if frames * size > limit:
                raise ValueError(
                    f"a segment has {frames} frames x {size} values, and at most {limit} are "
                    "possible: raise hop_length, or lower segment"
                )
        return self

    @property
    def digest(self) -> str:
        """The part of the cache key that stands for these settings."""
        return _digest({**self.model_dump(), "version": SPECTROGRAM_VERSION})

    @property
    def min_duration(self) -> float:
        """One frame, in seconds."""
        return self.hop_length / self.sample_rate

    def n_frames(self, seconds: float) -> int:
        """The number of frames; they are centred, so there is one more than hops.

        Parameters
        ----------
        seconds : length of the stretch, seconds
        """
        return round(seconds * self.sample_rate) // self.hop_length + 1

    def read_rate(self, recorded: int) -> int:
        """The recording's own rate where hop and transform are whole samples of it.

        The transform then costs less than resampling would.

        Parameters
        ----------
        recorded : the recording's own sample rate, Hz

        Examples
        --------
        >>> [MelConfig().read_rate(rate) for rate in (16_000, 44_100, 48_000, 96_000)]
        [16000, 32000, 48000, 32000]
        """
        is_exact = all(
            recorded * size % self.sample_rate == 0 for size in (self.hop_length, self.n_fft)
        )
        even = recorded * self.n_fft // self.sample_rate % 2 == 0  # a frame is centred on a sample
        in_range = 2 * self.fmin < recorded <= MAX_NATIVE_RATIO * self.sample_rate
        return recorded if is_exact and even and in_range else self.sample_rate


# What spectrograms that another program computed hold: those of the RFCX competition's fifth place.
DUMP = MelConfig(
    sample_rate=32_000,
    n_fft=2048,
    hop_length=512,
    n_mels=128,
    fmin=20.0,
    fmax=16_000.0,
    top_db=80.0,
)


def explain_dump_mismatch(config: MelConfig) -> str:
    """Why features cannot be computed from spectrograms with the settings of :data:`DUMP`.

    Features of a longer hop are every second, third ... frame of these spectrograms.

    Parameters
    ----------
    config : settings of the features

    Returns
    -------
    The settings that differ, with both values; empty if the features can be computed.
    """
    differing = [
        name
        for name in ("sample_rate", "n_fft", "n_mels", "fmin", "fmax")
        if getattr(config, name) != getattr(DUMP, name)
    ]
    differing += ["hop_length"] if config.hop_length % DUMP.hop_length else []
    differing += ["top_db"] if config.top_db > DUMP.top_db else []
    reasons = [
        f"{name} is {getattr(config, name):g} and not {getattr(DUMP, name):g}" for name in differing
    ]
    frames = config.segment * config.sample_rate / config.hop_length
    if abs(frames - round(frames)) > 1e-6:
        reasons.append(f"segment is {config.segment:g} s, which is {frames:.2f} frames")
    return ", ".join(reasons)


class EmbeddingConfig(FeatureConfig):
    """Embeddings of a trained model that the user provides, one vector per frame.

    Vector ``i`` describes the ``seconds`` of sound around the middle of frame ``i``; near the ends
    of a segment that window moves inside. With ``time_axis`` one window gives the frames of
    ``kept_seconds`` around its middle, each from its own part of the feature map. Several outputs
    are concatenated. Where the model classifies species of the data set, its logits of these
    species follow at the end of the vector.
    """

    model: str = Field(
        description="A .tflite or .onnx file, or a known model's name (birdnet-2.4, perch-2)."
    )
    sample_rate: SampleRate = Field(
        48_000, description="Sample rate that the model expects, in Hz."
    )
    seconds: float = Field(
        3.0, ge=0.01, le=600, description="Length of the model's input window, in seconds."
    )
    step: float = Field(0.375, ge=0.01, le=600, description="Seconds from one vector to the next.")
    output: str | tuple[str, ...] | None = Field(
        None, description="Names of the tensors to use; null: the first output of the model."
    )
    time_axis: int | None = Field(
        None,
        ge=1,
        le=10,
        description="Time axis of outputs that are feature maps; null: outputs are vectors.",
    )
    kept_seconds: Positive | None = Field(
        None,
        description="Seconds used from the middle of each input window; null: one step.",
    )
    peak: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Peak to which each input window is scaled after its mean was removed; null: "
        "sound stays as it is.",
    )
    class_output: str | None = Field(
        None,
        description="Name of the tensor with the logits of the model's classes; null: its first "
        "output.",
    )
    model_digest: str | None = Field(
        None, description="Hash of the model file; any other file is refused (filled in by train)."
    )
    labels: str | None = Field(
        LABELS_BESIDE_MODEL,
        description="File with the names of the model's classes; beside: in the folder of a known "
        "model; null: unused.",
    )
    class_map: tuple[tuple[CountOrZero, ...], ...] | None = Field(
        None, description="The model's classes for each species (filled in by train)."
    )
    n_model_classes: Count | None = Field(
        None, description="Number of classes of the model (filled in by train)."
    )
    segment: SegmentLength = Field(
        60.0, description="Length of a segment in seconds; a remainder joins the last segment."
    )

    @model_validator(mode="after")
    def _windows_cover_all_sound(self) -> Self:
        if not self.step <= self.seconds <= self.segment:
            raise ValueError(
                f"step {self.step} <= seconds {self.seconds} <= segment {self.segment} must hold"
            )
        kept = self.step if self.kept_seconds is None else self.kept_seconds
        if not self.step <= kept <= self.seconds:
            raise ValueError(
                f"step {self.step} <= kept_seconds {kept} <= seconds {self.seconds} must hold"
            )
        if kept > self.step and self.time_axis is None:
            raise ValueError("kept_seconds above step needs time_axis")
        if self.output == ():
            raise ValueError("output names no tensor; leave it out to use the first one")
        return self

    @model_validator(mode="after")
    def _model_is_a_local_file(self) -> Self:
        if "://" in self.model or self.model.startswith(("\\\\", "//")) or "\0" in self.model:
            raise ValueError(f"model {self.model!r} is no file of this machine; copy it here first")
        return self

    @model_validator(mode="after")
    def _segments_can_be_computed(self) -> Self:
        for name, count, limit in (
            ("samples in a window", self.seconds * self.sample_rate, MAX_INPUT),
            ("vectors in a segment", self.segment / self.step, MAX_EMBEDDINGS),
        ):
            if count > limit:
                raise ValueError(f"{count:.0f} {name}, and at most {limit} are possible")
        if self.class_map and max(map(max, filter(None, self.class_map)), default=-1) >= (
            self.n_model_classes or 0
        ):
            raise ValueError("class_map names classes beyond n_model_classes")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later settings at their defaults, so that they change no digest."""
        dumped: dict[str, Any] = serialize(self)
        defaults = {"labels": LABELS_BESIDE_MODEL} | dict.fromkeys(
            ("class_map", "n_model_classes", "peak", "class_output")
        )
        return {
            key: value
            for key, value in dumped.items()
            if key not in defaults or value != defaults[key]
        }

    @property
    def outputs(self) -> tuple[str | None, ...]:
        """The tensors used; None is the model's first output."""
        return self.output if isinstance(self.output, tuple) else (self.output,)

    @property
    def frames_per_window(self) -> int:
        """The number of frames made of one input window."""
        return 1 if self.kept_seconds is None else int(self.kept_seconds / self.step + 1e-6)

    @property
    def digest(self) -> str:
        """The part of the cache key for these settings; the file counts by content, not by name."""
        if self.model_digest is None:
            raise ValueError("model_digest is not filled in yet")
        settings = self.model_dump(exclude={"model", "labels"})
        return _digest({**settings, "embedding": EMBEDDING_VERSION})

    @property
    def min_duration(self) -> float:
        """One input window, in seconds: less would need padding with silence."""
        return self.seconds

    def n_frames(self, seconds: float) -> int:
        """The number of frames, which divide the stretch evenly, each about ``step`` long.

        Parameters
        ----------
        seconds : length of the stretch, seconds
        """
        return max(1, round(seconds / self.step))

    def segments(self, duration: float) -> list[tuple[float, float]]:
        """Divide a recording into segments; a short remainder joins the last segment.

        Parameters
        ----------
        duration : length of the recording, seconds

        Returns
        -------
        (start, stop) of each segment, seconds; at least one.
        """
        segments = super().segments(duration)
        return [*segments[:-1], (segments[-1][0], duration)]


def _digest(settings: dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
