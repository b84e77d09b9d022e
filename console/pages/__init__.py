"""The web console: pages for people who watch the pipeline and bring photos back."""
