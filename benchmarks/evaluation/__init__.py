"""Metrics, intervals, comparisons, calibration and diagnosis of scores."""
