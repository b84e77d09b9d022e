"""Traces, logs and metrics of a process: a trace per photo, a JSON line per delivery, numbers by agent."""
