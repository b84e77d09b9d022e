"""The operator's desk: the `erni` command line, the supervisor, the HTTP gateway."""
