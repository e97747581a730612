"""Eta Inversion (Kang, Galim, Koo, ECCV 2024, arXiv 2403.09468) as pure torch: knows no host.

Frame: everything is in sigma space, x = z / sqrt(abar) and sigma = sqrt((1 - abar) / abar), where
`denoise(x, sigma)` returns the model's prediction of the clean latent x0 and eps = (x - x0) / sigma whatever
the network predicts. Data flows one way: schedule, invert -> trajectory -> (eta, masks) -> noise -> edit.
"""
