"""Settings, clocks in names, manifests, journals and ensembles, for any values."""

import json
import shutil
import tempfile
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from antpitta.core.config import Recipe, parse_recipe
from antpitta.core.errors import UserError
from antpitta.core.settings import list_settings
from antpitta.core.types import Classes
from antpitta.files.manifest import check_own_files, check_own_folder, replace_files, write_manifest
from antpitta.files.recipes import read_recipe, shipped_recipes
from antpitta.files.recording_metadata import metadata_from_comment, metadata_from_name
from antpitta.predict.journal import Journal, JournalEntry
from antpitta.scores.cells import CellMatrices
from antpitta.scores.ensemble.blend import Blend, fit_blend
from antpitta.scores.ensemble.members import Member


@contextmanager
def new_folder():
    """An empty folder for one example."""
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


# ---- settings

RECIPES = {name: read_recipe(name) for name in shipped_recipes()}
JSON = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
        st.sampled_from([0, -1, 1e308, float("inf"), "masked", "float32", "null"]),
    ),
    lambda item: (
        st.lists(item, max_size=2) | st.dictionaries(st.text(max_size=3), item, max_size=2)
    ),
    max_leaves=3,
)


@st.composite
def changes(draw):
    """The name of a recipe, and a --set of one of its settings to any value."""
    name = draw(st.sampled_from(sorted(RECIPES)))
    keys = [setting.key for setting in list_settings(Recipe, RECIPES[name])]
    return name, f"{draw(st.sampled_from(keys))}={json.dumps(draw(JSON))}"


@settings(max_examples=100)
@given(changes())
def test_any_value_of_a_setting_is_a_finite_recipe_or_a_user_error(drawn):
    name, change = drawn
    try:
        recipe = read_recipe(name, (change,))
    except UserError:
        return
    text = json.dumps(recipe.model_dump(mode="json"), allow_nan=False)
    assert parse_recipe(json.loads(text), "json") == recipe


def outside(text):
    """Values just outside of a range, as `antpitta settings` writes it."""
    words = [word.replace(",", "").replace("_", "") for word in text.split()]
    numbers = [float(word) for word in words if word.replace(".", "").replace("-", "").isdigit()]
    if text.startswith("above"):
        return numbers[0], numbers[0] - 1, *(number + 1 for number in numbers[1:])
    if text.startswith("at least"):
        return (numbers[0] - 1,)
    if " to " in text:
        return numbers[0] - 1, numbers[1] + (0 if "below" in text else 1)
    return ()


def test_every_value_outside_of_the_range_of_a_setting_is_an_error():
    count = 0
    for name, recipe in RECIPES.items():
        for setting in list_settings(Recipe, recipe):
            numbers = {"integer", "number"} & set(setting.kind.replace(",", " ").split())
            values = outside(setting.range)
            values = [int(value) if value == int(value) else value for value in values]
            for value in (*values, "Infinity", "NaN") if numbers else values:
                with pytest.raises(UserError) as error:
                    read_recipe(name, (f"{setting.key}={value}",))
                assert error.value.code == "E_SETTING_VALUE", setting.key
                count += 1
    assert count > 100


def toml(value):
    """A value in TOML; keys that are null are left out."""
    if isinstance(value, dict):
        items = (
            f"{json.dumps(key)} = {toml(item)}" for key, item in value.items() if item is not None
        )
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize("name", sorted(RECIPES))
@settings(max_examples=10)
@given(st.data())
def test_recipes_read_back_from_toml(name, data):
    recipe = RECIPES[name]
    seed = data.draw(st.integers(0, 10**6))
    text = data.draw(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8))
    share = data.draw(st.floats(0, 1))
    table = recipe.model_dump(mode="json")
    table |= {"seed": seed, "description": text}
    table["head"]["zero_shot_weight"] = share
    changed = parse_recipe(json.loads(json.dumps(table)), "json")
    with new_folder() as folder:
        lines = (f"{json.dumps(k)} = {toml(v)}\n" for k, v in table.items() if v is not None)
        (folder / "r.toml").write_text("".join(lines), encoding="utf-8")
        again = read_recipe(str(folder / "r.toml"))
    nulls = {"embedding"} if recipe.embedding else set()  # null is no word of TOML
    assert again.model_dump(exclude=nulls) == changed.model_dump(exclude=nulls)


# ---- clocks and sites in names

TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2049, 12, 31)).map(
    lambda t: t.replace(microsecond=0)
)
PATTERNS = {  # of recorders: name, site, time zone in hours
    "%Y%m%d_%H%M%S.WAV": (None, None),
    "%Y%m%d_%H%M%ST.WAV": (None, None),
    "S4A03895_%Y%m%d_%H%M%S.wav": ("S4A03895", None),
    "S4A03895_%Y%m%d$%H%M%S.wac": ("S4A03895", None),
    "SMM00123_0+1_%Y%m%d_%H%M%S.wav": ("SMM00123", None),
    "24F319055FDF5A3E_%Y%m%d_%H%M%S.WAV": ("24F319055FDF5A3E", None),
    "%Y%m%dT%H%M%S-0400_REC.flac": (None, -4),
    "%Y%m%dT%H%M%S+1000_REC [-18.1-66.2].flac": (None, 10),
    "swift01_%Y%m%d_%H%M%S-0500.wav": ("swift01", -5),
    "5677.%y%m%d%H%M%S.wav": ("5677", None),
    "site-a %Y-%m-%d %H-%M-%S.mp3": ("site-a", None),
    "%Y-%m-%dT%H:%M:%SZ.ogg": (None, 0),
}


@pytest.mark.parametrize("pattern", PATTERNS)
@given(TIMES)
def test_clock_of_a_recorder_reads_back(pattern, moment):
    site, hours = PATTERNS[pattern]
    zone = None if hours is None else timezone(timedelta(hours=hours))
    found = metadata_from_name(moment.strftime(pattern))
    assert found.recorded_at == moment.replace(tzinfo=zone)
    assert found.site == site
    assert found.problems == ()


@given(TIMES.filter(lambda t: 2015 <= t.year < 2050))
def test_hexadecimal_clock_of_an_audiomoth_reads_back_in_utc(moment):
    name = f"{int(moment.replace(tzinfo=UTC).timestamp()):08X}.WAV"
    assume(any(letter in "ABCDEF" for letter in name[:8]))
    assert metadata_from_name(name).recorded_at == moment.replace(tzinfo=UTC)


@given(TIMES, st.integers(-12, 14), st.sampled_from([0, 30, 45]))
def test_comment_of_an_audiomoth_reads_back(moment, hours, minutes):
    sign = -1 if hours < 0 else 1
    zone = f"UTC{hours:+d}" + (f":{minutes:02}" if minutes else "") if hours or minutes else "UTC"
    assume(hours or not minutes)
    text = moment.strftime(f"Recorded at %H:%M:%S %d/%m/%Y ({zone}) by AudioMoth 24F319055FDF")
    found = metadata_from_comment(text)
    if abs(hours) * 60 + minutes > 14 * 60:
        return
    offset = timezone(timedelta(hours=hours, minutes=sign * minutes))
    assert found.recorded_at == moment.replace(tzinfo=offset)
    assert found.recorder == "24F319055FDF"


CLOCKS = st.text(st.sampled_from("0123456789_-T:.$+ZUTC SEh/\\"), max_size=30)


@settings(max_examples=200)
@given(st.one_of(CLOCKS, st.text(max_size=30), CLOCKS.map("20240501".__add__)))
def test_any_name_and_any_comment_is_read_without_an_error(text):
    found = metadata_from_name(text)
    assert found.recorded_at is None or 1900 <= found.recorded_at.year <= 2200
    assert found.site is None or found.site.strip()
    metadata_from_comment(f"Recorded at {text} by AudioMoth")
    metadata_from_comment(text)


# ---- manifests and journals

FILES = st.dictionaries(
    st.from_regex(r"\A[a-c](/[a-c])?\.txt\Z"), st.binary(max_size=3), min_size=1, max_size=4
)


def fill(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def content_of(folder, names):
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


@given(FILES, FILES, FILES)
def test_what_a_user_edited_or_added_is_never_replaced_or_deleted(ours, edits, new):
    with new_folder() as folder:
        fill(folder, ours)
        write_manifest(folder, "run")
        check_own_folder(folder, "run")
        fill(folder, edits)
        changed = {name: data for name, data in edits.items() if ours.get(name) != data}
        kept = content_of(folder, {*ours, *edits})
        refused = any(new.get(name, data) != data for name, data in changed.items())
        with (
            pytest.raises(UserError) if refused else nullcontext(),
            replace_files(folder, "run", complete=True) as unfinished,
        ):
            fill(unfinished, new)
        if refused:
            assert content_of(folder, kept) == kept
            return
        assert content_of(folder, {*ours, *edits, *new}) == {**changed, **new}
        if not set(changed) & set(ours):
            check_own_files(folder, "run")


ENTRY_TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)
NUMBERS = st.floats(0, 1e6)


@st.composite
def entries(draw):
    path = Path("/data", draw(ENTRY_TEXT.filter(lambda t: "/" not in t and t.strip("."))) + ".wav")
    events = draw(
        st.lists(
            st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, ENTRY_TEXT, NUMBERS, ENTRY_TEXT),
            max_size=2,
        )
    )
    presence = draw(st.none() | st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2))
    return JournalEntry(
        *(path, (draw(st.integers(0, 2**40)), draw(st.integers(0, 2**60))), draw(ENTRY_TEXT)),
        *(draw(NUMBERS), draw(st.none() | ENTRY_TEXT), draw(st.none() | ENTRY_TEXT)),
        None if presence is None else np.array(presence, dtype=np.float32),
        tuple(events),
    )


@settings(max_examples=25)
@given(st.lists(entries(), max_size=4, unique_by=lambda entry: entry.path))
def test_journal_gives_back_what_was_added(added):
    with new_folder() as folder:
        with Journal(folder, {"model": "a"}, resume=False) as journal:
            for entry in added:
                journal.add(entry)
        with Journal(folder, {"model": "a"}, resume=True) as journal:
            read = list(journal.read(entry.path for entry in added))
            assert all(journal.has(entry.path, entry.stamp) for entry in added)
            assert not any(journal.has(entry.path, (-2, 0)) for entry in added)
    for entry, again in zip(added, read, strict=True):
        for name in ("path", "stamp", "reason", "duration", "site", "recorded_at", "events"):
            assert getattr(again, name) == getattr(entry, name)
        assert (again.presence is None) == (entry.presence is None)
        if entry.presence is not None:
            assert again.presence.tolist() == entry.presence.tolist()


# ---- ensembles

METHODS = ("mean", "extremized", "rank", "auc", "fit")


@st.composite
def ensembles(draw):
    """Members with scores, and labelled cells; every class is scored by the first member."""
    rows, classes, count = draw(st.tuples(st.integers(2, 6), st.integers(1, 3), st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    members = []
    for i in range(count):
        scores = rng.random((rows, classes)).round(draw(st.integers(1, 3)))
        if i and draw(st.booleans()):
            scores[:, rng.integers(classes)] = np.nan
        members.append(Member(f"m{i}", scores))
    truth = rng.random((rows, classes)) < 0.5
    known = (rng.random((rows, classes)) < 0.8) | truth
    names = [f"r{i}" for i in range(rows)]
    cells = CellMatrices(truth, known, np.zeros(truth.shape), names)
    return members, cells, Classes(tuple("abc"[:classes]))


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=12)
@given(ensembles(), st.randoms(use_true_random=False))
def test_ensemble_is_a_weighted_blend_of_its_members(method, drawn, random):
    members, cells, classes = drawn
    blend = fit_blend(members, cells, method, classes)
    assert blend.weights.sum(axis=0) == pytest.approx(np.ones(len(classes)))
    assert (blend.weights >= 0).all()
    assert (blend.weights[~blend.scored] == 0).all()
    scores = blend.apply(members)
    assert ((scores >= 0) & (scores <= 1)).all()
    shuffled = list(members)
    random.shuffle(shuffled)
    np.testing.assert_array_equal(blend.apply(shuffled), scores)
    again = Blend.from_json(json.loads(json.dumps(blend.to_json())))
    np.testing.assert_array_equal(again.apply(members), scores)


@settings(max_examples=25)
@given(ensembles(), st.randoms(use_true_random=False))
def test_mean_lies_between_its_members_whatever_their_order(drawn, random):
    members, cells, classes = drawn
    scores = fit_blend(members, cells, "mean", classes).apply(members)
    stack = np.stack([member.scores for member in members])
    assert (scores >= np.nanmin(stack, axis=0) - 1e-12).all()
    assert (scores <= np.nanmax(stack, axis=0) + 1e-12).all()
    shuffled = list(members)
    random.shuffle(shuffled)
    again = fit_blend(shuffled, cells, "mean", classes).apply(shuffled)
    np.testing.assert_allclose(again, scores)


@settings(max_examples=25)
@given(ensembles(), st.sampled_from(["mean", "rank", "auc", "fit"]))
def test_ensemble_of_equal_members_keeps_the_order_of_recordings(drawn, method):
    members, cells, classes = drawn
    first = members[0].scores
    copies = [Member(f"m{i}", first) for i in range(3)]
    scores = fit_blend(copies, cells, method, classes).apply(copies)
    for column in range(len(classes)):
        order = np.argsort(first[:, column], kind="stable")
        assert (np.diff(scores[order, column]) >= -1e-9).all()
        if method == "mean":
            np.testing.assert_allclose(scores[:, column], first[:, column])
