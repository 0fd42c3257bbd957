"""What `fleetca line batch` does once it has started, in a process of its own: a file's name in, seconds out."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from ca.model import Role
from ca.signer.client import SignerClient
from fleetca.line import bringing


def main() -> None:
    client = SignerClient(sys.argv[1], Role.operator)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        file = Path(json.loads(line)["file"])
        began = time.perf_counter()
        brought = bringing.bring(client, file, answers=file.with_suffix(".answers"))
        print(
            json.dumps({"seconds": time.perf_counter() - began, "certified": brought.certified, "units": brought.shift.taken}), flush=True
        )


if __name__ == "__main__":
    main()
