"""Metrics, intervals, comparison of rows, calibration and diagnosis."""
