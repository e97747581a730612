"""All contact with ComfyUI's internals.

Nothing is installed on a MODEL: what a run needs lives in a copy of its model options, inside that one sampling.
"""

from .attention import MapRecorder
from .folders import new_path, saved_files, saved_path
from .latents import fit_mask, in_model_space, latent_mask, latent_tensor, to_latent
from .messages import warn
from .models import SCHEDULERS, check_same_model, downscale, fingerprint, make_grid, signature
from .prompts import encodes_to, tokens_of, upstream_texts
from .sampling import eta_sampler, progress, sample, ticking

__all__ = [
    "SCHEDULERS",
    "MapRecorder",
    "check_same_model",
    "downscale",
    "encodes_to",
    "eta_sampler",
    "fingerprint",
    "fit_mask",
    "in_model_space",
    "latent_mask",
    "latent_tensor",
    "make_grid",
    "new_path",
    "progress",
    "sample",
    "saved_files",
    "saved_path",
    "signature",
    "ticking",
    "to_latent",
    "tokens_of",
    "upstream_texts",
    "warn",
]
