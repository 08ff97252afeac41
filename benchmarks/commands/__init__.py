"""The commands that need no model; each module has `add_arguments(parser)` and `run(args)` and is quick to import."""
