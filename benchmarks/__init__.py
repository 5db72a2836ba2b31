"""Benchmarks of accuracy and speed. They are tested, but no part of the installed package."""
