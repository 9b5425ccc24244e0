"""Pages that are written by a real run."""
