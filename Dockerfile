# Three images of one project:
#   gateway       the HTTP API of a fleet; no torch in it
#   runner-cpu    an engine of a fleet on a CPU, with the embedded maze model
#   runner-cuda   the same on an NVIDIA GPU
# docker build --target gateway -t ilvr-gateway:0.1.0 .
#
# All run as user 10001 on a read-only root file system. What they write: /tmp (a tmpfs), and a runner its compile caches
# in /var/cache/ilvr (a volume; without one they are made anew at each start). A runner also wants a larger /dev/shm.
#
# The CUDA image has the same base as the others: the wheels of torch and vLLM bring CUDA themselves, down to nvcc, and the
# driver comes from the host. An image with CUDA below would hold it twice, in two versions.

FROM python:3.11.14-slim-bookworm AS base
ENV PATH=/opt/ilvr/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN groupadd --gid 10001 ilvr \
 && useradd --uid 10001 --gid ilvr --home-dir /tmp --no-create-home --shell /usr/sbin/nologin ilvr

# Environments are made here and copied, so that no installer and no cache is in an image. Third-party packages come
# before our source: a change of ours leaves their layer as it is.
# Bytecode is good without a look at its source: a layer may round the times of files, and half of it would be made anew
# in memory at each start, which takes minutes for torch and vLLM.
FROM base AS builder
ENV PYC_INVALIDATION_MODE=UNCHECKED_HASH \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never \
    VIRTUAL_ENV=/opt/ilvr
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --disable-pip-version-check --root-user-action=ignore uv==0.13.9 \
 && uv venv /opt/ilvr
WORKDIR /src

FROM builder AS wheel
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --disable-pip-version-check --root-user-action=ignore setuptools==78.1.1
COPY pyproject.toml README.md LICENSE ./
COPY contracts contracts
COPY broker broker
COPY service service
COPY model_runner model_runner
COPY training training
COPY ilvr ilvr
RUN uv build --wheel --no-build-isolation --python /usr/local/bin/python3 --out-dir /wheel .

FROM builder AS gateway-environment
COPY requirements/gateway.txt requirements/
RUN --mount=type=cache,target=/root/.cache/uv uv pip install --no-deps -r requirements/gateway.txt
COPY --from=wheel /wheel /wheel
RUN uv pip install --no-deps /wheel/*.whl

# UV_FIND_LINKS: a folder with a CPU build of torch, where there is one; else uv is told to find one.
FROM builder AS runner-cpu-environment
ARG UV_FIND_LINKS
COPY requirements/runner-cpu.txt requirements/
COPY tools/mend_torchvision.sh tools/
RUN --mount=type=cache,target=/root/.cache/uv \
    if [ -n "${UV_FIND_LINKS:-}" ]; then backend=; else unset UV_FIND_LINKS; backend="--torch-backend=cpu"; fi \
 && uv pip install --no-deps ${backend:+"$backend"} -r requirements/runner-cpu.txt \
 && bash tools/mend_torchvision.sh /opt/ilvr
COPY --from=wheel /wheel /wheel
RUN uv pip install --no-deps /wheel/*.whl

FROM builder AS runner-cuda-environment
COPY requirements/runner-cuda.txt requirements/
RUN --mount=type=cache,target=/root/.cache/uv uv pip install --no-deps -r requirements/runner-cuda.txt
COPY --from=wheel /wheel /wheel
RUN uv pip install --no-deps /wheel/*.whl

FROM base AS gateway
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ilvr gateway" \
      org.opencontainers.image.description="HTTP API for interleaved latent visual reasoning, without an engine" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY deploy/healthcheck.py /usr/local/bin/healthcheck.py
COPY --from=gateway-environment /opt/ilvr /opt/ilvr
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-I", "/usr/local/bin/healthcheck.py", "8000", "/healthz"]
CMD ["ilvr", "gateway", "--host", "0.0.0.0", "--port", "8000"]

# What the two runners have in common. It is healthy when its engine answers and Redis has heard of it: loading takes
# from half a minute to many.
FROM base AS runner
RUN --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update \
 && apt-get install -y --no-install-recommends libnuma1=2.0.16-1 \
 && apt-get clean \
 && install -d -o 10001 -g 10001 /var/cache/ilvr
ENV XDG_CACHE_HOME=/var/cache/ilvr \
    VLLM_CACHE_ROOT=/var/cache/ilvr/vllm \
    TORCHINDUCTOR_CACHE_DIR=/var/cache/ilvr/inductor \
    TRITON_CACHE_DIR=/var/cache/ilvr/triton \
    ILVR_RUNNER_METRICS_HOST=0.0.0.0 \
    ILVR_RUNNER_METRICS_PORT=9100 \
    ILVR_RUNNER_MODEL=/models/maze-tiny
COPY deploy/healthcheck.py /usr/local/bin/healthcheck.py
COPY models /models
WORKDIR /tmp
EXPOSE 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s --retries=3 \
    CMD ["python", "-I", "/usr/local/bin/healthcheck.py", "9100", "/readyz"]
CMD ["ilvr", "runner"]

FROM runner AS runner-cpu
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ilvr runner (CPU)" \
      org.opencontainers.image.description="Engine for interleaved latent visual reasoning, on a CPU" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=runner-cpu-environment /opt/ilvr /opt/ilvr
USER 10001:10001

# Triton and Inductor compile their launchers with a C compiler when a model is loaded.
FROM runner AS runner-cuda
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ilvr runner (CUDA)" \
      org.opencontainers.image.description="Engine for interleaved latent visual reasoning, on an NVIDIA GPU" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update \
 && apt-get install -y --no-install-recommends g++=4:12.2.0-3 \
 && apt-get clean
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=runner-cuda-environment /opt/ilvr /opt/ilvr
USER 10001:10001
