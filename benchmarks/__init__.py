"""What the performance claims are made of: ``make bench``, or ``make bench ARGS=--json``."""
