"""The base install: every command but training runs where the extra `train` is not installed."""

import json
import shutil
import subprocess
import sys
import textwrap

import pandas as pd
import pytest

from antpitta.core.errors import TRAIN_PACKAGES, UserError, requires_train_extra

# A finder that fails, and not None in sys.modules: scipy takes a None there for an imported torch.
BLOCK = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {TRAIN_PACKAGES}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def base_install(*statements):
    """Run statements in a fresh process where no package of the extra can be imported."""
    code = BLOCK + "\n".join(textwrap.dedent(statement) for statement in statements)
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def base_command(*words):
    """Run a command of the base install."""
    return base_install(
        f"sys.argv = ['antpitta', *{[str(word) for word in words]!r}]",
        "from antpitta.cli import main",
        "main()",
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_predict_without_torch_writes_the_tables_of_the_full_install(
    run, simulated, tmp_path, precision
):
    words = (run.model, simulated / "test", "--precision", precision, "-o")
    done = base_command("predict", *words, tmp_path / "base")
    assert done.returncode == 0, done.stderr
    full = subprocess.run(
        [sys.executable, "-m", "antpitta", "predict", *map(str, words), str(tmp_path / "full")],
        check=False,
    )
    assert full.returncode == 0
    for name in ("presence.csv", "events.csv", "quarantine.csv"):
        assert (tmp_path / "base" / name).read_bytes() == (tmp_path / "full" / name).read_bytes()


def test_check_evaluate_and_ensemble_without_torch_give_their_results(run, simulated, tmp_path):
    scores = pd.read_csv(simulated / "test_truth.csv")
    table, out = tmp_path / "table.csv", tmp_path / "out"
    recordings = sorted(pd.read_csv(run.path / "folds.csv")["recording"])
    columns = {name: [0.5] * len(recordings) for name in scores.columns[1:]}
    pd.DataFrame({"recording_id": recordings, **columns}).to_csv(table, index=False)
    done = base_install(f"""
        import antpitta as ap
        data = ap.open_data({str(simulated)!r})
        assert ap.check(data).summary
        assert 0 < ap.evaluate({str(run.path)!r}).macro_ap <= 1
        assert 0 < ap.evaluate({str(simulated / "test_truth.csv")!r},
                               {str(simulated / "test_truth.csv")!r}).lwlrap <= 1
        blended = ap.ensemble([{str(run.path)!r}, {str(table)!r}], {str(out)!r})
        assert len(blended.reports) == 3
    """)
    assert done.returncode == 0, done.stderr
    judged = pd.read_csv(out / "oof_blended.csv")["recording_id"]  # not all recordings have boxes
    assert len(judged) > 5
    assert set(judged) <= set(recordings)


def test_bench_of_a_model_without_torch_measures_every_precision(run, simulated):
    done = base_command("bench", simulated / "test", "--model", run.model, "--minutes", "0.5")
    assert done.returncode == 0, done.stderr
    assert "float32" in done.stdout


def test_match_without_torch_finds_its_templates(simulated, recipe, tmp_path):
    table, out = simulated / "train_tp.csv", tmp_path / "out"
    words = ("match", table, simulated / "train", "-o", out, "--recipe", recipe)
    done = base_command(*words)
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(out / "events.csv")["score"].max() > 0.999


def test_simulate_without_torch_writes_recordings(tmp_path):
    done = base_install(f"""
        from antpitta import api
        plan = api.SimulationConfig(train=2, test=1, seconds=4.0, present=1, absent=1)
        api.simulate_callers({str(tmp_path / "data")!r}, plan)
    """)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "data" / "test").iterdir())) == 1


def test_every_command_without_torch_prints_its_help():
    done = base_install("""
        from typer.main import get_command
        from typer.testing import CliRunner
        from antpitta.cli import app
        for name in get_command(app).commands:
            assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0, name
    """)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [("train",), ("demo", "--out")])
def test_training_without_torch_is_one_line_with_the_remedy(simulated, tmp_path, words):
    out = tmp_path / "out"
    words = (*words, out) if words[0] == "demo" else (*words, simulated, "-o", out)
    done = base_command(*words)
    assert done.returncode == 2
    assert "pip install 'antpitta[train]'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("case", ["sliding", "no networks"])
def test_predict_that_needs_torch_is_one_line_with_the_remedy(run, simulated, tmp_path, case):
    model, options = run.model, ["--inference", "sliding"]
    if case == "no networks":
        model, options = tmp_path / "model", []
        shutil.copytree(run.model, model)
        content = json.loads((model / "bundle.json").read_text())
        files = {name: file for name, file in content["files"].items() if "network" not in name}
        (model / "bundle.json").write_text(json.dumps({**content, "networks": {}, "files": files}))
    done = base_command("predict", model, simulated / "test", "-o", tmp_path / "out", *options)
    assert done.returncode == 2
    assert "pip install 'antpitta[train]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_missing_package_of_the_extra_has_a_code_and_another_one_is_not_explained():
    with pytest.raises(UserError) as error, requires_train_extra("this"):
        raise ModuleNotFoundError("No module named 'timm.models'", name="timm.models")
    assert error.value.code == "E_NEEDS_TRAIN_EXTRA"
    with pytest.raises(ModuleNotFoundError), requires_train_extra("this"):
        raise ModuleNotFoundError("No module named 'numpi'", name="numpi")


def test_packages_of_the_extra_are_not_imported_at_the_top_of_what_predict_loads():
    done = base_install("import antpitta.api.prediction, antpitta.predict.tables, antpitta.cli")
    assert done.returncode == 0, done.stderr
