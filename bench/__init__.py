"""The benchmark: `python -m bench`, see README.md. A tool of this repository, no part of the package."""
