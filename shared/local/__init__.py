"""The embedded defaults: what `erni demo` and `erni up` run when no real service is configured."""
