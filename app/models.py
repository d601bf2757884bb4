"""Every table of the service, so that the metadata is complete for migrations and tests."""

from app.auth.repository import api_keys
from app.capability_repository import model_capabilities
from app.changes.repository import job_changes
from app.consolidation.repository import consolidation_marks
from app.db.idempotency import idempotent_requests
from app.db.tables import metadata
from app.indexing.formats import passage_indexes
from app.jobs.models import job_events, job_replies, jobs, model_calls, workers
from app.managers.repository import managers
from app.prompts.repository import prompt_labels, prompt_versions, prompts
from app.store.models import item_usage, item_versions, items, namespaces, passages, terms
from app.threads.repository import thread_messages, threads

__all__ = [
    "api_keys",
    "consolidation_marks",
    "idempotent_requests",
    "item_usage",
    "item_versions",
    "items",
    "job_changes",
    "job_events",
    "job_replies",
    "jobs",
    "managers",
    "metadata",
    "model_calls",
    "model_capabilities",
    "namespaces",
    "passage_indexes",
    "passages",
    "prompt_labels",
    "prompt_versions",
    "prompts",
    "terms",
    "thread_messages",
    "threads",
    "workers",
]
