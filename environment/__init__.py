"""Locks for CPU and CUDA, their checks, and the installer that makes .venv from one of them."""
