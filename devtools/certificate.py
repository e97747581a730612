"""A throw-away certificate for Content Credentials: python -m devtools.certificate FOLDER

Its authority stands on no trust list, so readers call it untrusted. Needs the package cryptography.
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

from eta_core.files.credentials import CERTIFICATE, FILES, KEY

DAY = datetime.timedelta(days=1)
OTHER_USES = (
    *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("encipher_only", "decipher_only"),
)


def throw_away(days: int = 1) -> tuple[str, str]:
    """A chain of two certificates that hold for `days`, and the key of the first, in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def named(name: str) -> x509.Name:
        oid = x509.NameOID
        pairs = {oid.COUNTRY_NAME: "AT", oid.ORGANIZATION_NAME: "Nobody", oid.COMMON_NAME: name}
        return x509.Name([x509.NameAttribute(key, value) for key, value in pairs.items()])

    def certificate(name: str, key: ec.EllipticCurvePrivateKey, is_authority: bool) -> str:
        now = datetime.datetime.now(datetime.timezone.utc)
        usage = dict.fromkeys(OTHER_USES, False) | {"digital_signature": True}
        usage |= {"key_cert_sign": is_authority, "crl_sign": is_authority}
        of, by = key.public_key(), authority.public_key()
        builder = (
            x509.CertificateBuilder(named("authority"), named(name), of, x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + days * DAY)
            .add_extension(x509.BasicConstraints(is_authority, None), True)
            .add_extension(x509.KeyUsage(**usage), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(of), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by), False)
        )
        if not is_authority:
            mail = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(mail, False)
        made = builder.sign(authority, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode()

    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    plain = serialization.NoEncryption()
    key = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return certificate("signer", own, False) + certificate("authority", authority, True), key.decode()


def write(folder: Path) -> None:
    """Both files, where the pack looks for them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip((CERTIFICATE, KEY), throw_away()):
        (folder / FILES[name]).write_text(text, encoding="ascii")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
