# Alternatives whose models cannot be averaged: each is a study, and they are compared here.

for configuration in configurations:
    # What Snakemake puts in front of the names of its rules.
    configuration_ = f"{configuration}_"

    module:
        name:
            configuration
        snakefile:
            "../Snakefile"
        config:
            CONTENTS[configuration]

    use rule * from configuration exclude all as configuration_*
