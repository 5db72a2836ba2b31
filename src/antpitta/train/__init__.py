"""Folds, the training loop, pseudo labels, stages."""
