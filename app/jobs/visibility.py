"""Rules for seeing jobs, and for seeing what they read and wrote."""

from app.auth.access import Access, Verb
from app.db.database import Row


def sees_job(access: Access, row: Row) -> bool:
    """Tell whether a caller may see a job: one of its root, at a place granted for jobs."""
    return row["namespace"].startswith(access.root) and access.allows(
        access.relative(row["namespace"]), Verb.JOBS
    )


def reads_contents(access: Access, row: Row) -> bool:
    """Tell whether a caller who sees a job may also see what it found, proposed, and reported.

    These are data of the job's namespace, so they take `read` there. The key that submitted the
    job sees them too: everything the job reads was granted to that key, or sent by it.
    """
    return row["actor"] == access.actor or access.allows(
        access.relative(row["namespace"]), Verb.READ
    )
