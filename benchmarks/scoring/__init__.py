"""Scores: predicted, read and written, fused, smoothed, submitted."""
