"""YAMLs of recipes."""

from pathlib import Path

import yaml


def write(path: Path, **settings) -> Path:
    path.write_text(yaml.safe_dump(settings))
    return path
