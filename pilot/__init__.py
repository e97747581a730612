"""Pilot runs: many pictures through one workflow on a running ComfyUI, measured, judged and reported."""
