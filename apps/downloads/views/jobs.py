"""The fetches that a key has asked for: their state, and cancelling one."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.errors import NotFound
from apps.core.suspend import Suspend, waited_s
from apps.downloads.answer_serializers import JobAnswerSerializer, JobListAnswerSerializer
from apps.downloads.documents import JobState, MediaJob
from apps.downloads.openapi import CONTENT_ERRORS, KEY_ERRORS, LIMIT_ERRORS, error_responses
from apps.downloads.request_serializers import JobListRequestSerializer, JobWaitSerializer, NoFieldsSerializer
from apps.downloads.selectors import find_job, list_jobs
from apps.downloads.services.answers import job_answer
from apps.downloads.services.jobs import cancel_job, retry_job
from apps.downloads.services.turning_away import as_seen_by
from apps.downloads.views.base import ApiViewSet
from apps.keys.documents import Scope

JOB_ID = OpenApiParameter("id", str, OpenApiParameter.PATH, description="The job's id, from an answer's `job`.")
JOB_ANSWERS = {200: JobAnswerSerializer, **error_responses("not_found", *KEY_ERRORS)}


@extend_schema(tags=["jobs"])
@extend_schema_view(
    list=extend_schema(
        operation_id="jobs",
        summary="Your jobs, newest first",
        parameters=[JobListRequestSerializer],
        responses={
            200: JobListAnswerSerializer,
            **error_responses("invalid_parameter", *KEY_ERRORS),
        },
    ),
    retrieve=extend_schema(
        operation_id="job",
        summary="State of a job",
        parameters=[JOB_ID, JobWaitSerializer],
        responses={**JOB_ANSWERS, **error_responses("invalid_parameter", "not_found", *KEY_ERRORS)},
    ),
    destroy=extend_schema(
        operation_id="job_cancel",
        summary="Cancel a job",
        parameters=[JOB_ID],
        responses=JOB_ANSWERS,
    ),
    retry=extend_schema(
        operation_id="job_retry",
        summary="Try a failed or cancelled job again",
        parameters=[JOB_ID],
        request=None,
        responses={
            200: JobAnswerSerializer,
            **error_responses("not_found", *KEY_ERRORS, *CONTENT_ERRORS, *LIMIT_ERRORS, "quality_unavailable"),
        },
    ),
)
class JobsViewSet(ApiViewSet):
    """Fetches that your key has asked for. Those of other keys cannot be seen.

    Cancelling a job that has ended changes nothing. A fetch that other keys wait for as well goes on for them: your
    key just waits no longer, and `state` stays as it is. Trying again gives a new job (with its own id), or the error
    with `Retry-After` while it is too early: after each failure in a row the wait is longer.
    `wait` (at most 30) holds the answer back until the job has ended. The websocket `/ws/jobs/{id}` sends the same JSON
    at each change, and closes when the job has ended.
    """

    lookup_value_regex = "[A-Za-z0-9_-]{1,64}"

    def get_serializer_class(self) -> type:
        if self.action == "list":
            return JobListRequestSerializer
        return JobWaitSerializer if self.action == "retrieve" else NoFieldsSerializer

    def list(self, request: Request) -> Response:
        fields = self.fields()
        page, page_size = fields["page"], fields["page_size"]
        jobs, total = list_jobs(
            key_prefix=request.user.prefix,
            skip=(page - 1) * page_size,
            limit=page_size,
            state=JobState(fields["state"]) if "state" in fields else None,
        )
        return Response(
            {
                "status": True,
                "page": page,
                "page_size": page_size,
                "total": total,
                "jobs": [job_answer(as_seen_by(job, request.user.prefix)) for job in jobs],
            }
        )

    def retrieve(self, request: Request, pk: str) -> Response:
        wait_s = self.fields()["wait"]
        job = self._own_job(request, pk)
        if job.active and waited_s(request) < wait_s:
            raise Suspend(f"asset:{job.asset_id}")
        return Response({"status": True, **job_answer(job)})

    def destroy(self, request: Request, pk: str) -> Response:
        self.fields()
        job = self._own_job(request, pk)
        waits_itself = request.user.prefix in job.seen_by
        ended = cancel_job(job.id, key_prefix=request.user.prefix if waits_itself else None)
        return Response({"status": True, **job_answer(as_seen_by(ended, request.user.prefix))})

    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: str) -> Response:
        self.fields()
        job = self._own_job(request, pk)
        return Response({"status": True, **job_answer(retry_job(job, key_prefix=request.user.prefix))})

    def _own_job(self, request: Request, job_id: str) -> MediaJob:
        job = find_job(job_id)
        grant = request.user
        if job is None or not (grant.prefix in job.seen_by or Scope.ADMIN in grant.scopes):
            raise NotFound("There is no such job.")
        return as_seen_by(job, grant.prefix)
