"""A visit by a user who may also delete threads. A failed request leaves no changes."""
from unittest import mock

from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from hyperkitty.models import Email, Thread, ThreadCategory

settings.ALLOWED_HOSTS = ["*"]
visitor = User.objects.create_user("visitor", "visitor@example.com", "secret", is_staff=True)
print("visitor", visitor.pk)
client = Client(raise_request_exception=False)
client.force_login(visitor)
first, second, third = Thread.objects.order_by("id")[:3]


def post(name, thread, data, status=200, **more):
    path = reverse(name, kwargs={"mlist_fqdn": "talk@lists.example.com", **(more or {"threadid": thread.thread_id})})
    response = client.post(path, data)
    assert response.status_code == status, (name, response.status_code, response.content)


def vote(value, status=200):
    post("hk_message_vote", first, {"vote": value}, status, message_id_hash=first.starting_email.message_id_hash)


vote(1)
vote(-1)
vote(0)
vote(1)
with mock.patch("hyperkitty.models.Email.get_votes", side_effect=RuntimeError):
    vote(-1, status=500)  # after the vote is saved
assert first.starting_email.votes.get().value == 1
post("hk_favorite", first, {"action": "add"})
post("hk_tags", first, {"action": "add", "tag": "news"})
ThreadCategory.objects.create(name="question", color="#ff0000")
post("hk_thread_set_category", first, {"category": "question"})
assert client.get(reverse("hk_thread", args=["talk@lists.example.com", second.thread_id])).status_code == 200
post("hk_thread_delete", third, {"email": [e.pk for e in third.emails.all()]}, 302)
assert not Email.objects.filter(thread_id=third.pk).exists()
