"""How predict computes an archive: on this machine or a cluster, in which mode and precision."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

from antpitta.core.config import Executor, InferenceMode, Precision
from antpitta.core.errors import UserError
from antpitta.core.progress import ProgressCallback
from antpitta.files.bundle import Bundle
from antpitta.files.recordings import ListedFile
from antpitta.model.inference import InferenceConfig
from antpitta.predict.cluster import predict_on_ray
from antpitta.predict.detection import DetectionConfig
from antpitta.predict.journal import Journal
from antpitta.predict.pipeline import cpu_count, predict_archive
from antpitta.predict.predictor import Predictor


@dataclass(frozen=True)
class PredictionJob:
    """How an archive is computed: where, in which mode and precision, with how many workers.

    Parameters
    ----------
    executor : ``local`` or ``ray``
    inference : ``full`` or ``sliding``
    precision : ``float32``, ``bfloat16`` or ``int8``
    workers : threads, or actors of a cluster; None for one per core
    address : of a Ray cluster

    Raises
    ------
    UserError
        ``E_OPTION`` for unknown values, and for options that exclude each other.
    """

    executor: Executor
    inference: InferenceMode
    precision: Precision
    workers: int | None
    address: str | None

    def __post_init__(self) -> None:
        check_choice("--executor", self.executor, get_args(Executor))
        check_choice("--inference", self.inference, get_args(InferenceMode))
        check_choice("--precision", self.precision, get_args(Precision))
        if self.executor != "ray" and self.address:
            raise UserError(
                "E_OPTION",
                f"--address {self.address}: names a Ray cluster",
                "add --executor ray, or leave --address out",
            )
        if self.workers is not None and self.workers < 1:
            raise UserError("E_OPTION", f"--workers {self.workers}: is too few", "give 1 or more")

    def key(self, bundle: Bundle) -> dict[str, str]:
        """What an earlier run must have in common with this one to be resumed."""
        return {
            "digest": bundle.digest,
            "inference": self.inference,
            "precision": self.precision,
        }

    def run(
        self,
        bundle: Bundle,
        files: Sequence[ListedFile],
        journal: Journal,
        progress: ProgressCallback,
        detection: DetectionConfig,
    ) -> None:
        """Compute every file that the journal does not have.

        Parameters
        ----------
        bundle : the model
        files : the archive
        journal : open
        progress : called with (files done, files in total, seconds of sound per second)
        detection : what counts as found
        """
        count = _counter(progress, len(files))
        if self.executor == "ray":
            config = InferenceConfig(self.inference, self.precision)
            make = partial(Predictor, inference=config, detection=detection)
            predict_on_ray(
                *(bundle, files, journal, count),
                workers=self.workers,
                address=self.address,
                make=make,
            )
        else:
            config = InferenceConfig(self.inference, self.precision, self.workers or cpu_count())
            predict_archive(Predictor(bundle, config, detection), files, journal, count)


def check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    """Check that an option has one of its values.

    Parameters
    ----------
    option : as the user writes it
    value : what the user gave
    choices : the values that there are

    Raises
    ------
    UserError
        E_OPTION for any other value.
    """
    if value not in choices:
        raise UserError(
            "E_OPTION", f"{option} {value}: is unknown", f"choose from {', '.join(choices)}"
        )


def _counter(progress: ProgressCallback, total: int) -> Callable[[int, float], None]:
    """A function that adds up (files, seconds of sound) and reports the sums."""
    start, done, sound = time.monotonic(), 0, 0.0

    def count(files: int, seconds: float) -> None:
        nonlocal done, sound
        done, sound = done + files, sound + seconds
        progress(done, total, sound / max(time.monotonic() - start, 1e-9))

    return count
