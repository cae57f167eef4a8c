"""The fast lane in front of Django."""

from ytserver.fast_lane.lane import FastLane

__all__ = ["FastLane"]
