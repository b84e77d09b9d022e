"""Makes a process's traces, logs and metrics: a trace per photo, a line per delivery, counts per agent."""
