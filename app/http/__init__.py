"""HTTP: connections, bodies, problem documents, and the OpenAPI document."""
