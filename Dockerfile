FROM python:3.13-slim-trixie AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

WORKDIR /opt/memoryd
RUN python -m venv .venv

# Before the code, so that a change of code installs nothing again.
COPY requirements.lock ./
RUN .venv/bin/python -m pip install --require-hashes --no-deps -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY alembic ./alembic
COPY app ./app
RUN .venv/bin/python -m pip install --no-deps --no-build-isolation . \
    && .venv/bin/python -m pip uninstall --yes hatchling pip


FROM python:3.13-slim-trixie

LABEL org.opencontainers.image.title="memoryd" \
      org.opencontainers.image.description="Long-term memory for LLM agents, served over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0"

RUN useradd --uid 10001 --home-dir /var/lib/memoryd --create-home --shell /usr/sbin/nologin memoryd

COPY --from=build /opt/memoryd/.venv /opt/memoryd/.venv
COPY LICENSE /opt/memoryd/LICENSE

ENV PATH=/opt/memoryd/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    MEMORYD_HOST=0.0.0.0 \
    MEMORYD_DATA_DIR=/var/lib/memoryd

USER 10001
WORKDIR /var/lib/memoryd
VOLUME /var/lib/memoryd
EXPOSE 8080

HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ.get(\"MEMORYD_PORT\") or 8080}/readyz', timeout=4)"]

ENTRYPOINT ["memoryd"]
CMD ["serve"]
