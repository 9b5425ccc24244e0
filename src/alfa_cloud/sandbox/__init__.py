"""Embedded stores and a practice server, for newcomers and fast tests only."""
