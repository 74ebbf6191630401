"""Writing files whole or not at all."""

import os
import secrets
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Replaces `path` by a file that holds `text`; if that fails, the old one stays.

    Raises:
        OSError: the folder is missing, not writable, or full.
    """
    # Not by `tempfile`, whose files nobody else may read: this one stays.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
