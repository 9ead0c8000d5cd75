"""What is raised later: an error that comes up once something has happened must not hide that it has."""

from collections.abc import Callable


def error_of(action: Callable[[], object]) -> Exception | None:
    """Call an action without arguments; return what it raised, or None. Interrupts pass."""
    try:
        action()
    except Exception as error:
        return error
    return None
