"""The machinery around the agents: streams, retries, telemetry, sessions, photos, SharePoint, vision."""
