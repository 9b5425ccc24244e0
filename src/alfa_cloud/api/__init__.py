"""The HTTP interface: doors, JSON:API documents, endpoints."""
