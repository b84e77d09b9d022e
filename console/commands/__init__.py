"""The commands of `erni`: one module per group, imported only when it is the one that was typed."""
