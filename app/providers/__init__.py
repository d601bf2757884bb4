"""Model providers: the only package that imports model SDKs and runtimes."""
