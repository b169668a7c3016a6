# syntax=docker/dockerfile:1
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE requirements.lock ./
COPY bot ./bot
COPY cogs ./cogs
COPY db ./db
RUN python -m venv /opt/bot \
    && /opt/bot/bin/pip install --no-cache-dir --disable-pip-version-check --constraint requirements.lock .

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin bot \
    && install --directory --owner bot --group bot --mode 700 /data
COPY --from=build /opt/bot /opt/bot
ENV PATH="/opt/bot/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    IMG2IMG_DATA_DIR=/data
USER 10001
WORKDIR /data
VOLUME /data
# Running jobs get their grace; give Docker a little more than IMG2IMG_SHUTDOWN_GRACE_S.
STOPSIGNAL SIGTERM
ENTRYPOINT ["img2img-bot"]
CMD ["run"]
