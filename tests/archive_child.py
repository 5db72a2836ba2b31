"""What the processes of tests/test_journal.py run; they import it by name.

The server that they are forked from has loaded the model already, so that fifty of them take
seconds. Everything after that, journal, prediction and tables, each process does itself.
"""

import os
import time
from functools import cache
from pathlib import Path

import torch

from antpitta.api import predict_to, prediction_job
from antpitta.files.bundle import read_bundle
from antpitta.model.inference import InferenceConfig
from antpitta.predict import pipeline
from antpitta.predict.predictor import Predictor

MODEL = "ANTPITTA_TEST_MODEL"
PAUSE = 0.02  # seconds per file: without it a run ends before it can be killed


@cache
def loaded_predictor():
    bundle = read_bundle(Path(os.environ[MODEL]))
    return Predictor(bundle, InferenceConfig(workers=2))


if MODEL in os.environ:
    torch.set_num_threads(1)  # a second thread would not survive the fork
    loaded_predictor()


def predict_and_log(model, archive, out, log):
    """One run that logs the id of every file it begins with."""
    predict_files = pipeline.predict_files

    def logged(files):
        for file in files:
            with Path(log).open("a") as lines:
                lines.write(f"{file.id}\n")
            time.sleep(PAUSE)
            yield file

    pipeline.predict_files = lambda predictor, files: predict_files(predictor, logged(files))
    if MODEL in os.environ:
        prediction_job.Predictor = lambda bundle, inference, detection: loaded_predictor()
    predict_to(model, [archive], out, formats=("csv", "parquet"), resume=True)
