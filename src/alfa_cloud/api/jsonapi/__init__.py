"""JSON:API 1.1: documents, bodies, queries, negotiation, errors. Knows no resource."""
