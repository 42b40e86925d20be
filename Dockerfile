# The service with its workers. `docker build -t wanimate .` builds the processor's image; for GPUs:
#   docker build -t wanimate --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

RUN apt-get update && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 tini && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
# torch goes first and alone: its index says which build.
RUN pip install "$(grep ^torch== constraints.txt)" --index-url "$TORCH_INDEX" \
 && pip install -c constraints.txt '.[serve,postgres,s3,telemetry]'

RUN useradd --create-home --uid 1000 wanimate && mkdir /data && chown wanimate /data
USER wanimate
ENV WANIMATE_SERVE_DATA=/data
VOLUME /data
# The models of detectors and finishing, so that a container needs no network for them.
RUN python -m wanimate.preprocess.detect.models && python -m wanimate.post.models
EXPOSE 8420
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "wanimate"]
CMD ["serve", "--host", "0.0.0.0"]
