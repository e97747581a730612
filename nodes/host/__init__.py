"""All contact with ComfyUI's internals.

Nothing is installed on a MODEL. What a run needs lives in a copy of the model options, inside that one
sampling.
"""

from . import approvals
from .edited_file import FROM_GRAPH, NO_FILE, Saved, find_signer, save_edited, source_file
from .families.text import rows_of_text
from .folders import input_pictures, picture_path, saved_files, saved_path
from .inversion_file import load as load_inversion
from .inversion_file import save as save_inversion
from .latents import fit_mask, in_model_space, latent_mask, latent_tensor, stacked, to_latent
from .memory import MEMORY_ERRORS, is_out_of_memory, make_room
from .messages import counted, say, warn
from .models import (
    SCHEDULERS,
    check_covered,
    check_no_keyframes,
    check_same_encoder,
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
from .pictures import as_encoded, beside, beside_edited, blocked, is_encoded_part, middle
from .prompts import chunk_length, encode, encodes_to, tokens_of, typed_text, upstream_texts
from .sampling import CATEGORY, Branch, Network, counts_rows, eta_sampler, progress, sample
from .steering import SOURCE, MethodPlan, is_compiled, plan_methods
from .word_maps import MapRecorder

__all__ = [
    "CATEGORY",
    "FROM_GRAPH",
    "MEMORY_ERRORS",
    "NO_FILE",
    "SCHEDULERS",
    "SOURCE",
    "Branch",
    "MapRecorder",
    "MethodPlan",
    "Network",
    "Saved",
    "approvals",
    "as_encoded",
    "beside",
    "beside_edited",
    "blocked",
    "check_covered",
    "check_no_keyframes",
    "check_same_encoder",
    "check_same_model",
    "check_same_picture",
    "chunk_length",
    "counted",
    "counts_rows",
    "downscale",
    "encode",
    "encodes_to",
    "eta_sampler",
    "find_signer",
    "fingerprint",
    "fit_mask",
    "image_embeddings",
    "in_model_space",
    "input_pictures",
    "is_compiled",
    "is_encoded_part",
    "is_out_of_memory",
    "latent_channels",
    "latent_mask",
    "latent_tensor",
    "load_inversion",
    "make_grid",
    "make_room",
    "middle",
    "needs_negative",
    "picture_path",
    "plan_methods",
    "progress",
    "rows_of_text",
    "sample",
    "save_edited",
    "save_inversion",
    "say",
    "saved_files",
    "saved_path",
    "signature",
    "source_file",
    "stacked",
    "text_embedding",
    "text_fingerprint",
    "to_latent",
    "tokens_of",
    "typed_text",
    "upstream_texts",
    "warn",
    "weights_of",
    "weights_there",
]
