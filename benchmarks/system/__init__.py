"""Interrupts, progress, processes, locks and the limits of the machine."""
