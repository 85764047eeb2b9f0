# syntax=docker/dockerfile:1
# An image for nodes with GPUs of NVIDIA; their driver must fit CUDA 13.0 (580.65.06 or newer):
#   docker build -f cluster/deploy/cuda.Dockerfile -t logitbank:cuda .
# The development image, because vLLM, Triton and DeepSpeed compile kernels when they run.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04
RUN apt-get update && apt-get install --yes --no-install-recommends \
    build-essential python3.12 python3.12-dev python3.12-venv wget \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/logitbank
# The packages alone, so that a change of the code does not install them again.
COPY environment/gpu-3.12.lock /tmp/packages.lock
RUN python3.12 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir --no-deps --requirement /tmp/packages.lock
ENV PATH=/opt/venv/bin:$PATH LOGITBANK_DEVICE=gpu LOGITBANK_VENV=/opt/venv CUDA_HOME=/usr/local/cuda
# KubeRay may start a login shell, which sets PATH anew.
RUN echo 'export PATH=/opt/venv/bin:$PATH' > /etc/profile.d/logitbank.sh
COPY . .
RUN python -m environment.install
