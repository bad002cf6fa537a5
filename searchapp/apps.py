from django.apps import AppConfig


class SearchappConfig(AppConfig):
    name = "searchapp"
    verbose_name = "Podium"
    default_auto_field = "django.db.models.BigAutoField"
