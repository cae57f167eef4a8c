"""The main job, walked through as a client over HTTP against an instance of its own and stand-ins for the outside."""

from apps.core.demo.instance import DemoFailed, Instance
from apps.core.demo.walk import Demo, Outside

__all__ = ["Demo", "DemoFailed", "Instance", "Outside"]
