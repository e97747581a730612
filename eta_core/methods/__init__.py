"""Editing methods, one file each: what the target takes from the source branch, when and where.

A method is a value that overrides the parts of `Method` it uses. attention.py has the arithmetic. The host
applies a method without knowing it by name.
"""

from .base import NEVER, CrossControl, Injection, Layer, Method, Span
from .local_blend import BlendMaps, LocalBlend
from .masactrl import MasaCtrl
from .plug_and_play import GIVERS, PlugAndPlay
from .prompt_to_prompt import PromptToPrompt

__all__ = [
    "GIVERS",
    "NEVER",
    "BlendMaps",
    "CrossControl",
    "Injection",
    "Layer",
    "LocalBlend",
    "MasaCtrl",
    "Method",
    "PlugAndPlay",
    "PromptToPrompt",
    "Span",
]
