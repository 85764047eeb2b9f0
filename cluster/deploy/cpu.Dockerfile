# syntax=docker/dockerfile:1
# An image for nodes without GPUs, and for trying things out:
#   docker build -f cluster/deploy/cpu.Dockerfile -t logitbank:cpu .
FROM python:3.11-slim-bookworm
# wget: probes of KubeRay. gcc and Python's headers: kernels that vLLM and Triton compile when they run.
RUN apt-get update && apt-get install --yes --no-install-recommends build-essential wget \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/logitbank
# The packages alone, so that a change of the code does not install them again.
COPY environment/cpu-3.11.lock /tmp/packages.lock
RUN python -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir --no-deps \
    --requirement /tmp/packages.lock --extra-index-url https://download.pytorch.org/whl/cpu
ENV PATH=/opt/venv/bin:$PATH LOGITBANK_DEVICE=cpu LOGITBANK_VENV=/opt/venv
# KubeRay may start a login shell, which sets PATH anew.
RUN echo 'export PATH=/opt/venv/bin:$PATH' > /etc/profile.d/logitbank.sh
COPY . .
RUN python -m environment.install
