# Two images: `converter`, the sidecar for an engine that runs elsewhere, and `all`, which has the embedded engine too.
#
#   docker build --target converter -t converter .
#   docker build --target all -t converter-all .

FROM python:3.13-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/converter
COPY pyproject.toml README.md LICENSE ./
COPY converter/ converter/
COPY engine/ engine/
COPY workflows/ workflows/
RUN /opt/converter/bin/pip install --no-cache-dir ".[otel,storage]"

FROM build AS build-all
ARG TORCH=torch==2.13.0
RUN /opt/converter/bin/pip install --no-cache-dir "$TORCH" \
 && /opt/converter/bin/pip install --no-cache-dir ".[engine]"

FROM python:3.13-slim-bookworm AS converter
COPY --from=build /opt/converter /opt/converter
RUN useradd --uid 10001 --create-home converter
# A container is reached from outside alone, so it listens on all interfaces; who may reach it, its network decides. Give
# it API keys where that is not enough (docs/operating.md, "Who may call").
ENV PATH=/opt/converter/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CONVERTER_HOST=0.0.0.0 \
    CONVERTER_PORT=3000 \
    CONVERTER_ALLOW_UNGUARDED=true
WORKDIR /home/converter
USER 10001
EXPOSE 3000
# Docker's own check, for hosts without an orchestrator; Kubernetes asks the probes itself.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, http.client as h; c = h.HTTPConnection('127.0.0.1', int(os.environ.get('CONVERTER_PROBES_PORT') or os.environ['CONVERTER_PORT']), timeout=4); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["converter"]
CMD ["serve"]

FROM converter AS all
COPY --from=build-all /opt/converter /opt/converter
# What the embedded engine keeps: models, inputs, outputs. The folder is there before the volume, so that the user may write.
RUN mkdir -p /home/converter/.local/share/converter-engine
VOLUME /home/converter/.local/share/converter-engine
