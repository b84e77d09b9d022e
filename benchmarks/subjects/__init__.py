"""Holds what `benchmarks.handoff` measures: the bare loop and our agent, each in a process of its own."""
