"""The command line: train, look at, compare and export runs; and what makes this project's own evidence."""

import importlib
import sys

from tyro.extras import SubcommandApp

OWN = ("train", "evaluate", "diagnose", "compare", "watch", "export", "doctor", "fetch")
MEASURING = ("champ", "premise", "solutions", "clip")
EVIDENCE = ("study", "show", "walkthrough", "sandbox", "methods", "results")
MODULES = {name: f"opsd_lab.commands.{name}" for name in OWN}
MODULES |= dict.fromkeys(MEASURING, "opsd_lab.commands.measuring") | dict.fromkeys(EVIDENCE, "opsd_lab.commands.evidence")


def main() -> None:
    """Run the command line: exit code 2 and one line for what somebody asked wrongly."""
    asked = [name for name in sys.argv[1:2] if name in MODULES]
    app = SubcommandApp()
    for name in asked or MODULES:  # what is not asked for is not imported, which takes seconds
        app.command(getattr(importlib.import_module(MODULES[name]), name))
    try:
        app.cli(prog="opsd-lab", description=__doc__)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"opsd-lab: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
