"""Serves the read side of the pipeline as tools for assistants (Model Context Protocol)."""
