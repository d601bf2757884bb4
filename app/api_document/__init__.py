"""The application's OpenAPI document: FastAPI's, completed for generators of clients."""
