"""Runs work on our own previews beside the event loop.

Foreign bytes are not read here but in a process of their own (`shared.photos.decoders`).
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

# One thread: two pictures at once would take twice the memory.
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="photo")


async def off_loop(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run work on a preview in a thread, one preview at a time in this process."""
    return await asyncio.get_running_loop().run_in_executor(_thread, partial(function, *args, **kwargs))
