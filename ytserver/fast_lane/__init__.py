"""The fast lane in front of Django, and the one in front of the stream application."""

from ytserver.fast_lane.lane import FastLane
from ytserver.fast_lane.streams import StreamLane

__all__ = ["FastLane", "StreamLane"]
