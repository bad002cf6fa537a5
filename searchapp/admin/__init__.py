"""The administration: every table people look after, with safe bulk actions."""

from django.contrib import admin

from . import api_keys, documents, records, training, uploads

__all__ = ["api_keys", "documents", "records", "training", "uploads"]

admin.site.site_header = "Podium administration"
admin.site.site_title = "Podium"
admin.site.index_title = "Everything Podium keeps"
