"""One word per idea: replaced names stay gone, codes are listed once, docstrings are whole.

The tables below give each replaced name and the name that stands for it now.
"""

import ast
import inspect
import re
import tomllib
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import typer

from antpitta.cli import app
from antpitta.core import config
from antpitta.core.errors import CODES
from benchmarks import learn, match, predict, review, rounds, train

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "antpitta"
APPS = (app, learn.app, match.app, predict.app, review.app, rounds.app, train.app)
BENCHMARKS = ROOT / "benchmarks"
FILES = sorted([*PACKAGE.rglob("*.py"), *BENCHMARKS.rglob("*.py")])
TOML_FILES = sorted([*PACKAGE.rglob("*.toml"), *BENCHMARKS.rglob("*.toml")])

PACKAGES = {
    "net": "model",
    "learn": "train",
    "archive": "predict",
    "bench": "benchmarks/ at the root",
}
MODULES = {
    "api/means": "api/prediction",
    "api/story": "api/run_report",
    "core/drawings": "core/features",
    "core/voice": "core/progress",
    "files/distinct": "short_names",
    "files/doctor": "files/checks",
    "files/names": "files/species_names",
    "files/parcel": "bundle_bytes",
    "files/places": "files/deployments",
    "files/riff": "files/wav_chunks",
    "files/scapes": "files/simulated",
    "files/soundness": "files/audio_checks",
    "files/stems": "files/recording_metadata",
    "model/drawing": "model/features",
    "model/engines": "model/inference",
    "model/folding": "model/fusion",
    "model/listening": "predict/pipeline",
    "model/seams": "model/features",
    "predict/choir": "predict/predictor",
    "predict/listening": "predict/pipeline",
    "report/lessons": "report/tables",
    "report/story": "report/results",
    "scores/blend": "scores/ensemble",
    "scores/members": "scores/ensemble",
    "scores/mixture": "scores/prevalence",
    "scores/ranks": "scores/ensemble",
    "scores/weights": "scores/ensemble",
    "sound/voices": "sound/species_sources",
    "train/engine": "train/compute",
    "train/ready": "train/device_batch",
}
CLASSES = {
    "Bank": "FeatureCache",
    "Choir": "Predictor",
    "Cuts": "WindowIndex",
    "Drawing": "FeatureConfig",
    "Engine": "InferenceBackend, ComputeConfig or Executor",
    "Entry": "JournalEntry",
    "Exam": "TestSet",
    "Front": "MelConfig",
    "Heard": "ModelPrediction or OutOfFoldScores",
    "Hearing": "InferenceConfig",
    "Holes": "SpecMask",
    "Keeper": "CheckpointStore",
    "KeptPen": "CachedFeatureExtractor",
    "Lanes": "ParallelFolds",
    "Lesson": "PseudoLabels",
    "Level": "MaskedBatchNorm1d",
    "Listed": "ListedFile",
    "Listened": "FileResult",
    "Listener": "ModelPredictor",
    "Material": "TrainingData",
    "Means": "PredictionJob",
    "Mix": "Mixup",
    "Mould": "ModelTemplate",
    "Pass": "TrainStep",
    "Patient": "ThrottledStore",
    "Pen": "FeatureExtractor",
    "Picture": "Features",
    "Pictures": "FeatureStore",
    "Piece": "Segment",
    "Place": "ProcessRank or Deployment",
    "Reader": "ReadOnlyStore",
    "Ready": "DeviceBatch",
    "Shell": "CompiledModel",
    "Story": "RunReport",
    "Tick": "ProgressCallback",
    "Told": "LossTargets",
    "UserMistake": "UserError",
    "Voice": "SpeciesSource",
    "Word": "ZeroShotBlend",
    "_Opened": "see the docstring of predict/pipeline",
    "_Outcome": "see the docstring of predict/pipeline",
    "_Recording": "CapturedGraph",
    "_Task": "see the docstring of predict/pipeline",
}
IDENTIFIERS = {  # functions, parameters, locals, attributes and fields, in all layers
    "SINGLE_FILE": "PROCESS_LOCK",
    "alike": "outputs_match",
    "bank": "feature_cache",
    "choir": "predictor",
    "complain": "reject_rows",
    "cuts": "windows",
    "deal": "split_seed",
    "deal_folds": "assign_folds",
    "dealt": "assigned",
    "drawing": "feature_config",
    "exam": "test_set",
    "folded": "fuse_conv_bn",
    "folding": "fuse_conv_bn",
    "gather_material": "build_training_data",
    "hear": "predict",
    "heard": "labels",
    "hearing": "inference_config",
    "heights": "frequency_pooling",
    "keeper": "checkpoint_store",
    "knows": "class_map",
    "lanes": "parallel_folds",
    "last_mixup": "manifold_mixup",
    "lay_out": "prepare_batch",
    "lend": "zero_shot",
    "lesson": "pseudo_labels",
    "listen_to": "predict_files",
    "listening": "session",
    "material": "training_data",
    "mould": "model_template",
    "pen": "feature_extractor",
    "piece": "segment",
    "rasterise": "one builder of targets",
    "reach": "class_band_limits",
    "say": "message",
    "seams": "stitch_segments",
    "see": "extract_features",
    "seen": "features",
    "settle": "a name for what it does",
    "settled": "a name for what it holds",
    "shell": "compiled_model",
    "shells": "compiled_models",
    "sounding": "valid_mask",
    "story": "run_report",
    "taught": "pseudo_labels",
    "tell": "collect_report",
    "tick": "progress",
    "touched": "overlapping_frames",
    "trust": "zero_shot_weight",
    "voice": "progress or species_source",
    "yardstick": "baseline",
    "yardsticks": "baselines",
}
VALUES = {"parameter", "local", "attribute"}
# Common words that only one sense of was replaced: (old, new, layers, kinds of names).
COMMON_WORDS = (
    ("centre", "background_subtraction", {"core", "model", "train"}, VALUES),
    ("front", "features", {"core", "sound", "model", "train", "predict", "benchmarks"}, VALUES),
    ("holes", "spec_mask", {"sound", "model", "train"}, VALUES),
    ("image", "segment", {"core", "sound", "model", "train", "predict"}, VALUES | {"function"}),
    ("join", "stitch_segments", {"model", "predict"}, {"function"}),
    ("judged", "parse_verdicts", {"files"}, {"function"}),
    ("known", "class_map", {"core", "files", "model", "train"}, {"parameter", "attribute"}),
    ("lay", "apply", {"sound", "model", "train"}, {"function"}),
    ("level", "normalizer", {"model"}, VALUES),
    ("pictures", "features", {"core", "sound", "model", "train", "predict"}, VALUES),
    ("rows", "frames_by_centre", {"sound"}, {"function"}),
    ("smooth", "smoothing_frames", {"core", "scores", "model", "train"}, VALUES),
    ("spans", "smoothing_frames", {"core", "model", "train"}, VALUES),
    ("whole", "global_targets", {"model", "train"}, VALUES | {"function"}),
    ("word", "zero_shot", {"model", "train"}, VALUES),
    ("write_table", "nothing: only tests called it", {"files"}, {"function"}),
)
PLACEHOLDERS = ("one", "said", "found", "mine", "told", "some")  # name what a local holds
SETTINGS = {  # keys of recipes and tables of variants, fields of settings classes
    **IDENTIFIERS,
    **{old: new for old, new, _, kinds in COMMON_WORDS if "attribute" in kinds},
    "accumulate": "grad_accum_steps",
    "bands": "n_mels",
    "batch": "batch_size",
    "by": "method",
    "decay": "weight_decay",
    "high": "fmax",
    "hop": "hop_length",
    "low": "fmin",
    "network": "backbone and head",
    "range": "top_db",
    "rate": "lr",
    "reduce": "reduction",
    "says": "description",
    "scan": "inference",
    "scan_overlap": "inference_overlap",
    "start": "init_from",
}
STAGES = {"whole": "unknown_as_absent", "taught": "pseudo"}
OPTIONS = {
    "--by": "--method",
    "--engine": "--executor",
    "--lanes": "--parallel-folds",
    "--places": "--deployments",
    "--scan": "--inference",
    "--tune": "--cudnn-benchmark",
    "--yardstick": "--baseline",
}
CHOICES = {  # values of settings and options
    "32-true": "float32",
    "bf16": "bfloat16",
    "bf16-mixed": "bfloat16",
    "both": "balanced",
    "cells": "mean",
    "f32": "float32",
    "sharp": "extremized",
    "whole": "full",
    "windows": "sliding",
}
STRINGS = {  # columns, keys of files, stages: as whole string constants
    "heard": "labels",
    "last_mixup": "manifold_mixup",
    "lesson": "pseudo",
    "says": "description",
    "sharp": "extremized",
    "taught": "pseudo",
    "untaught": "zero-shot",
    "whole": "unknown_as_absent",
    "yardstick": "baseline",
}

PHRASES = (
    re.compile(  # of a private dialect; the log and the changelog are records and may keep them
        r"\b(is|are|was|were|be|been|being) (told|heard|taught|said of|spoken of)\b"
        r"|\b(yardstick|choir|lesson|stranger|mould|exam|wccn)s?\b"
        r"|\b(hears|pasted|taught|untaught|seams?|unheard)\b"
        r"|\bas (it|they) comes?\b|\bhalf a say\b|\bsomebody listened\b|\bfloor plan\b"
        r"|\bwhat (it|he|she|who) says of\b|\bword of\b|\bgo(es)? on from\b|\bmay go on\b",
        flags=re.I,
    )
)
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name != "log.md"),
]

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
every_toml = pytest.mark.parametrize(
    "path", TOML_FILES, ids=lambda path: str(path.relative_to(ROOT))
)


@cache
def parse(path):
    return ast.parse(path.read_text())


def module_name(path):
    base = PACKAGE.parent if path.is_relative_to(PACKAGE) else ROOT
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(path):
    if path.is_relative_to(BENCHMARKS):
        return "benchmarks"
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def defined_names(tree):
    """(kind, name, line) of everything that a file names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield "class", node.name, node.lineno
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    yield "attribute", field.target.id, field.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield "function", node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield "parameter", node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield "local", node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield "attribute", node.attr, node.lineno
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield "local", node.name, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield "local", node.asname, node.lineno
        elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
            yield "local", node.name, node.lineno


def replaced_names(path):
    """(line, old name, new name) of the replaced names that a file defines."""
    layer = layer_of(path)
    common = {
        (old, kind): new for old, new, layers, kinds in COMMON_WORDS if layer in layers
        for kind in kinds
    }  # fmt: skip
    for kind, name, line in defined_names(parse(path)):
        plain = name.lstrip("_")
        if kind == "class":
            new = CLASSES.get(name)
        elif kind in ("parameter", "local") and name in PLACEHOLDERS:
            new = "a name for what it holds"
        else:
            new = IDENTIFIERS.get(plain) or common.get((plain, kind))
        if new:
            yield line, name, new


def toml_keys(table):
    for key, value in table.items():
        yield key, value
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from toml_keys(inner)


def options(cli):
    commands = [typer.main.get_command(cli)]
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        for parameter in command.params:
            yield from (*parameter.opts, *parameter.secondary_opts)


@every_file
def test_file_defines_no_replaced_name(path):
    assert [f"line {line}: {old} -> {new}" for line, old, new in replaced_names(path)] == []


@every_file
def test_file_has_no_replaced_string(path):
    constants = [
        f"line {node.lineno}: {node.value!r} -> {STRINGS[node.value]}"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in STRINGS
    ]
    assert constants == []


def test_packages_and_modules_have_the_new_names():
    packages = {path.parent.relative_to(PACKAGE).parts[0] for path in PACKAGE.glob("*/*.py")}
    assert packages & set(PACKAGES) == set()
    modules = {str(path.relative_to(PACKAGE).with_suffix("")) for path in PACKAGE.rglob("*.py")}
    assert modules & set(MODULES) == set()


def test_a_class_name_is_defined_once():
    places = defaultdict(list)
    for path in FILES:
        for kind, name, line in defined_names(parse(path)):
            if kind == "class":
                places[name].append(f"{path.relative_to(ROOT)}:{line}")
    assert {name: lines for name, lines in places.items() if len(lines) > 1} == {}


@pytest.mark.parametrize("module", ["config", "features", "stages"])
def test_settings_classes_have_no_replaced_field(module):
    fields = [
        f"{node.name}.{field.target.id}"
        for node in ast.walk(parse(PACKAGE / "core" / f"{module}.py"))
        if isinstance(node, ast.ClassDef)
        for field in node.body
        if isinstance(field, ast.AnnAssign) and field.target.id in SETTINGS
    ]
    assert fields == []


@every_toml
def test_toml_file_has_no_replaced_key_stage_or_choice(path):
    table = tomllib.loads(path.read_text())
    assert {key for key, _ in toml_keys(table)} & set(SETTINGS) == set()
    stages = {stage["name"] for stage in table.get("stages", [])}
    variants = table.get("variants", [])
    rows = {row for variant in variants for row in variant.get("rows", [])}
    assert (stages | rows) & set(STAGES) == set()
    changes = {
        key for variant in variants for change in variant.get("set", ())
        for key in change.split("=")[0].split(".")
    }  # fmt: skip
    assert changes & (set(SETTINGS) | set(STAGES)) == set()
    chosen = {
        value
        for key, value in toml_keys(table)
        if key in ("method", "reduction", "precision") and isinstance(value, str)
    }
    assert chosen & set(CHOICES) == set()


@pytest.mark.parametrize("cli", APPS)
def test_commands_have_no_replaced_option(cli):
    assert set(options(cli)) & set(OPTIONS) == set()


@pytest.mark.parametrize("name", ["BlendMethod", "Executor", "InferenceMode", "Precision"])
def test_choices_have_no_replaced_value(name):
    choices = get_args(getattr(config, name))
    assert choices
    assert set(choices) & set(CHOICES) == set()


def used_codes(path):
    """(line, code) of each error and finding; None where the code is not a constant."""
    for node in ast.walk(parse(path)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", None))
        given = [*node.args[:1], *(word.value for word in node.keywords if word.arg == "code")]
        for code in given[:1]:
            if isinstance(code, ast.Constant) and re.fullmatch("[EW]_[A-Z0-9_]+", str(code.value)):
                yield node.lineno, code.value
            elif name in ("UserError", "Finding"):
                yield node.lineno, None


@every_file
def test_codes_of_errors_and_findings_are_listed(path):
    unknown = [(line, code) for line, code in used_codes(path) if code and code not in CODES]
    assert unknown == []


def test_every_listed_code_is_used():
    constants = Counter(
        node.value
        for path in FILES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    # Once in the list itself, and once where it is used.
    assert [code for code in CODES if constants[code] < 2] == []
    assert "E_TODO" not in CODES


def test_every_listed_code_is_listed_once_and_has_a_meaning():
    (table,) = [
        node.value
        for node in parse(PACKAGE / "core" / "errors.py").body
        if isinstance(node, ast.AnnAssign) and node.target.id == "CODES"
    ]
    codes = [key.value for key in table.keys]
    assert [code for code, count in Counter(codes).items() if count > 1] == []
    assert [code for code in CODES if not re.fullmatch("[EW]_[A-Z0-9_]+", code)] == []
    assert all(meaning.strip() for meaning in CODES.values())


@cache
def commands():
    """(module, name) of the functions behind commands: their docstrings are shown by --help."""
    apps, functions = list(APPS), set()
    while apps:
        cli = apps.pop()
        apps += [group.typer_instance for group in cli.registered_groups]
        callbacks = [command.callback for command in cli.registered_commands]
        if cli.registered_callback:
            callbacks.append(cli.registered_callback.callback)
        functions |= {(callback.__module__, callback.__name__) for callback in callbacks}
    return functions


def public_definitions(path):
    """The public functions and classes at the top of a module, without commands."""
    for node in parse(path).body:
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        if not isinstance(node, kinds) or node.name.startswith("_"):
            continue
        if (module_name(path), node.name) not in commands():
            yield node


def section(docstring, title):
    """The text of a numpydoc section; None where there is none."""
    pattern = rf"^{title}\n-{{{len(title)}}}\n(.*?)(?=^[A-Z][A-Za-z ]+\n-+\n|\Z)"
    match = re.search(pattern, docstring, flags=re.S | re.M)
    return match.group(1) if match else None


def missing_from_docstring(node):
    """What a numpydoc docstring of a function lacks."""
    docstring = inspect.cleandoc(ast.get_docstring(node) or "")
    if not docstring:
        return ["a docstring"]
    if isinstance(node, ast.ClassDef):
        return []
    arguments = node.args
    names = [
        argument.arg
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    ]
    names += [argument.arg for argument in (arguments.vararg, arguments.kwarg) if argument]
    missing = []
    if names:
        text = section(docstring, "Parameters")
        documented = {
            name.strip().lstrip("*")
            for line in (text or "").splitlines()
            if line and not line.startswith(" ")
            for name in line.split(" :")[0].split(",")
        }
        missing += [f"parameter {name}" for name in names if name not in documented]
    returns = node.returns
    returns_nothing = returns is None or ast.unparse(returns) in ("None", "NoReturn", "Never")
    if not returns_nothing and names:
        results = (section(docstring, "Returns"), section(docstring, "Yields"))
        missing += [] if any(results) else ["Returns"]
    return missing


@every_file
def test_public_functions_and_classes_have_whole_docstrings(path):
    missing = {
        f"line {node.lineno}: {node.name}": lacks
        for node in public_definitions(path)
        if (lacks := missing_from_docstring(node))
    }
    assert missing == {}


@pytest.mark.parametrize(
    "path", [*PAGES, *FILES, *TOML_FILES], ids=lambda path: str(path.relative_to(ROOT))
)
def test_text_has_no_private_phrase(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    phrases = [
        f"line {number}: {match.group()}"
        for number, line in enumerate(lines, start=1)
        for match in PHRASES.finditer(line)
    ]
    assert phrases == []
