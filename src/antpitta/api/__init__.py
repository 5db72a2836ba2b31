"""antpitta as a library: one function a verb, under the command's name.

A verb's room is loaded when the verb is first asked for: who predicts need not wait for what
training loads.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; the names come from __getattr__
    from antpitta.api.benchmarking import bench_learn, bench_predict, bench_train
    from antpitta.api.blending import Blended, ensemble
    from antpitta.api.data import Checked, check, init, open_data
    from antpitta.api.demonstration import Demonstration, demo
    from antpitta.api.evaluation import Evaluation, evaluate
    from antpitta.api.event_evaluation import evaluate_events
    from antpitta.api.prediction import Prediction, predict_to
    from antpitta.api.scoring import predict, predict_each
    from antpitta.api.simulation import simulate, simulate_callers
    from antpitta.api.training import Trained, train
    from antpitta.bench.predict import PredictBench
    from antpitta.bench.tables import Bench
    from antpitta.bench.train import TrainBench
    from antpitta.core.choices import By, Precision, Scan
    from antpitta.core.voice import Voice
    from antpitta.scores.bootstrap import Interval
    from antpitta.scores.evaluate import Report
    from antpitta.sound.simulate import Simulation

_HOMES = {
    "antpitta.api.benchmarking": ("bench_learn", "bench_predict", "bench_train"),
    "antpitta.api.blending": ("Blended", "ensemble"),
    "antpitta.api.data": ("Checked", "check", "init", "open_data"),
    "antpitta.api.demonstration": ("Demonstration", "demo"),
    "antpitta.api.evaluation": ("Evaluation", "evaluate"),
    "antpitta.api.event_evaluation": ("evaluate_events",),
    "antpitta.api.prediction": ("Prediction", "predict_to"),
    "antpitta.api.scoring": ("predict", "predict_each"),
    "antpitta.api.simulation": ("simulate", "simulate_callers"),
    "antpitta.api.training": ("Trained", "train"),
    "antpitta.bench.predict": ("PredictBench",),
    "antpitta.bench.tables": ("Bench",),
    "antpitta.bench.train": ("TrainBench",),
    "antpitta.core.choices": ("By", "Precision", "Scan"),
    "antpitta.core.voice": ("Voice",),
    "antpitta.scores.bootstrap": ("Interval",),
    "antpitta.scores.evaluate": ("Report",),
    "antpitta.sound.simulate": ("Simulation",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Bench",
    "Blended",
    "By",
    "Checked",
    "Demonstration",
    "Evaluation",
    "Interval",
    "Precision",
    "PredictBench",
    "Prediction",
    "Report",
    "Scan",
    "Simulation",
    "TrainBench",
    "Trained",
    "Voice",
    "bench_learn",
    "bench_predict",
    "bench_train",
    "check",
    "demo",
    "ensemble",
    "evaluate",
    "evaluate_events",
    "init",
    "open_data",
    "predict",
    "predict_each",
    "predict_to",
    "simulate",
    "simulate_callers",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"antpitta.api has no {name!r}")
