"""The comparison table and sweeps."""
