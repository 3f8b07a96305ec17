"""Try to read a file of the submitter's that no job may reach; success is that it can't."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

try:
    Path(snakemake.params.path).read_bytes()
except OSError as error:
    print(f"as it should be: {error}", file=sys.stderr)
    Path(snakemake.output[0]).write_text("denied\n")
else:
    raise SystemExit(f"this job could read {snakemake.params.path}: it is not isolated from its submitter")
