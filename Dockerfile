FROM python:3.11-slim
WORKDIR /app
# torch first and on its own: TORCH_INDEX names another index for it (CPU builds, for instance).
ARG TORCH_INDEX=
RUN pip install --no-cache-dir pip==26.3 \
    && pip install --no-cache-dir ${TORCH_INDEX:+--index-url $TORCH_INDEX} torch==2.13.0
COPY requirements.lock ./
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY api api
COPY cli cli
COPY domain domain
COPY extractors extractors
COPY migrations migrations
COPY retrieval retrieval
COPY storage storage
COPY workers workers
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && useradd --create-home openpeek && mkdir /data /models && chown openpeek /data /models
USER openpeek
CMD ["openpeek", "serve", "--host", "0.0.0.0"]
