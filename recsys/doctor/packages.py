"""Whether Python and the installed packages are those that the project asks for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, metadata, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from recsys.doctor.finding import Finding

PROJECT = "recsys"


def declared_requirements(project: str = PROJECT) -> tuple[str, list[str]]:
    """The Python versions and the packages that an installed project's metadata asks for."""
    found = metadata(project)
    return found["Requires-Python"] or "", found.get_all("Requires-Dist") or []


def check_python(running: str, needed: str) -> Finding:
    """Whether Python `running`, such as 3.11.7, is one of those `needed`, such as >=3.11."""
    if SpecifierSet(needed).contains(running):
        return Finding("Python", "ok", running)
    advice = f"make the environment with Python {needed}"
    return Finding("Python", "fault", f"{running}, needed is {needed}", advice)


def check_packages(requirements: Sequence[str], extra: str = "") -> Finding:
    """Whether what `extra` adds to the requirements is installed; "" is what all need.

    A missing package of an extra is a warning, as a machine may do without that part; one of the
    wrong version is a fault.
    """
    asked = _asked(requirements, extra)
    faults = [told for told in map(_mismatch, asked) if told]
    missing = [requirement.name for requirement in asked if not _installed(requirement.name)]
    check = f"packages of the extra '{extra}'" if extra else "packages"
    if not faults and not missing:
        return Finding(check, "ok", f"{len(asked)} as asked for")
    told = [*faults, *(f"{name} is missing" for name in missing)]
    advice = f"pip install -c constraints.txt '{PROJECT}{f'[{extra}]' if extra else ''}'"
    lacks_a_part = extra and not faults
    return Finding(check, "warning" if lacks_a_part else "fault", "; ".join(told), advice)


def _asked(requirements: Sequence[str], extra: str) -> list[Requirement]:
    """Those that count for `extra` alone, with what it takes over from other extras."""
    found = []
    for requirement in map(Requirement, requirements):
        marker = requirement.marker
        always = marker is None or marker.evaluate({"extra": ""})
        if always != (extra == "") or not (marker is None or marker.evaluate({"extra": extra})):
            continue
        if requirement.name == PROJECT:
            found += [
                r for other in sorted(requirement.extras) for r in _asked(requirements, other)
            ]
        else:
            found.append(requirement)
    return found


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _mismatch(requirement: Requirement) -> str | None:
    installed = _installed(requirement.name)
    # Builds are named by a local part, such as 2.13.0+cpu, which no requirement speaks of.
    if installed is None or requirement.specifier.contains(installed, prereleases=True):
        return None
    return f"{requirement.name} is {installed}, needed is {requirement.specifier}"
