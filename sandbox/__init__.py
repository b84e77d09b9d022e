"""What stands in for real services on a laptop and in tests: SharePoint, vision, a trace collector."""
