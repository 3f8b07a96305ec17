"""See the package."""

import sys
from pathlib import Path

from deepsquare.errors import DeepSquareError
from deepsquare.grid.local.toolchain import install_anvil

try:
    print(install_anvil(Path(sys.argv[1]).absolute(), lambda text: print(f"==> {text}", file=sys.stderr)))
except DeepSquareError as error:
    sys.exit(f"setup: {error}")
except OSError as error:
    sys.exit(
        f"setup: {error.filename}: {error.strerror}. If another account made this folder, give it to yours, or remove it"
    )
