"""The local GPU server: the documented API, on Stable Diffusion 3 Medium, without discord."""
