"""Runs deliveries between an agent and Redis (the delivery engine): read, handle, settle, take over."""
