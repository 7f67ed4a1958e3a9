"""The web page on which a person tries the recommender."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter, HTTPException
from starlette.responses import Response

FILES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def page_routes() -> APIRouter:
    """The page and its files, read once."""
    router = APIRouter(include_in_schema=False)
    folder = resources.files("recsys.serving") / "page"
    contents = {name: (folder / name).read_bytes() for name in FILES}

    def answer(name: str) -> Response:
        return Response(contents[name], media_type=FILES[name])

    @router.get("/")
    async def page() -> Response:
        """The page itself."""
        return answer("index.html")

    @router.get("/page/{name}")
    async def file(name: str) -> Response:
        """Its style, script and icon."""
        if name not in FILES:
            raise HTTPException(404, f"the page has no file '{name}'")
        return answer(name)

    return router
