"""SharePoint through Microsoft Graph: one client, libraries and their columns, files, fields, listings."""
