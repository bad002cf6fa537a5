"""The search pages."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def home(request: HttpRequest) -> HttpResponse:
    return render(request, "search/home.html")


def search(request: HttpRequest) -> HttpResponse:
    return render(request, "search/home.html")


def rerank(request: HttpRequest, uid: str) -> HttpResponse:
    return render(request, "search/home.html")
