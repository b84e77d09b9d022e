"""A local Microsoft Graph: sites, lists, drives and uploads of SharePoint, spoken over HTTP as v1.0 does."""
