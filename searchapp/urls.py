"""The site map on one page."""

from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import URLPattern, URLResolver, path

from .views import appearance, documents, search, traces

handler400 = appearance.bad_request

urlpatterns: list[URLPattern | URLResolver] = [
    path("", search.home, name="home"),
    path("search", search.search, name="search"),
    path("search/<uuid:uid>/rerank", search.rerank, name="rerank"),
    path("traces/<uuid:uid>", traces.trace, name="trace"),
    path("documents/<uuid:uid>", documents.document, name="document"),
    path("documents/<uuid:uid>/file", documents.document_file, name="document_file"),
    path("accounts/login/", auth.LoginView.as_view(), name="login"),
    path("accounts/logout/", auth.LogoutView.as_view(), name="logout"),
    path("theme", appearance.theme, name="theme"),
    path("admin/", admin.site.urls),
]
