"""Bytes of the folder blob store, for whoever holds a signed URL. Always served as an attachment."""

from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from api.bodies import OpenRoute
from api.deps import ServicesNow
from storage.signing import verify_blob

router = APIRouter(prefix="/blobs", route_class=OpenRoute, tags=["blobs"])


@router.get("/{token}")
def read_blob(token: str, services: ServicesNow) -> StreamingResponse:
    """Stream the bytes that a signed URL grants."""
    grant = verify_blob(services.blob_secret, token)
    blobs = services.storage.blobs
    size = blobs.info(grant.key).size_bytes
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(grant.filename, safe='')}",
        "Content-Length": str(size),
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    return StreamingResponse(blobs.open(grant.key), media_type=grant.content_type, headers=headers)
