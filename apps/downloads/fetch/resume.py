"""What a later attempt needs to go on from the bytes that are there; kept on the job."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from apps.downloads.providers.base import FetchPlan


class ResumeFile(BaseModel):
    model_config = ConfigDict(frozen=True)

    source_id: str
    size_bytes: int | None  # the whole size as the source said it; None while that is not known


class Resume(BaseModel):
    """Where the bytes of which remote files are: in the hot file of ``generation``, or in files of a scratch folder."""

    model_config = ConfigDict(frozen=True)

    place: Literal["hot", "scratch"]
    provider: str
    finish: str
    generation: int
    folder: str = ""
    files: tuple[ResumeFile, ...]

    @classmethod
    def read(cls, stored: dict[str, object]) -> Self | None:
        """What is kept on a job, or None when there is nothing (of use)."""
        try:
            return cls.model_validate(stored) if stored else None
        except ValidationError:
            return None

    def fits(self, plan: FetchPlan) -> bool:
        """Whether the plan leads to the very same bytes, as far as can be told before they are compared."""
        if (self.provider, self.finish, len(self.files)) != (plan.provider, plan.finish, len(plan.files)):
            return False
        return all(
            kept.source_id == file.source_id
            and (kept.size_bytes is None or not file.size_is_exact or kept.size_bytes == file.size_bytes)
            for kept, file in zip(self.files, plan.files, strict=True)
        )
