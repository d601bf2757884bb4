"""The variables of a prompt, which survive every change of it."""


def problem(old: str, new: str) -> str | None:
    """Return what a change does to the variables of a prompt; None when they are all still there.

    The text is written for the model that made the change.
    """
    raise NotImplementedError(old, new)
