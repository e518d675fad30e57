# The study's software in one image: `docker build --tag voxelsoup .` (docs/bundle.md).
# envs/voxelsoup.def makes the same for Apptainer; a test compares them. No image was built where this
# was written, for no container tool was there.
FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/voxelsoup
# The pinned packages first: their layer is kept as long as they stay the same.
COPY requirements.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt
COPY . ./
# With its history, so that results say which commit they were made by.
RUN git config --system --add safe.directory /opt/voxelsoup \
    && pip install --no-cache-dir --disable-pip-version-check --no-deps --editable .
WORKDIR /study
CMD ["voxelsoup", "--help"]
