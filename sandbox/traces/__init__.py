"""A small OTLP receiver that keeps spans in memory, answers Jaeger's queries and draws a trace as a page."""
