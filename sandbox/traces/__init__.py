"""Receives spans over OTLP, keeps them in memory, answers Jaeger's queries and draws a trace as a page."""
