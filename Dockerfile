# The study's software in one image: `docker build --tag voxelsoup .` (docs/bundle.md).
# envs/voxelsoup.def builds the same for Apptainer; a test compares the two. No image has been built
# from this file: no container tool was available where it was written.
FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/voxelsoup
# The pinned packages first: their layer is reused until they change.
COPY requirements.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt
COPY . ./
# With its history, so that results record the commit.
RUN git config --system --add safe.directory /opt/voxelsoup \
    && pip install --no-cache-dir --disable-pip-version-check --no-deps --editable .
WORKDIR /study
CMD ["voxelsoup", "--help"]
