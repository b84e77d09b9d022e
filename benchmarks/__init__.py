"""What produces every performance figure of docs/performance.md."""
