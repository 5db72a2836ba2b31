"""antpitta as a library: one function for each command, under the command's name.

A module is imported when one of its names is first used: ``predict`` does not wait for what
training imports, and works where PyTorch is not installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; the names come from __getattr__
    from antpitta.api.clip_files import clips
    from antpitta.api.data import CheckResult, check, init, open_data
    from antpitta.api.embedding_models import ListedModel, fetch, list_embedding_models
    from antpitta.api.ensembles import EnsembleResult, ensemble
    from antpitta.api.estimates import AuditEvaluation, evaluate_audits, is_queue
    from antpitta.api.evaluation import Evaluation, evaluate, evaluate_events
    from antpitta.api.matching import match
    from antpitta.api.prediction import predict, predict_each, predict_to
    from antpitta.api.prediction_result import Prediction
    from antpitta.api.queue import Candidates, candidates
    from antpitta.api.recipes import settings
    from antpitta.api.review_page import ReviewServer, review
    from antpitta.api.rounds import RoundResult, round
    from antpitta.api.simulation import DemoResult, demo, simulate, simulate_callers
    from antpitta.api.speed import SpeedTest, bench
    from antpitta.api.training import TrainResult, train
    from antpitta.core.config import BlendMethod, InferenceMode, Precision
    from antpitta.core.progress import Progress
    from antpitta.core.settings import Setting
    from antpitta.files.dataset import OpenedDataset
    from antpitta.review.clips import ClipsResult
    from antpitta.scores.bootstrap import Interval
    from antpitta.scores.evaluate import Report
    from antpitta.sound.simulation import SimulationConfig

_MODULES = {
    "antpitta.api.queue": ("Candidates", "candidates"),
    "antpitta.api.clip_files": ("clips",),
    "antpitta.api.speed": ("SpeedTest", "bench"),
    "antpitta.api.data": ("CheckResult", "check", "init", "open_data"),
    "antpitta.api.ensembles": ("EnsembleResult", "ensemble"),
    "antpitta.api.estimates": ("AuditEvaluation", "evaluate_audits", "is_queue"),
    "antpitta.api.evaluation": ("Evaluation", "evaluate", "evaluate_events"),
    "antpitta.api.embedding_models": ("ListedModel", "fetch", "list_embedding_models"),
    "antpitta.api.matching": ("match",),
    "antpitta.api.prediction": ("predict", "predict_each", "predict_to"),
    "antpitta.api.prediction_result": ("Prediction",),
    "antpitta.api.recipes": ("settings",),
    "antpitta.api.review_page": ("ReviewServer", "review"),
    "antpitta.api.rounds": ("RoundResult", "round"),
    "antpitta.api.simulation": ("DemoResult", "demo", "simulate", "simulate_callers"),
    "antpitta.api.training": ("TrainResult", "train"),
    "antpitta.core.config": ("BlendMethod", "InferenceMode", "Precision"),
    "antpitta.core.progress": ("Progress",),
    "antpitta.core.settings": ("Setting",),
    "antpitta.files.dataset": ("OpenedDataset",),
    "antpitta.review.clips": ("ClipsResult",),
    "antpitta.scores.bootstrap": ("Interval",),
    "antpitta.scores.evaluate": ("Report",),
    "antpitta.sound.simulation": ("SimulationConfig",),
}
_MODULE = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AuditEvaluation",
    "BlendMethod",
    "Candidates",
    "CheckResult",
    "ClipsResult",
    "DemoResult",
    "EnsembleResult",
    "Evaluation",
    "InferenceMode",
    "Interval",
    "ListedModel",
    "OpenedDataset",
    "Precision",
    "Prediction",
    "Progress",
    "Report",
    "ReviewServer",
    "RoundResult",
    "Setting",
    "SimulationConfig",
    "SpeedTest",
    "TrainResult",
    "bench",
    "candidates",
    "check",
    "clips",
    "demo",
    "ensemble",
    "evaluate",
    "evaluate_audits",
    "evaluate_events",
    "fetch",
    "init",
    "is_queue",
    "list_embedding_models",
    "match",
    "open_data",
    "predict",
    "predict_each",
    "predict_to",
    "review",
    "round",
    "settings",
    "simulate",
    "simulate_callers",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE:
        return getattr(import_module(_MODULE[name]), name)
    raise AttributeError(f"antpitta.api has no {name!r}")


def __dir__() -> list[str]:
    return __all__
