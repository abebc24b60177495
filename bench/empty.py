"""What everything is measured against: a view of Django REST framework that does nothing."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView


class EmptyView(APIView):
    """``GET``, no body, an empty JSON object in return."""

    def get(self, request: Request) -> Response:
        return Response({})
