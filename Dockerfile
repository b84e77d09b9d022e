# One image for all: an agent (python -m consumers NAME), the gateway (erni gateway), any erni command.
#
# Images are pinned by tag. A digest pins more; where the build can reach the image's home, add the one that
# `docker buildx imagetools inspect python:3.11.15-slim-bookworm` prints, as python:…@sha256:….
FROM python:3.11.15-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# Every locked package, checked against its hash. What the chosen extras need is then installed from these
# files alone, without an index: one lock serves the checkout and the image.
COPY requirements.lock ./
RUN python -m pip wheel --no-deps --require-hashes --requirement requirements.lock --wheel-dir /wheels

COPY pyproject.toml README.md LICENSE ./
COPY events ./events
COPY shared ./shared
COPY sandbox ./sandbox
COPY consumers ./consumers
COPY console ./console
ARG EXTRAS=azure,console,vision-local
RUN python -m venv --without-pip /app \
 && python -m pip --python /app/bin/python install --no-index --find-links /wheels ".[${EXTRAS}]"


FROM python:3.11.15-slim-bookworm
# A fixed number, so that volumes and runAsNonRoot can name it.
RUN groupadd --system --gid 10001 erni \
 && useradd --system --uid 10001 --gid erni --create-home --home-dir /home/erni erni \
 && install --directory --owner=erni --group=erni /var/lib/erni
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PHOTO_STORE_URL=file:///var/lib/erni/store \
    CACHE_DIR=/var/lib/erni/cache \
    METRICS_HOST=0.0.0.0 \
    METRICS_PORT=9200 \
    HTTP_HOST=0.0.0.0 \
    ORT_DISABLE_TELEMETRY=1
USER 10001
WORKDIR /home/erni
VOLUME /var/lib/erni
CMD ["erni", "gateway"]
