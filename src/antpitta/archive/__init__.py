"""Whole archives."""
