"""Benchmarks: what was learnt and how fast, in tables that can be made again."""
