"""Rules are pure: importing and using them needs no socket, clock, randomness, environment or file.

The rules' own unit tests run once more in a child in which all of that raises.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

CHILD = """
import builtins, os, pkgutil, importlib, random, secrets, socket, sys, time
import ca.rules, crl.rules, ocsp.rules, ca.der

# What the rules import from outside is loaded first; then the world is taken away.
modules = [m.name for package in (ca.rules, crl.rules, ocsp.rules, ca.der)
           for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in modules:
    importlib.import_module(name)

def gone(what):
    def refuse(*args, **kwargs):
        raise AssertionError(f"a rule asked for {what}")
    return refuse

socket.socket = gone("a socket")
for module, names in ((time, ("time", "time_ns", "monotonic", "sleep")), (os, ("urandom", "getenv")), (secrets, ("token_bytes",)),
                      (random, ("random",))):
    for name in names:
        setattr(module, name, gone(f"{module.__name__}.{name}"))

# Import them again, with the world gone: nothing happens at import either.
for name in modules:
    sys.modules.pop(name, None)
for name in sorted(modules):
    importlib.import_module(name)
print(len(modules))

from tests.architecture.pure_rules import exercise
exercise()
"""


def test_rules_run_with_sockets_clock_and_randomness_disabled() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 20
