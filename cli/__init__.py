"""The commands ``bead`` and ``town``; alone in seeing the environment, the home directory and the terminal."""
