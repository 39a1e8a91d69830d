ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv /opt/referral-sync
COPY requirements.lock ./
RUN /opt/referral-sync/bin/pip install --require-hashes -r requirements.lock
COPY . .
RUN /opt/referral-sync/bin/pip install --no-deps --no-build-isolation .

FROM ${BASE}
RUN groupadd --gid 10001 worker && useradd --uid 10001 --gid worker --no-create-home --shell /usr/sbin/nologin worker
COPY --from=build /opt/referral-sync /opt/referral-sync
ENV PATH=/opt/referral-sync/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
ENTRYPOINT ["referral-sync"]
CMD ["run"]
