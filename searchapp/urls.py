"""The site map on one page."""

from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView

from .api.mcp.endpoint import mcp
from .api.own import contracts, openapi
from .views import (
    accounts,
    api_docs,
    api_keys,
    appearance,
    calibration,
    catalog,
    collections,
    documents,
    health,
    judging,
    members,
    search,
    traces,
    training,
    tuning,
    uploads,
)

handler400 = appearance.bad_request

urlpatterns: list[URLPattern | URLResolver] = [
    path("", search.home, name="home"),
    path("search", search.search, name="search"),
    path("search/<uuid:uid>/rerank", search.rerank, name="rerank"),
    path("search/<uuid:uid>/cancel", search.cancel, name="rerank_cancel"),
    path("search/<uuid:uid>/judge", judging.judge, name="judge"),
    path("traces/<uuid:uid>", traces.trace, name="trace"),
    path("documents/<uuid:uid>", documents.document, name="document"),
    path("documents/<uuid:uid>/file", documents.document_file, name="document_file"),
    path("collections/", collections.collections, name="collections"),
    path("collections/new/", collections.create, name="collection_create"),
    path("collections/<slug:slug>/", collections.overview, name="collection"),
    path("collections/<slug:slug>/documents/", catalog.documents, name="collection_documents"),
    path("collections/<slug:slug>/uploads/", uploads.uploads, name="collection_uploads"),
    path("collections/<slug:slug>/tuning/", tuning.tuning, name="collection_tuning"),
    path(
        "collections/<slug:slug>/calibration/",
        calibration.calibration,
        name="collection_calibration",
    ),
    path(
        "collections/<slug:slug>/calibration/status/",
        calibration.calibration_status,
        name="collection_calibration_status",
    ),
    path("collections/<slug:slug>/training/", training.training, name="collection_training"),
    path(
        "collections/<slug:slug>/training/status/",
        training.training_status,
        name="collection_training_status",
    ),
    path("collections/<slug:slug>/members/", members.members, name="collection_members"),
    path("collections/<slug:slug>/settings/", collections.settings, name="collection_settings"),
    path("collections/<slug:slug>/delete/", collections.delete, name="collection_delete"),
    path("uploads/<uuid:uid>/", uploads.batch, name="upload_batch"),
    path("uploads/<uuid:uid>/status/", uploads.batch_status, name="upload_batch_status"),
    path("accounts/login/", auth.LoginView.as_view(), name="login"),
    path("accounts/logout/", auth.LogoutView.as_view(), name="logout"),
    path("accounts/password/", accounts.OwnPassword.as_view(), name="own_password"),
    path("accounts/api-keys/", api_keys.api_keys, name="api_keys"),
    path("accounts/api-keys/usage/", api_keys.api_usage, name="api_usage"),
    path("theme", appearance.theme, name="theme"),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics_page, name="metrics"),
    path("", include("searchapp.api.dialects.urls")),
    path("v1/openapi.json", contracts.v1_document, name="v1_openapi"),
    path("v1/", include("searchapp.api.v1.urls")),
    path("mcp", mcp, name="mcp"),
    path("mcp/", mcp),  # as many write it
    path("api/openapi.json", openapi.own_document, name="openapi"),
    path("api/dialects.json", contracts.dialects_document, name="dialects_openapi"),
    path("api/docs", api_docs.api_docs, name="api_docs"),
    # As people type it: most pages end in a slash.
    path("api/docs/", RedirectView.as_view(pattern_name="api_docs")),
    path("api/v1/", include("searchapp.api.own.urls")),
    path("admin/", admin.site.urls),
]
