"""The tables and views of a queue, the same in SQLite and PostgreSQL.

- Regions and events are never changed or deleted; the database itself refuses that.
- A dragged edge makes a child of a region: the same sound with other edges. Its parent is always
  the region of the candidate, so a sound has one root and any number of children.
- A verdict is undone by an event of kind ``retract`` whose ``target_uuid`` is the verdict's
  ``uuid``, or the ``batch_uuid`` of all that are undone at once.
- View ``standing``: the latest verdict that is not retracted of each reviewer, sound and species,
  and the latest resolution of each sound and species. View ``current``: its verdicts alone.
- View ``agreed``: one row for each sound and species with a verdict. Its verdict is present or
  absent where an expert resolved it so, or else where all reviewers gave that one verdict. Where
  they differ, or one is unsure, it is NULL: unknown.
"""

from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    event,
    inspect,
)

from antpitta.core.errors import UserError

LAYOUT = 1  # raised when an older version could not read the queue

metadata = MetaData()
_KEY = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers only an INTEGER key by itself
_SCORE = Float(53)


def _words(column: str, *words: str) -> CheckConstraint:
    listed = ", ".join(f"'{word}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=f"known_{column}")


info_table = Table(
    "queue_info",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)
recording_table = Table(
    "recording",
    metadata,
    Column("digest", String, primary_key=True),
    Column("recording_id", String, nullable=False),
    Column("site", String),
    Column("recorded_at", String),  # local time, ISO 8601
    Column("path", String),  # where the sound lay when its candidates were added
)
species_table = Table(
    "species",
    metadata,
    Column("key", String, primary_key=True),  # of core/identity.py
    Column("name", String, nullable=False, unique=True),
)
species_list_table = Table(  # what an event's species_list_digest stands for
    "species_list",
    metadata,
    Column("digest", String, primary_key=True),
    Column("names", String, nullable=False),  # JSON
)
region_table = Table(
    "region",
    metadata,
    Column("id", _KEY, primary_key=True),
    Column("recording_digest", ForeignKey("recording.digest"), nullable=False),
    Column("start", _SCORE, nullable=False),
    Column("end", _SCORE, nullable=False),
    Column("low", _SCORE, nullable=False),
    Column("high", _SCORE, nullable=False),
    Column("parent", ForeignKey("region.id"), index=True),
)
_shape = region_table.c
_box = (_shape.start, _shape.end, _shape.low, _shape.high)
Index(
    "unique_root_region",
    *(_shape.recording_digest, *_box),
    unique=True,
    sqlite_where=_shape.parent.is_(None),
    postgresql_where=_shape.parent.is_(None),
)
Index("unique_child_region", *(_shape.parent, *_box), unique=True)
candidate_table = Table(
    "candidate",
    metadata,
    Column("id", _KEY, primary_key=True),
    Column("region", ForeignKey("region.id"), nullable=False),
    Column("species", String, nullable=False),
    Column("source", String, nullable=False),
    Column("source_digest", String, nullable=False),
    Column("score", _SCORE),
    Column("disagreement", _SCORE),  # of a model's networks; NULL where unknown
    UniqueConstraint("region", "species", "source", "source_digest"),
    Index("candidate_of_species", "species", "score"),
)
detection_table = Table(  # the neighbouring detections that were merged into a candidate
    "detection",
    metadata,
    Column("candidate", ForeignKey("candidate.id"), primary_key=True),
    Column("start", _SCORE, primary_key=True),
    Column("end", _SCORE, primary_key=True),
    Column("score", _SCORE),
)
draw_table = Table(
    "draw",
    metadata,
    Column("id", _KEY, primary_key=True),
    Column("species", String),  # NULL for a draw of several
    Column("model_digest", String, nullable=False),
    Column("purpose", String, nullable=False),
    Column("design", String, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("created_at", String, nullable=False),
    Column("released_at", String),  # NULL: an audit's verdicts train no model
    _words("purpose", "teach", "audit"),
)
draw_item_table = Table(
    "draw_item",
    metadata,
    Column("draw", ForeignKey("draw.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("candidate", ForeignKey("candidate.id"), nullable=False, index=True),
    Column("stratum", String, nullable=False),
    Column("inclusion_p", _SCORE),
    UniqueConstraint("draw", "candidate"),
)
reviewer_table = Table(
    "reviewer",
    metadata,
    Column("id", _KEY, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("role", String, nullable=False),
    _words("role", "reviewer", "expert"),
)
event_table = Table(
    "event",
    metadata,
    Column("seq", _KEY, primary_key=True, autoincrement=True),
    Column("uuid", String, nullable=False, unique=True),
    Column("reviewer", ForeignKey("reviewer.id"), nullable=False),
    Column("server_at", String, nullable=False),  # UTC, ISO 8601
    Column("client_at", String),
    Column("kind", String, nullable=False),
    Column("region", ForeignKey("region.id"), index=True),
    Column("species", String),  # of the list, or *: every species of species_list_digest
    Column("verdict", String),
    Column("reason", String),
    Column("target_uuid", String, index=True),
    Column("batch_uuid", String),
    Column("species_list_digest", ForeignKey("species_list.digest")),
    Column("score_shown", _SCORE),
    Column("ms", Integer),  # from the moment it was shown to the verdict
    _words("kind", "verdict", "listened", "retract", "resolve"),
    _words("verdict", "present", "absent", "unsure"),
    sqlite_autoincrement=True,  # a seq is never given twice
)

_COLUMNS = (
    "seq, uuid, reviewer, server_at, region, root, species, verdict, reason, batch_uuid, "
    "species_list_digest, score_shown, ms"
)
_VIEWS = {
    "standing": """
SELECT * FROM (
  SELECT e.*, COALESCE(r.parent, r.id) AS root, ROW_NUMBER() OVER (
    PARTITION BY e.kind, COALESCE(r.parent, r.id), e.species,
      CASE WHEN e.kind = 'verdict' THEN e.reviewer END
    ORDER BY e.seq DESC) AS newest
  FROM event e JOIN region r ON r.id = e.region
  WHERE e.kind IN ('verdict', 'resolve')
    AND NOT EXISTS (SELECT 1 FROM event u WHERE u.kind = 'retract'
      AND u.reviewer = e.reviewer AND u.target_uuid = e.uuid)
    AND NOT EXISTS (SELECT 1 FROM event u WHERE u.kind = 'retract'
      AND u.reviewer = e.reviewer AND u.target_uuid = e.batch_uuid)
) AS numbered WHERE newest = 1""",
    "current": f"SELECT {_COLUMNS} FROM standing WHERE kind = 'verdict'",
    "agreed": """
SELECT a.root, a.species, e.region,
  CASE WHEN a.resolved IS NOT NULL THEN NULLIF(a.resolved, 'unsure')
       WHEN a.verdicts = 1 THEN NULLIF(a.verdict, 'unsure') END AS verdict,
  CASE WHEN a.resolved IS NOT NULL THEN 'resolved' WHEN a.verdicts > 1 THEN 'conflict'
       WHEN a.verdict = 'unsure' THEN 'unsure' ELSE 'unanimous' END AS status,
  a.reviewers, e.seq, e.species_list_digest
FROM (
  SELECT root, species,
    MAX(CASE WHEN kind = 'resolve' THEN verdict END) AS resolved,
    COUNT(DISTINCT CASE WHEN kind = 'verdict' THEN verdict END) AS verdicts,
    MIN(CASE WHEN kind = 'verdict' THEN verdict END) AS verdict,
    COUNT(CASE WHEN kind = 'verdict' THEN 1 END) AS reviewers,
    COALESCE(MAX(CASE WHEN kind = 'resolve' THEN seq END), MAX(seq)) AS latest
  FROM standing GROUP BY root, species
) AS a JOIN event e ON e.seq = a.latest""",
}
for _name, _select in _VIEWS.items():
    _create = DDL(f'CREATE VIEW "{_name}" AS {_select}')  # type: ignore[no-untyped-call]
    event.listen(metadata, "after_create", _create)

# What a reviewer did, and where, cannot be changed or deleted, whoever writes to the database.
_GUARDS = {
    "sqlite": """
CREATE TRIGGER {table}_never_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, 'rows of {table} are never changed'); END""",
    "postgresql": """
CREATE TRIGGER {table}_never_{verb} BEFORE {verb} ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION never_changed()""",
}
_function = DDL("""
CREATE FUNCTION never_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'rows of %% are never changed', TG_TABLE_NAME; END $$""")  # type: ignore[no-untyped-call]
event.listen(metadata, "after_create", _function.execute_if(dialect="postgresql"))
for _dialect, _statement in _GUARDS.items():
    for _table, _verb in ((t, v) for t in ("event", "region") for v in ("update", "delete")):
        _guard = DDL(_statement.format(table=_table, verb=_verb))  # type: ignore[no-untyped-call]
        event.listen(metadata, "after_create", _guard.execute_if(dialect=_dialect))

_views = MetaData()  # never created: the tables above make the views
_VIEW_COLUMNS = {
    "standing": [*_COLUMNS.split(", "), "kind"],
    "current": _COLUMNS.split(", "),
    "agreed": [
        *("root", "species", "region", "verdict", "status", "reviewers", "seq"),
        "species_list_digest",
    ],
}
standing_view, current_view, agreed_view = (
    Table(name, _views, *(Column(column) for column in columns))
    for name, columns in _VIEW_COLUMNS.items()
)


def check_is_free(connection: Connection, name: str) -> None:
    """Refuse a database whose tables are another program's.

    Parameters
    ----------
    connection : to a database without a queue
    name : of the database, for the message

    Raises
    ------
    UserError
        E_QUEUE_DAMAGED.
    """
    tables = set(inspect(connection).get_table_names())
    if connection.dialect.name != "sqlite":  # a server's database may serve several programs
        tables &= set(metadata.tables)
    if tables:
        what = f"{name}: this database holds tables of another program, such as {min(tables)!r}"
        raise UserError("E_QUEUE_DAMAGED", what, "name another folder or database")
