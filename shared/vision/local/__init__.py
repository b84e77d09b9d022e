"""The local analyzer: a small ImageNet classifier and what can be measured on the picture itself."""
