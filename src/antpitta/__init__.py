"""antpitta: from a few validated boxes to a species detector for long field recordings."""
