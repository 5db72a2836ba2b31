"""Data types, time grid, settings, errors and progress; it opens no file."""
