"""antpitta as a library: one function a verb, under the command's name."""

from antpitta.api.benchmarking import bench_learn, bench_train
from antpitta.api.blending import Blended, ensemble
from antpitta.api.data import Checked, check, init, open_data
from antpitta.api.demonstration import Demonstration, demo
from antpitta.api.evaluation import Evaluation, evaluate
from antpitta.api.event_evaluation import evaluate_events
from antpitta.api.prediction import Prediction, predict, predict_each, predict_to
from antpitta.api.simulation import simulate, simulate_callers
from antpitta.api.training import Trained, train
from antpitta.bench.tables import Bench
from antpitta.bench.train import TrainBench
from antpitta.learn.stages import Voice
from antpitta.scores.bootstrap import Interval
from antpitta.scores.ensemble import By
from antpitta.scores.evaluate import Report
from antpitta.sound.simulate import Simulation

__all__ = [
    "Bench",
    "Blended",
    "By",
    "Checked",
    "Demonstration",
    "Evaluation",
    "Interval",
    "Prediction",
    "Report",
    "Simulation",
    "TrainBench",
    "Trained",
    "Voice",
    "bench_learn",
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
