"""Run the models of this process beside the event loop, one picture at a time.

They have a thread of their own. While it runs a model on one photo, the decoder works on the next, so one
process keeps up to two cores busy (onnxruntime and libvips release Python's lock). More cores need more
processes.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

# One thread, because a run takes up to 60 MB, and two at once would take that twice.
_models = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")


async def infer(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` on the models' thread and return its result."""
    return await asyncio.get_running_loop().run_in_executor(_models, partial(function, *args, **kwargs))
