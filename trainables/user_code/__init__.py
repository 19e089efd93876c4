"""Python code that a user wrote, a space for example: how it is imported, which files it is, when a resume runs it."""
