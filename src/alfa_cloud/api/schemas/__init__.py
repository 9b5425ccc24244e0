"""The attributes of each resource, as they are read and written."""
