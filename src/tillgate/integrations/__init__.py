"""Drop-in handlers for web frameworks: change the import line, keep the code."""
