"""All contact with ComfyUI's internals.

Nothing is installed on a MODEL. What a run needs lives in a copy of the model options, inside that one
sampling.
"""

from .families.text import rows_of_text
from .folders import new_path, saved_files, saved_path
from .latents import fit_mask, in_model_space, latent_mask, latent_tensor, to_latent
from .messages import counted, say, warn
from .models import (
    SCHEDULERS,
    check_covered,
    check_no_keyframes,
    check_same_model,
    check_same_picture,
    downscale,
    fingerprint,
    latent_channels,
    make_grid,
    needs_negative,
    signature,
    text_fingerprint,
)
from .perception import image_embeddings, text_embedding, weights_of, weights_there
from .pictures import as_encoded, blocked
from .prompts import chunk_length, encode, encodes_to, tokens_of, upstream_texts
from .sampling import CATEGORY, Branch, Network, eta_sampler, progress, sample
from .steering import SOURCE, MethodPlan, plan_methods
from .word_maps import MapRecorder

__all__ = [
    "CATEGORY",
    "SCHEDULERS",
    "SOURCE",
    "Branch",
    "MapRecorder",
    "MethodPlan",
    "Network",
    "as_encoded",
    "blocked",
    "check_covered",
    "check_no_keyframes",
    "check_same_model",
    "check_same_picture",
    "chunk_length",
    "counted",
    "downscale",
    "encode",
    "encodes_to",
    "eta_sampler",
    "fingerprint",
    "fit_mask",
    "image_embeddings",
    "in_model_space",
    "latent_channels",
    "latent_mask",
    "latent_tensor",
    "make_grid",
    "needs_negative",
    "new_path",
    "plan_methods",
    "progress",
    "rows_of_text",
    "sample",
    "say",
    "saved_files",
    "saved_path",
    "signature",
    "text_embedding",
    "text_fingerprint",
    "to_latent",
    "tokens_of",
    "upstream_texts",
    "warn",
    "weights_of",
    "weights_there",
]
