"""Eta Inversion (Kang, Galim, Koo, ECCV 2024, arXiv 2403.09468) in pure torch, without any host.

Every step is taken on x = x0 + sigma n, where `denoise(x, sigma)` predicts the clean latent x0 and the noise
is eps = (x - x0) / sigma, whatever the network predicts (see frame.py). Data flows one way: invert ->
Trajectory -> (eta, mask) -> edit.
"""
