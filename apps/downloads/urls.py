"""The routes of /api/v1."""

from __future__ import annotations

from typing import Any

from rest_framework.routers import APIRootView, DefaultRouter

from apps.downloads.views.batches import BatchViewSet
from apps.downloads.views.extras import SubtitlesViewSet, ThumbnailViewSet
from apps.downloads.views.identities import CookiesViewSet, PoTokensViewSet, ProxiesViewSet
from apps.downloads.views.jobs import JobsViewSet
from apps.downloads.views.keys import KeysViewSet, UsersViewSet
from apps.downloads.views.lists import ChannelViewSet, PlaylistViewSet, SearchViewSet
from apps.downloads.views.media import AudioViewSet, InfoViewSet, VideoViewSet
from apps.downloads.views.providers import ProvidersViewSet
from apps.downloads.views.status import CacheStatsViewSet, StatusViewSet
from apps.downloads.views.telegram import BotsViewSet, ChannelsViewSet
from apps.downloads.views.warm_ups import WarmUpsViewSet


class ApiRoot(APIRootView):
    """Every route. Whoever has logged in with a key can try them here; programs send it as the header `X-API-Key`."""

    authentication_classes = ()
    permission_classes = ()

    def get_view_name(self) -> str:
        return "ytserver API"


OTHER_ROUTES = {"me": "me-list", "admin/analytics": "admin-analytics-list"}  # apps.analytics has them


class ApiRouter(DefaultRouter):
    APIRootView = ApiRoot
    include_format_suffixes = False

    def get_api_root_view(self, api_urls: Any = None) -> Any:
        names = {prefix: f"{basename}-list" for prefix, _, basename in self.registry}
        return self.APIRootView.as_view(api_root_dict=names | OTHER_ROUTES)


router = ApiRouter(trailing_slash=False)
router.register("info", InfoViewSet, basename="info")
router.register("video", VideoViewSet, basename="video")
router.register("audio", AudioViewSet, basename="audio")
router.register("search", SearchViewSet, basename="search")
router.register("playlist", PlaylistViewSet, basename="playlist")
router.register("channel", ChannelViewSet, basename="channel")
router.register("subtitles", SubtitlesViewSet, basename="subtitles")
router.register("thumbnail", ThumbnailViewSet, basename="thumbnail")
router.register("batch", BatchViewSet, basename="batch")
router.register("status", StatusViewSet, basename="status")
router.register("cache/stats", CacheStatsViewSet, basename="cache-stats")
router.register("jobs", JobsViewSet, basename="jobs")
router.register("admin/providers", ProvidersViewSet, basename="admin-providers")
router.register("admin/cookies", CookiesViewSet, basename="admin-cookies")
router.register("admin/proxies", ProxiesViewSet, basename="admin-proxies")
router.register("admin/po-tokens", PoTokensViewSet, basename="admin-po-tokens")
router.register("admin/bots", BotsViewSet, basename="admin-bots")
router.register("admin/channels", ChannelsViewSet, basename="admin-channels")
router.register("admin/keys", KeysViewSet, basename="admin-keys")
router.register("admin/warm-ups", WarmUpsViewSet, basename="admin-warm-ups")
router.register("admin/users", UsersViewSet, basename="admin-users")

urlpatterns = router.urls
