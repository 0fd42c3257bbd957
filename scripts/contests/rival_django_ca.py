"""django-ca as a rival, run with the Python of its own environment: durable in-process issuance with its row.

Reads `{"count": N, "csr": PEM list}` rounds as JSON lines on stdin, answers each with `{"seconds": S, "issued": N}`; each answer is checked
here with cryptography before it counts.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import types
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any


def configure(folder: Path) -> None:
    from django.conf import settings

    settings.configure(
        SECRET_KEY="x" * 50,
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django_ca"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "db.sqlite3")}},
        USE_TZ=True,
        STORAGES={
            "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
            "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
            "django-ca": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(folder / "ca")}},
        },
        CA_DEFAULT_HOSTNAME="localhost",
        CA_USE_CELERY=False,
        LOGGING_CONFIG=None,
        ROOT_URLCONF="rival_urls",
    )
    import django

    django.setup()
    from django.core.management import call_command
    from django.urls import include, path

    urls: Any = types.ModuleType("rival_urls")
    urls.urlpatterns = [path("django_ca/", include("django_ca.urls"))]
    sys.modules["rival_urls"] = urls

    call_command("migrate", verbosity=0)
    call_command("init_ca", "bench", "CN=bench", key_type="EC", elliptic_curve="secp256r1", stdout=sys.stderr, stderr=sys.stderr)


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name:
        configure(Path(name))
        from cryptography import x509
        from django_ca.models import Certificate, CertificateAuthority

        authority = CertificateAuthority.objects.get(name="bench")
        options = authority.key_backend.get_use_private_key_options(authority, {}) if hasattr(authority, "key_backend") else None
        if options is None:
            raise SystemExit("no key options")
        issuer = authority.pub.loaded
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            requests = [x509.load_pem_x509_csr(pem.encode()) for pem in json.loads(line)["csr"]]
            subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device.example")])
            began = time.perf_counter()
            made = []
            for csr in requests:
                assert csr.is_signature_valid
                made.append(
                    Certificate.objects.create_cert(
                        authority, options, csr, subject=subject, not_after=datetime.now(UTC) + timedelta(days=7)
                    )
                )
            seconds = time.perf_counter() - began
            for certificate in made:
                certificate.pub.loaded.verify_directly_issued_by(issuer)
            print(json.dumps({"seconds": seconds, "issued": len(made), "rows": Certificate.objects.count()}), flush=True)


if __name__ == "__main__":
    main()
