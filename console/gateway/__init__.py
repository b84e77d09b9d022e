"""The HTTP side of the pipeline: publishing and looking under `/v1`, health, metrics and their targets."""
