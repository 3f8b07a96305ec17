"""A node whose market has no more functions than DeepSquare's of version 1.2, whose contracts can't be had: a double.

It hands everything to a real node, but for calls of functions that version 1.2 has not: those revert without data, as a contract
does that has no such function.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession, web
from eth_utils import function_signature_to_4byte_selector

from contracts.tests.test_abi import INTERFACES

_KNOWN = {
    "0x" + function_signature_to_4byte_selector(entry.removeprefix("function ").split(" ")[0]).hex()
    for entries in INTERFACES.values()
    for entry in entries
    if entry.startswith("function ")
}
_REVERTED = {"code": 3, "message": "execution reverted", "data": "0x"}


def _is_unknown(call: dict[str, Any]) -> bool:
    if call["method"] not in ("eth_call", "eth_estimateGas"):
        return False
    transaction = call["params"][0]
    data = transaction.get("data") or transaction.get("input") or "0x"
    # Without a target it is a deployment.
    return bool(transaction.get("to")) and data[:10] not in _KNOWN


@asynccontextmanager
async def version_1_2(url: str) -> AsyncIterator[str]:
    """The URL of such a node, in front of the one at `url`."""
    async with ClientSession() as session:

        async def answer(request: web.Request) -> web.Response:
            body = await request.read()
            call = json.loads(body)
            if _is_unknown(call):
                return web.json_response({"jsonrpc": "2.0", "id": call["id"], "error": _REVERTED})
            async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
                return web.Response(body=await response.read(), content_type="application/json")

        app = web.Application()
        app.router.add_post("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()
