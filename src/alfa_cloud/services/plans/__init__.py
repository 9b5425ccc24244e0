"""What an operation will do, from the rows as they are now: its playbook, and where it runs."""
