#!/usr/bin/env python
"""The command line of ytserver."""

import os
import sys

from apps.core.ending import ended_as_shells_expect


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ytserver.settings")
    from django.core.management import execute_from_command_line

    from apps.core.imports import import_without_extras
    from ytserver.env import SettingsError, load_env

    try:
        env = load_env()
    except SettingsError as error:
        sys.exit("\n".join(f"Setting {line}" for line in str(error).splitlines()))
    import_without_extras(mongo_uri=env.mongo_uri.get_secret_value())
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    with ended_as_shells_expect():
        main()
