"""Commands, from the request to the practice server."""
