"""What each kind of operation does on a server, as data."""
