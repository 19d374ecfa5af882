"""The whole town under a seeded scheduler, with faults at named points; ``python -m tests.simulation --help``."""
