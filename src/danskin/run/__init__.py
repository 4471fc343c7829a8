"""Everything that touches disk, processes or the clock: config, run folders, checkpoints, reports."""
