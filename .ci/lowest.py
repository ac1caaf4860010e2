"""Print the oldest versions that pyproject.toml allows, as constraints for pip."""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib  # nothing is installed yet where this runs

EXTRAS = ("cpu", "mqtt", "metrics", "dashboard")


def main() -> None:
    """Turn every ``name>=version`` of the core and of the extras tested into ``name==version``."""
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = sum((extras[name] for name in EXTRAS), project["dependencies"])
    for requirement in dict.fromkeys(wanted):
        bound = re.match(r"([A-Za-z0-9._-]+)>=([0-9.]+)", requirement)
        if bound is None:
            sys.exit(f"pyproject.toml: {requirement!r} has no lower bound")
        print(f"{bound[1]}=={bound[2]}")


if __name__ == "__main__":
    main()
