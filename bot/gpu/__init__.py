"""The local GPU server: the hosted API's contract, on Stable Diffusion 3 Medium. It knows no Discord."""
