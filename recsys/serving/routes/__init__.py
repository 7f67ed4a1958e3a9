"""The HTTP routes, a file a subject; each makes an APIRouter for a service."""
