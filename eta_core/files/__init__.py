"""Picture files: what the source's carries, the edited file that keeps it, and its marks."""

from .credentials import NO_SIGNER, CredentialsError, Signer, find_signer, sign, why_unsigned
from .original import Original, read_original
from .reading import Found, read_marks
from .written import KINDS, LOSSLESS, Written, write

__all__ = [
    "KINDS",
    "LOSSLESS",
    "NO_SIGNER",
    "CredentialsError",
    "Found",
    "Original",
    "Signer",
    "Written",
    "find_signer",
    "read_marks",
    "read_original",
    "sign",
    "why_unsigned",
    "write",
]
