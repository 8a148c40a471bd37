"""Find packages on disk and the licence their own metadata names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path

__all__ = ["Package", "find_packages", "permissive"]

# Names as they stand in classifiers, SPDX expressions and Debian copyright files.
PERMISSIVE = re.compile(
    r"\b(mit|expat|bsd|apache|psf|python software foundation|python-2|isc|mpl|mozilla public|boost|bsl|zlib|"
    r"unlicense|cc0|0bsd|public domain|public-domain|postgresql|hpnd|wordnet|blueoak)",
    re.IGNORECASE,
)
COPYLEFT = re.compile(
    r"\b(a?l?gpl|gnu|affero|sspl|busl|elastic|proprietary|commons clause|nvidia|cc-by-nc)", re.IGNORECASE
)
LICENCE_TEXTS = {
    "MIT": "permission is hereby granted, free of charge",
    "Apache-2.0": "apache license",
    "BSD": "redistribution and use in source and binary forms",
    "MPL-2.0": "mozilla public license",
    "ISC": "permission to use, copy, modify, and",
    "BSL-1.0": "boost software license",
    "Zlib": "this software is provided 'as-is'",
}


@dataclass(frozen=True)
class Package:
    """One package on disk: where it is, and under which licence it may be used."""

    name: str
    version: str
    licence: str
    path: Path
    members: tuple[Path, ...] = field(default=(), repr=False)

    def files(self) -> Iterator[Path]:
        """Its files, in a stable order."""
        found = self.members or (path for path in self.path.rglob("*") if not path.is_symlink())
        yield from sorted(path for path in found if path.is_file())


def permissive(licence: str) -> bool:
    """Whether a licence name or expression allows use without copyleft terms."""
    return bool(PERMISSIVE.search(licence)) and not COPYLEFT.search(licence)


def from_python_metadata(fields: metadata.PackageMetadata | dict[str, str]) -> str:
    """Licence of a Python distribution: the SPDX expression, else classifiers, else the short free text."""
    get_all = getattr(fields, "get_all", None)
    classifiers = [c.rpartition(" :: ")[2] for c in (get_all("Classifier") or []) if c.startswith("License ::")]
    named = [c for c in classifiers if c != "OSI Approved"]
    text = (str(fields.get("License") or "").strip().splitlines() or [""])[0]
    return str(fields.get("License-Expression") or "; ".join(named) or text[:80])


def from_folder(folder: Path) -> tuple[str, str]:
    """Version and licence of an unpacked package, from whichever metadata it carries."""
    if (manifest := folder / "package.json").is_file():
        data = json.loads(manifest.read_text(encoding="utf-8"))
        licence = data.get("license", "")
        return str(data.get("version", "")), str(licence.get("type", "") if isinstance(licence, dict) else licence)
    for path in [folder / "PKG-INFO", *sorted(folder.glob("*.dist-info/METADATA"))]:
        if path.is_file():
            fields = HeaderParser().parsestr(path.read_text(encoding="utf-8", errors="replace"))
            if licence := from_python_metadata(fields):  # type: ignore[arg-type]
                return str(fields.get("Version", "")), licence
    for path in sorted(folder.glob("usr/share/doc/*/copyright")):
        text = path.read_text(encoding="utf-8", errors="replace")
        main = re.search(r"^Files: \*\n(?:.*\n)*?License: *(.+)$", text, re.MULTILINE)
        if main:
            return "", main[1].strip()
        if licence := from_licence_text(text):
            return "", licence
    for pattern in ("LICEN[SC]E*", "COPYING*", "COPYRIGHT*", "license*", "copying*"):
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and (licence := from_licence_text(path.read_text(encoding="utf-8", errors="replace"))):
                return "", licence
    return "", ""


def from_licence_text(text: str) -> str:
    """Name of the licence a licence file contains, empty if unknown or copyleft."""
    words = " ".join(text.lower().split())
    if "gnu general public" in words or "gnu lesser" in words:
        return ""
    return next((name for name, phrase in LICENCE_TEXTS.items() if phrase in words), "")


def find_packages(root: Path) -> list[Package]:
    """Permissively licensed packages under ``root``, sorted by name."""
    packages = []
    if list(root.glob("*.dist-info")):
        for dist in metadata.distributions(path=[str(root)]):
            licence = from_python_metadata(dist.metadata)
            members = tuple(Path(str(dist.locate_file(file))) for file in dist.files or ())
            inside = tuple(path for path in members if path.is_relative_to(root))
            if permissive(licence) and inside:
                packages.append(Package(dist.name, dist.version, licence, root, inside))
    else:
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            version, licence = from_folder(folder)
            if permissive(licence):
                packages.append(Package(folder.name, version, licence, folder))
    return sorted(packages, key=lambda package: package.name)
