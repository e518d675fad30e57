"""The sections of a study, typed: one module per topic.

Every key has a description with its unit: the JSON schema, ``docs/configuration.md`` and the
messages about wrong settings all come from here.
"""
