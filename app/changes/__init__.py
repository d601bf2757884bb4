"""Changes that jobs make to items: reconciled with what is there, applied, reviewed, undone."""
