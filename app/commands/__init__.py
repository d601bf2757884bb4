"""The commands of `memoryd`, each in a module that is imported when it is run."""
