"""django-ca's OCSP view as a rival, run with the Python of its own environment, behind gunicorn with one worker.

Says on stdout, as one JSON line, where it listens and what to ask; then it serves until it is told to stop.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from rival_django_ca import configure


def request(certificate: x509.Certificate, issuer: x509.Certificate, *, nonce: bytes | None) -> str:
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA256())
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return base64.b64encode(builder.build().public_bytes(Encoding.DER)).decode()


def main() -> None:
    port = int(sys.argv[1])
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name:
        configure(Path(name))
        from django.conf import settings
        from django.core.wsgi import get_wsgi_application
        from django.db import connections
        from django.urls import reverse
        from django_ca.models import Certificate, CertificateAuthority
        from gunicorn.app.base import BaseApplication

        settings.ALLOWED_HOSTS = ["*"]
        settings.LOGGING = {}
        authority = CertificateAuthority.objects.get(name="bench")
        options = authority.key_backend.get_use_private_key_options(authority, {})
        authority.generate_ocsp_key(options)
        key = ec.generate_private_key(ec.SECP256R1())
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        made = Certificate.objects.create_cert(
            authority, options, csr, subject=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device.example")]),
            not_after=datetime.now(UTC) + timedelta(days=7),
        )  # fmt: skip
        leaf, issuer = made.pub.loaded, authority.pub.loaded
        said = {
            "ready": True,
            "path": reverse("django_ca:ocsp-cert-post", kwargs={"serial": authority.serial}),
            "request": request(leaf, issuer, nonce=None),
            "with_nonce": request(leaf, issuer, nonce=bytes(range(32))),
            "serial": str(leaf.serial_number),
        }
        application = get_wsgi_application()
        connections.close_all()

        class Served(BaseApplication):
            def load_config(self) -> None:
                for setting, value in {
                    "bind": f"127.0.0.1:{port}", "workers": 1, "worker_class": "gthread", "threads": 4, "keepalive": 60, "loglevel": "critical",
                    "when_ready": lambda _: print(json.dumps(said), flush=True),
                }.items():  # fmt: skip
                    self.cfg.set(setting, value)

            def load(self) -> Any:
                return application

        Served().run()


if __name__ == "__main__":
    main()
