# One image for all processes: `api`, `worker`, `migrate`.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/alfa
COPY requirements.lock ./
RUN /opt/alfa/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY migrations ./migrations
COPY src ./src
RUN /opt/alfa/bin/pip install --no-cache-dir --no-deps .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin alfa
COPY --from=build /opt/alfa /opt/alfa
ENV PATH=/opt/alfa/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER alfa
EXPOSE 8000
ENTRYPOINT ["alfa-cloud"]
CMD ["api", "--host", "0.0.0.0"]
