"""How the agents sign in to SharePoint: a client secret, a certificate, a workload or a managed identity."""
