"""Stand in for a vision model's service: the local analyzer behind OpenAI's chat completions."""
