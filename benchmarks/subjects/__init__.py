"""What `benchmarks.handoff` measures: the bare loop and our agent. Each runs in a process of its own."""
