"""Notices are signed as Standard Webhooks 1.0.0 says; the expected values are those of its own libraries."""

from __future__ import annotations

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from shared.webhooks import signature

BODY = b'{"test": 2432232314}'


def test_v1_is_what_the_official_libraries_expect() -> None:
    # standard-webhooks/standard-webhooks, libraries/*: the test of `sign`
    signed = signature.header(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        body=BODY,
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_v1a_is_what_the_official_libraries_expect() -> None:
    # standard-webhooks/standard-webhooks, libraries/go/webhook_asymmetric_test.go, TestAsymmetricWebhookSign
    signed = signature.header(
        ["whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk="],
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        body=BODY,
    )
    assert signed == (
        "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag=="
    )


def test_a_new_secret_has_the_length_that_the_specification_asks_for() -> None:
    one, other = signature.new_secret(), signature.new_secret()
    assert one != other
    assert 24 <= len(base64.b64decode(one.removeprefix("whsec_"), validate=True)) <= 64


def test_the_public_key_verifies_what_the_private_one_signed() -> None:
    private = signature.new_private_key()
    public = signature.public_key(private)
    signed = signature.header([private], message_id="m", timestamp=7, body=BODY)
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
    key.verify(base64.b64decode(signed.removeprefix("v1a,")), b"m.7." + BODY)
    with pytest.raises(InvalidSignature):
        key.verify(base64.b64decode(signed.removeprefix("v1a,")), b"m.8." + BODY)


def test_two_secrets_sign_during_a_rotation() -> None:
    new, old = signature.new_secret(), signature.new_secret()
    both = signature.header([new, old], message_id="m", timestamp=7, body=BODY)
    assert both.split(" ") == [
        signature.header([key], message_id="m", timestamp=7, body=BODY) for key in (new, old)
    ]
