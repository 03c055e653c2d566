"""Who am I: what the caller's key is and may do."""

from fastapi import APIRouter, Response

from api.bodies import StrictRoute
from api.deps import CallerNow
from api.replies import moment, reply

router = APIRouter(route_class=StrictRoute, tags=["account"])


@router.get("/me")
def whoami(caller: CallerNow) -> Response:
    """Return the organization and the key of the caller."""
    return reply(
        {
            "organization_id": caller.organization_id,
            "user_id": caller.user_id,
            "account_type": "enterprise",
            "key": {
                "key_id": caller.key_id,
                "name": caller.key_name,
                "key_type": "standard",
                "permissions": list(caller.permissions),
                "expires_at": moment(caller.expires_at),
            },
            "rate_limits": {},
        }
    )
