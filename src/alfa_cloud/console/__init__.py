"""The API from a terminal or a script: tables for people, JSON for programs."""
