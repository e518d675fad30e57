"""Turn a file of weights that another program wrote into one of the study's network."""

from pathlib import Path

from voxelsoup.common import provenance
from voxelsoup.common.files import sha256, write_json
from voxelsoup.common.logs import job_log
from voxelsoup.models.conversion import write_converted
from voxelsoup.study.loading import load
from voxelsoup.study.sections.elsewhere import Conversion

with job_log(snakemake.log[0]):
    source, model = Path(snakemake.input[0]), Path(snakemake.output.model)
    conversion = Conversion.model_validate(snakemake.params.conversion)
    digest = write_converted(source, conversion, load(snakemake.config), model)
    write_json(
        Path(snakemake.output.record),
        {
            "file": str(source),
            "file_sha256": sha256(source),
            **conversion.model_dump(mode="json"),
            "sha256": digest,
            "ended": provenance.now(),
        },
    )
