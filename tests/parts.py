"""The outside parts that tests use: a missing one is skipped loudly on a desk and fails where `CI` is set."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

SOFTHSM = sorted(Path("/usr/lib").glob("**/libsofthsm2.so"))
POSTGRESQL = sorted(Path("/usr/lib/postgresql").glob("*/bin"))

_PACKAGES = {
    "postgres": "postgresql",
    "certtool": "gnutls-bin",
    "ocsptool": "gnutls-bin",
    "openssl": "openssl",
    "java": "default-jdk-headless",
    "javac": "default-jdk-headless",
    "keytool": "default-jdk-headless",
    "cfssl": "golang-cfssl",
    "softhsm2": "softhsm2",
    "softhsm2-util": "softhsm2",
    "pkcs11-tool": "opensc",
    "swtpm": "swtpm",
    "swtpm_setup": "swtpm-tools",
    "swtpm_localca": "swtpm-tools",
    "tpm2_readpublic": "tpm2-tools",
    "ip": "iproute2",
    "pdftotext": "poppler-utils",
    "pdftoppm": "poppler-utils",
    "zbarimg": "zbar-tools",
    "mksquashfs": "squashfs-tools",
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "apache2": "apache2-bin",
    "stunnel": "stunnel4",
    "mosquitto": "mosquitto",
    "curl": "curl",
    "unshare": "util-linux",
    "systemd-analyze": "systemd",
    "systemd-sysusers": "systemd",
    "systemd-tmpfiles": "systemd",
}


def find(part: str) -> str | None:
    """The path of a tool, or None."""
    if part == "postgres":
        return str(POSTGRESQL[-1]) if POSTGRESQL else None
    if part == "softhsm2":
        return str(SOFTHSM[0]) if SOFTHSM else None
    if part == "root":
        return "root" if os.geteuid() == 0 else None
    return shutil.which(part)


def need(part: str) -> str:
    """The path of a tool (for `postgres`, the folder of its binaries; for `softhsm2`, its library; `root` is being it); skips, or fails in CI, when it is not there."""
    path = find(part)
    if path is None:
        refuse("this runs as root only" if part == "root" else f"{part} is missing: apt-get install {_PACKAGES.get(part, part)}")
    return path


def refuse(message: str) -> NoReturn:
    """Skip the test, or fail it in CI."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
