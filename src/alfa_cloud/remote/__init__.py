"""Servers over SSH: connections, commands, files, and the tools that live there."""
