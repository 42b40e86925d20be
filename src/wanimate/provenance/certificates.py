"""Who signs: test certificates that a command makes, or real ones from files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from wanimate.config import MarkSettings
from wanimate.errors import InputError, OutputError, setting
from wanimate.media.files import output_error, private_folder, user_data, write_new

CHAIN, KEY, ROOT = "certificate.pem", "key.pem", "root.pem"
TEST = "wanimate test certificate"
"""Common name of leaf certificates that `init` makes."""
_DAYS = 730
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Identity:
    """What is signed with. chain: PEM, leaf first. key: PEM, PKCS #8. algorithm: in C2PA's words ("es256"). test: `init` made
    it."""

    chain: bytes
    key: bytes
    algorithm: str
    test: bool

    def __repr__(self) -> str:
        return f"Identity({self.algorithm}, test={self.test})"


def marks_folder() -> Path:
    """Where `init` puts certificates: $WANIMATE_MARKS, else wanimate/marks in the user's data."""
    named = os.environ.get("WANIMATE_MARKS")
    return Path(named) if named else user_data() / "marks"


def init(folder: Path) -> list[Path]:
    """Make a test root and a leaf for two years. The root's key is thrown away. Returns the files.

    Raises:
        InputError: the library `cryptography` is not installed. OutputError: one of the files is there, or cannot be written.
    """
    c = _cryptography()
    names = (ROOT, CHAIN, KEY)
    if (there := next((folder / name for name in names if os.path.lexists(folder / name)), None)) is not None:
        raise OutputError(
            "folder", there, "it is there already", "Remove the old certificates yourself, or name a folder."
        )
    root_key, leaf_key = (c.ec.generate_private_key(c.ec.SECP256R1()) for _ in range(2))
    root = _root(c, root_key)
    leaf = _leaf(c, leaf_key, root.subject, root_key)
    pem = c.serialization.Encoding.PEM
    secret = leaf_key.private_bytes(pem, c.serialization.PrivateFormat.PKCS8, c.serialization.NoEncryption())
    chain = leaf.public_bytes(pem) + root.public_bytes(pem)
    try:
        private_folder(folder)
        for name, data in zip(names, (root.public_bytes(pem), chain, secret), strict=True):
            write_new(folder / name, b"")
            (folder / name).chmod(0o600 if name == KEY else 0o644)
            (folder / name).write_bytes(data)
    except OSError as error:
        raise output_error(folder, error, "folder") from error
    return [folder / name for name in names]


def identity(settings: MarkSettings) -> Identity | None:
    """What the settings say to sign with; None where nothing is there and signing is not asked for.

    Raises:
        InputError: a file cannot be read, the two do not fit each other, the certificate has run out, or none is there though
            signing is asked for.
    """
    if settings.sign is False:
        return None
    folder = marks_folder()
    chain, key = settings.certificate or folder / CHAIN, settings.private_key or folder / KEY
    if settings.certificate is None and not (chain.is_file() and key.is_file()):
        if settings.sign is None:
            return None
        rule = "there is no certificate to sign with"
        remedy = f"Make a test certificate with `wanimate marks init`, or name a real one with {setting('marks.certificate')}."
        raise InputError("marks.sign", True, rule, remedy)
    return _checked(chain, _read(chain, "marks.certificate"), key, _read(key, "marks.private_key"))


def anchors(extra: Path | None = None) -> list[bytes]:
    """Roots that are trusted here: that of `init`, and a PEM file of the caller's."""
    own = marks_folder() / ROOT
    found = [] if extra is None else [_read(extra, "anchors")]
    return [*found, *([own.read_bytes()] if own.is_file() else [])]


def _checked(chain: Path, certificates: bytes, key: Path, secret: bytes) -> Identity:
    c = _cryptography()
    try:
        leaf = c.x509.load_pem_x509_certificates(certificates)[0]
    except ValueError as error:
        raise InputError(
            "marks.certificate", chain, "it holds no certificate", "Give a PEM file, leaf first."
        ) from error
    try:
        private = c.serialization.load_pem_private_key(secret, None)
    except (ValueError, TypeError) as error:
        rule, remedy = "it holds no private key without a password", "Give a PEM file in PKCS #8."
        raise InputError("marks.private_key", key, rule, remedy) from error
    if private.public_key() != leaf.public_key():
        raise InputError(
            "marks.private_key", key, "it is not the certificate's key", "Give the two that belong together."
        )
    if not leaf.not_valid_before_utc <= datetime.now(UTC) <= leaf.not_valid_after_utc:
        rule = f"it is valid from {leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}"
        raise InputError("marks.certificate", chain, rule, "Get a new one.")
    pkcs8 = private.private_bytes(
        c.serialization.Encoding.PEM, c.serialization.PrivateFormat.PKCS8, c.serialization.NoEncryption()
    )
    names = leaf.subject.get_attributes_for_oid(c.x509.NameOID.COMMON_NAME)
    return Identity(certificates, pkcs8, _algorithm(c, private, key), any(name.value == TEST for name in names))


def _algorithm(c: Any, private: Any, key: Path) -> str:
    if isinstance(private, c.ec.EllipticCurvePrivateKey):
        found = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}.get(private.curve.name)
    elif isinstance(private, c.ed25519.Ed25519PrivateKey):
        found = "ed25519"
    else:
        found = "ps256" if isinstance(private, c.rsa.RSAPrivateKey) else None
    if found is None:
        raise InputError("marks.private_key", key, "C2PA knows no such kind of key", "Use ES256, for instance.")
    return found


def _root(c: Any, key: Any) -> Any:
    usage = _usage(c, key_cert_sign=True, crl_sign=True)
    return (
        _builder(c, key, "wanimate test root", None)
        .add_extension(c.x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, c.hashes.SHA256())
    )


def _leaf(c: Any, key: Any, issuer: Any, issuer_key: Any) -> Any:
    mail = c.x509.ExtendedKeyUsage([c.x509.ExtendedKeyUsageOID.EMAIL_PROTECTION])
    above = c.x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        _builder(c, key, TEST, issuer)
        .add_extension(c.x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(c, digital_signature=True), critical=True)
        .add_extension(mail, critical=False)
        .add_extension(above, critical=False)
        .sign(issuer_key, c.hashes.SHA256())
    )


def _builder(c: Any, key: Any, name: str, issuer: Any) -> Any:
    oid = c.x509.NameOID
    subject = c.x509.Name(
        [c.x509.NameAttribute(oid.ORGANIZATION_NAME, "wanimate"), c.x509.NameAttribute(oid.COMMON_NAME, name)]
    )
    now = datetime.now(UTC)
    return (
        c.x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(c.x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(c.x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(c: Any, **allowed: bool) -> Any:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
        "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return c.x509.KeyUsage(**{name: allowed.get(name, False) for name in names})


class _Library:
    """The parts of `cryptography` that are used here."""

    def __init__(self) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

        self.x509, self.hashes, self.serialization = x509, hashes, serialization
        self.ec, self.ed25519, self.rsa = ec, ed25519, rsa


def _cryptography() -> Any:
    try:
        return _Library()
    except ImportError as error:
        remedy = "Install it: pip install 'wanimate[c2pa]'."
        raise InputError("marks.sign", True, "the library cryptography is not installed", remedy) from error


def _read(path: Path, field: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise InputError(field, path, f"it cannot be read ({error.strerror})", "Give a PEM file.") from error
