"""Alfa Cloud: laboratories' private clouds, one container for each client, on a fleet of servers."""
