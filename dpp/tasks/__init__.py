"""The Luigi tasks of a batch and its files; the only package that imports Luigi."""
