# Needs no environment: `docker run -p 7860:7860 -v opus-data:/data IMAGE` prints the first password and key.
#
# A release pins the base by digest: `docker buildx imagetools inspect python:3.12.12-slim-bookworm`, then write
# FROM python:3.12.12-slim-bookworm@sha256:<what it printed>.
FROM python:3.12.12-slim-bookworm AS base

FROM base AS build
COPY requirements.txt /tmp/
# The venv has no pip of its own: only what the service imports reaches the final image.
RUN python -m venv --without-pip /opt/venv \
    && python -m pip --python /opt/venv install --no-cache-dir --require-hashes --only-binary=:all: -r /tmp/requirements.txt

FROM base
# uid 1000 because Hugging Face Spaces runs every image as it.
RUN python -m pip uninstall -y -q --root-user-action=ignore pip \
    && useradd --uid 1000 --create-home opus \
    && install -d -o opus -g opus /data
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY . .
# Compiled here, because the user may not write into /app.
RUN /opt/venv/bin/python -m compileall -q /app

# GRACEFUL_TIMEOUT stays under the 10 s after which `docker stop` kills. Unbuffered: the first password is printed once.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GRACEFUL_TIMEOUT=9 \
    DATA_DIR=/data
USER 1000:1000
EXPOSE 7860
STOPSIGNAL SIGTERM
# http.client, because urllib would send this through HTTP_PROXY.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 7860), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
CMD ["python", "wsgi.py"]
