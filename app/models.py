"""Every table of the service, so that the metadata is complete for migrations and tests."""

from app.auth.models import api_keys
from app.db import metadata
from app.embedding_model import embedding_models
from app.store.models import item_versions, items, namespaces, passages

__all__ = [
    "api_keys",
    "embedding_models",
    "item_versions",
    "items",
    "metadata",
    "namespaces",
    "passages",
]
