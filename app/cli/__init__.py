"""The commands of `memoryd`, each in a module that is imported only to run it."""
