"""Jobs as the cards see them, without a database."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bot.jobs.records import JobView
from bot.params import Img2ImgParams
from db.jobs import Job, Result
from db.operations import Operation


def a_view(job_id: int = 7, *, samples: int = 1, pictures: int | None = None, **changes: Any) -> JobView:
    """Return a rendered job with `pictures` of its `samples` (None: all); `changes` are the job's fields."""
    params = Img2ImgParams(prompt="a harbour", seed=1, samples=samples)
    job = Job(
        id=job_id,
        guild_id=1,
        user_id=2,
        channel_id=3,
        operation=Operation.IMG2IMG,
        params_json=params.model_dump_json(),
        created_at=0,
        message_id=5,
        state="rendered",
        price=4,
        charged=4,
        backend="sketcher",
    )
    made = range(samples if pictures is None else pictures)
    results = tuple(Result(job_id, n, 1 + n, f"hash {n}", 64, 64) for n in made)
    return JobView(replace(job, **changes), params, results, None)
