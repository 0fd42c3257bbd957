"""AWS KMS for tests: moto, with what it leaves out and the real one does. A message has at most 4096 octets, and a digest is not hashed again."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

REGION = "eu-central-1"
_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384()}


@contextmanager
def kms() -> Iterator[None]:
    from moto import mock_aws
    from moto.core.exceptions import JsonRESTError
    from moto.kms.exceptions import ValidationException
    from moto.kms.responses import KmsResponse

    honest = KmsResponse.sign

    def sign(self: Any) -> Any:
        key = self.kms_backend.describe_key(self._get_param("KeyId"))
        if not key.enabled:
            raise JsonRESTError("KMSInvalidStateException", f"{key.arn} is {key.key_state}.")
        message, kind = self._get_param("Message"), self._get_param("MessageType")
        if kind == "RAW":
            if not 1 <= len(message) <= 4096:
                raise ValidationException("Member must have length less than or equal to 4096")
            return honest(self)
        way = self._get_param("SigningAlgorithm")
        digest = utils.Prehashed(_HASHES[way[-3:]])
        if len(message) != digest.digest_size:
            raise ValidationException("Digest is invalid length for algorithm " + way)
        private = key.private_key.private_key
        if way.startswith("ECDSA"):
            signature = private.sign(message, ec.ECDSA(digest))
        else:
            signature = private.sign(message, padding.PKCS1v15(), digest)
        import json

        return json.dumps({"KeyId": key.arn, "Signature": base64.b64encode(signature).decode(), "SigningAlgorithm": way})

    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            patch.setenv(name, "testing")
        patch.setattr(KmsResponse, "sign", sign)
        yield
