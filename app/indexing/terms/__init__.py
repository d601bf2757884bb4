"""Text to the terms that keyword search matches: for passages and for queries, in any language."""

from app.indexing.terms.languages import LANGUAGES, check_language
from app.indexing.terms.vocabulary import MAX_QUERY_WORDS, QueryWord, Vocabulary

VERSION: int = 1
"""Raised whenever the same text would give other terms: indexes must then be rebuilt."""

__all__ = [
    "LANGUAGES",
    "MAX_QUERY_WORDS",
    "VERSION",
    "QueryWord",
    "Vocabulary",
    "check_language",
]
