"""The application's OpenAPI document: FastAPI's, completed for client generators."""
