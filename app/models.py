"""Every table of the service, so that the metadata is complete for migrations and tests."""

from app.auth.models import api_keys
from app.db import metadata
from app.passage_index import passage_indexes
from app.store.models import item_usage, item_versions, items, namespaces, passages, terms

__all__ = [
    "api_keys",
    "item_usage",
    "item_versions",
    "items",
    "metadata",
    "namespaces",
    "passage_indexes",
    "passages",
    "terms",
]
