"""Words for people."""


def greet(name: str) -> str:
    """A greeting for one person."""
    return f"Hello, {name}!"
