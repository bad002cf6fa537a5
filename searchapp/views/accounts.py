"""One's own account."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.views import PasswordChangeView
from django.http import HttpResponse
from django.urls import reverse_lazy


class OwnPassword(PasswordChangeView):
    """For everybody who has signed in; the administration's page is for staff only."""

    template_name = "registration/password.html"
    success_url = reverse_lazy("home")

    def form_valid(self, form: PasswordChangeForm) -> HttpResponse:
        answer = super().form_valid(form)
        messages.success(
            self.request, "Your password is changed. Other browsers have to sign in again."
        )
        return answer
