"""Use cases, one module for each resource: rules, SQL, bounded looks over SSH."""
