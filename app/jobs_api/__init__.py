"""The HTTP API of jobs: every route under `/v1/jobs`."""
