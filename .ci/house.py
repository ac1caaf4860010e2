"""Prints how the package is cut; fails on import circles and on public class names given twice.

python .ci/house.py
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "tinysaver_edge"
SMALL, LARGE, FULL, MANY = 100, 500, 16, 320  # 300, and 20 for what goes beyond one machine


def modules() -> dict[str, Path]:
    """Return the files of the package by the name that an import gives them."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, names: Mapping[str, Path]) -> Iterator[str]:
    """Yield what a file imports of the package, in functions and for types as well."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in names else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of files that import each other, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in imports[name]:
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    sys.setrecursionlimit(10_000)
    for name in imports:
        if name not in index:
            visit(name)
    return found


def twice(names: Mapping[str, Path]) -> dict[str, list[str]]:
    """Return the public classes that share their name with another, and where they stand."""
    places = defaultdict(list)
    for name, path in names.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name.removeprefix(f"{PACKAGE}."))
    return {name: where for name, where in places.items() if len(where) > 1}


def main() -> int:
    """Print the figures; 1 where there is a circle or a name stands for two things."""
    names = modules()
    imports = {
        name: set(imported(path, names)) & names.keys() - {name} for name, path in names.items()
    }
    lines = {
        name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in names.items()
    }
    folders = Counter(path.parent.relative_to(ROOT).as_posix() for path in names.values())
    importers = Counter(other for ours in imports.values() for other in ours)
    print(
        f"{len(names)} files (at most {MANY}), {sum(lines.values()):,} lines, "
        f"median {median(lines.values()):g}"
    )
    for folder, count in sorted(folders.items()):
        if count > FULL and folder != f"{PACKAGE}/cli":
            print(f"{folder}: {count} files (at most {FULL})")
    for name, path in names.items():
        if lines[name] > LARGE:
            print(f"{name}: {lines[name]} lines (at most {LARGE})")
        if lines[name] < SMALL and importers[name] == 1 and path.name != "__init__.py":
            print(f"{name}: {lines[name]} lines, one importer")
    wrong = 0
    for group in circles(imports):
        print(f"import circle: {', '.join(group)}", file=sys.stderr)
        wrong = 1
    for name, places in twice(names).items():
        print(f"class {name} twice: {', '.join(places)}", file=sys.stderr)
        wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
