"""The worker: claims operations, runs their playbooks, keeps their journals."""
