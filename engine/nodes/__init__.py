"""Nodes: what each is (`spec`), one module for each family, and the list of all (`registry`)."""
