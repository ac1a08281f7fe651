"""The figures of the documentation and the commands that make them; see README.md."""
