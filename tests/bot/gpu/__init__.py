"""Tests of the GPU server."""
