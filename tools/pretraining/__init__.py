"""Data, networks and loop of the pretrainings, `tools.pretrain_*`."""
