"""What can be wrong with what a person wrote. `config` knows no PKI, so these are its own words; `fleetca.forms` turns them into `ca.errors`."""

from __future__ import annotations


class ConfigurationError(Exception):
    """A settings file, profile or sheet is wrong; `what` names the file and the key.

    Args:
        code: stable identifier, e.g. ``"unknown-setting"``.
        what: one sentence, what is wrong, with file and key.
        why: one sentence, the cause. May be empty.
        fix: what mends it. May be empty.
    """

    def __init__(self, code: str, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.why = why
        self.fix = fix


class SecretUnavailable(ConfigurationError):
    """A secret that the settings refer to cannot be had, or must not be used as it lies there."""
