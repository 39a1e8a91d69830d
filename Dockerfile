ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# What builds the package has an environment of its own, and the one that is shipped has not even pip.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/referral-sync
WORKDIR /build
COPY requirements.lock requirements-build.lock ./
# Another package index: `--secret id=pip,src=pip.conf`.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/build/bin/pip install --require-hashes -r requirements-build.lock \
    && /opt/build/bin/pip --python /opt/referral-sync/bin/python install --require-hashes -r requirements.lock
COPY . .
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheels . \
    && /opt/build/bin/pip --python /opt/referral-sync/bin/python install --no-deps --no-index /wheels/*.whl

FROM ${BASE}
RUN groupadd --gid 10001 worker && useradd --uid 10001 --gid worker --no-create-home --shell /usr/sbin/nologin worker
COPY --from=build /opt/referral-sync /opt/referral-sync
ENV PATH=/opt/referral-sync/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp
STOPSIGNAL SIGTERM
# Asks where `http.listen` says; Docker reserves the exit code 2, which is that of a faulty configuration.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 \
    CMD ["sh", "-c", "referral-sync health || exit 1"]
ENTRYPOINT ["referral-sync"]
CMD ["run"]
