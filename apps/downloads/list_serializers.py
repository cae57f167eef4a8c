"""What goes into the routes of lists and what comes out."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from apps.downloads.providers.listing import ListKind
from apps.downloads.services.lists import MAX_LISTED, MAX_WORDS_CHARS

MAX_LIST_PAGE_SIZE = 50


class ListPageSerializer(serializers.Serializer):
    page = serializers.IntegerField(
        min_value=1,
        max_value=MAX_LISTED,
        default=1,
        initial=1,
        help_text=f"Lists can be read up to entry {MAX_LISTED}.",
    )
    page_size = serializers.IntegerField(min_value=1, max_value=MAX_LIST_PAGE_SIZE, default=20, initial=20)


class SearchRequestSerializer(ListPageSerializer):
    q = serializers.CharField(max_length=MAX_WORDS_CHARS, help_text="The words to search for.")


class PlaylistRequestSerializer(ListPageSerializer):
    url = serializers.CharField(help_text="A link to a playlist (also watch?...&list=), or the playlist's id.")


class ChannelRequestSerializer(ListPageSerializer):
    url = serializers.CharField(help_text="A link to a channel, its id (UC...) or its @handle.")


class ListedVideoSerializer(serializers.Serializer):
    video_id = serializers.CharField()
    url = serializers.CharField()
    title = serializers.CharField(allow_blank=True)
    channel = serializers.CharField(allow_blank=True)
    channel_id = serializers.CharField(allow_blank=True)
    duration = serializers.CharField(allow_blank=True, help_text='A label such as "3:32" or "1:02:03".')
    duration_seconds = serializers.IntegerField(allow_null=True)
    thumbnail = serializers.CharField()
    view_count = serializers.IntegerField(allow_null=True)
    live = serializers.BooleanField(help_text="A live stream or a premiere: it cannot be fetched yet.")


@extend_schema_serializer(many=False)
class ListAnswerSerializer(serializers.Serializer):
    """One page of videos. Every field is always there."""

    status = serializers.BooleanField(help_text="Always true.")
    kind = serializers.ChoiceField([kind.value for kind in ListKind])
    id = serializers.CharField(allow_null=True, help_text="The playlist's or channel's id; null for a search.")
    title = serializers.CharField(allow_blank=True, help_text="The list's title; of a search, the words.")
    channel = serializers.CharField(allow_blank=True)
    channel_id = serializers.CharField(allow_blank=True)
    total = serializers.IntegerField(allow_null=True, help_text="How many videos there are, where YouTube says so.")
    page = serializers.IntegerField()
    page_size = serializers.IntegerField()
    has_more = serializers.BooleanField(help_text="Whether there is a next page.")
    videos = ListedVideoSerializer(many=True)
    response_time = serializers.FloatField(help_text="Seconds from request to answer.")
