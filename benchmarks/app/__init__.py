"""The page of `app`: videos, results, marks and the comparison table in a browser on this computer.

The page is a thin layer: predict, label, calibrate and report run as child processes, one at a time.
"""
