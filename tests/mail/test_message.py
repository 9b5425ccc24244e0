"""Letters say what they should, in the right language, whatever the values are."""

from __future__ import annotations

import itertools
from datetime import date
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from alfa_cloud.errors import LetterInvalidError, LetterTemplateError
from alfa_cloud.mail.message import LetterKind, render
from alfa_cloud.mail.wording import Language, in_days, written_date
from tests.mail.letters import CONTEXT, OPERATION, PASSWORD, bodies, letter, message

BREAKS = ("\r\nBcc: x@example.org", "\n", "\r", "\x00", "\x85", "\u2028", "\u2029", "\x0b", "\x7f", "\ud800")
ENCODED = "=?utf-8?q?a=0d=0aBcc:_x@example.org?="


@pytest.mark.parametrize(
    ("kind", "locale", "subject"),
    [
        ("success", "ru", "Облако «Гематология» готово к работе"),
        ("success", "en", "Your cloud “Гематология” is ready"),
        ("expire", "ru", "Срок облака «Гематология» заканчивается через 14 дней"),
        ("expire", "en_GB", "The term of your cloud “Гематология” ends in 14 days"),
        ("expired", "de", "Срок облака «Гематология» закончился"),
        ("expired", "EN-us", "The term of your cloud “Гематология” has ended"),
    ],
)
def test_subjects(kind: str, locale: str, subject: str) -> None:
    written = letter(LetterKind(kind), locale)
    assert written.subject == subject
    assert f'<html lang="{written.language}">' in written.html
    assert f"<title>{subject}</title>" in written.html


@pytest.mark.parametrize(("kind", "language"), list(itertools.product(LetterKind, Language)))
@pytest.mark.parametrize("contact", ["", "+7 495 000-00-00"])
def test_every_letter_names_what_it_is_about(kind: LetterKind, language: Language, contact: str) -> None:
    written = letter(kind, language, contact=contact)
    for body in (written.text, written.html):
        assert CONTEXT.title in body
        assert CONTEXT.url in body
        if kind is LetterKind.SUCCESS:
            assert CONTEXT.login in body
        else:
            assert written_date(date(2026, 11, 22), language) in body
        assert (contact in body) or not (contact and kind is not LetterKind.EXPIRED)
        assert "None" not in body
        assert "{{" not in body


@pytest.mark.parametrize("language", Language)
def test_the_password_or_where_to_set_one(language: Language) -> None:
    kept = letter(locale=language)
    assert f": {PASSWORD}\n" in kept.text
    assert "Гп&lt;5&gt;&amp;&#34;&#39;  z" in kept.html
    page = "https://hematology.example.org/password?a=1&b=2"
    gone = letter(locale=language, password=None, set_password_url=page)
    assert f"\n{page}\n" in gone.text
    assert "password?a=1&amp;b=2" in gone.html
    neither = letter(locale=language, password=None)
    assert "password?" not in neither.text + neither.html
    assert PASSWORD not in repr(kept) + repr(CONTEXT)


def test_hostile_values_appear_as_they_are() -> None:
    title = "{{7*7}}<script>alert(1)</script>${7*7}{% raw %}<%= 7 %>@php"
    for kind, language in itertools.product(LetterKind, Language):
        written = letter(kind, language, title=title, contact="<b>{{ password }}</b>")
        assert title in written.subject
        assert title in written.text
        assert "{{7*7}}&lt;script&gt;" in written.html
        assert "<script" not in written.html
        assert "<b>" not in written.html


@pytest.mark.parametrize("broken", BREAKS)
def test_nothing_breaks_a_line(broken: str) -> None:
    for name in ("title", "login", "url", "contact", "set_password_url"):
        with pytest.raises(LetterInvalidError, match=name):
            letter(LetterKind.SUCCESS, **{name: f"a{broken}b"})
    with pytest.raises(LetterInvalidError, match="recipient"):
        message(recipient=f"lab@example.org{broken}")
    with pytest.raises(LetterInvalidError, match="sender"):
        message(sender=f"Cloud{broken} <cloud@example.org>")
    with pytest.raises(LetterInvalidError, match="id may have"):
        message(message_id=f"{OPERATION}{broken}")


@pytest.mark.parametrize(
    "recipient",
    [
        "a@b.c\r\nBcc: x",
        "a@b.cd,c@d.ef",
        "a@b,c@d",
        '"x\n"@y',
        "",
        "a",
        "A <a@b.cd>",
        "a@b.cd, c@d.ef",
        "a@b.cd>",
        "<a@b.cd",
    ],
)
def test_a_recipient_is_one_address(recipient: str) -> None:
    with pytest.raises(LetterInvalidError, match="recipient"):
        message(recipient=recipient)


@pytest.mark.parametrize("sender", ["", "cloud", "A <a@b.cd>, c@d.ef", "A <a@b.cd", "A a@b.cd", "A <a@b.cd> c"])
def test_a_sender_is_one_address(sender: str) -> None:
    with pytest.raises(LetterInvalidError, match="sender"):
        message(sender=sender)


def received(sent: EmailMessage) -> EmailMessage:
    """A message as its reader sees it."""
    return message_from_bytes(sent.as_bytes(), policy=policy.SMTP)


def test_headers_of_a_message() -> None:
    sent = message()
    assert sent.as_bytes().count(b"\r\n") == sent.as_bytes().count(b"\n")
    got = received(sent)
    fixed = {name: str(got[name]) for name in got if name not in ("Content-Type", "Subject")}
    assert fixed == {
        "From": "Облако Альфа <cloud@example.org>",
        "To": "lab@example.org",
        "Date": "Sun, 08 Nov 2026 09:30:00 +0000",
        "Message-ID": f"<{OPERATION}@example.org>",
        "Auto-Submitted": "auto-generated",
        "Content-Language": "ru",
        "MIME-Version": "1.0",
    }
    assert got.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in got.iter_parts()] == ["text/plain", "text/html"]
    assert bodies(got) == [letter().text, letter().html]
    assert message(sender="cloud@пример.рф")["Message-ID"].endswith("@xn--e1afmkfd.xn--p1ai>")
    assert received(message(sender='"Alfa, Inc" <cloud@example.org>'))["From"] == '"Alfa, Inc" <cloud@example.org>'


@pytest.mark.parametrize(
    "title",
    [
        "Лаборатория имени очень длинного человека " * 5,
        "Ё" * 200,
        "x" * 200,
        "a Лаб b " * 25,
        "😀" * 50,
        'a, "b" <c@d.ef>; ',
    ],
)
def test_subjects_arrive_as_written(title: str) -> None:
    written = letter(title=title)
    assert received(message(written))["Subject"] == written.subject


@pytest.mark.parametrize("title", [ENCODED, f"a {ENCODED} b", "=" + ENCODED, "=?=?utf-8?q?=0aBcc:x?=?="])
def test_encoded_words_hide_no_header(title: str) -> None:
    for sent in (message(letter(title=title)), message(sender=f"{title} <cloud@example.org>")):
        got = received(sent)
        assert got["Bcc"] is None
        assert set(got.keys()) == set(message().keys())


@pytest.mark.parametrize(
    ("count", "russian", "english"),
    [
        (0, "сегодня", "today"),
        (1, "завтра", "tomorrow"),
        (2, "через 2 дня", "in 2 days"),
        (5, "через 5 дней", "in 5 days"),
        (11, "через 11 дней", "in 11 days"),
        (21, "через 21 день", "in 21 days"),
        (112, "через 112 дней", "in 112 days"),
        (124, "через 124 дня", "in 124 days"),
    ],
)
def test_spans_of_days(count: int, russian: str, english: str) -> None:
    assert (in_days(count, Language.RU), in_days(count, Language.EN)) == (russian, english)
    assert russian in letter(LetterKind.EXPIRE, days_left=count).text


def test_dates() -> None:
    months = [written_date(date(2026, month, 3), Language.RU) for month in range(1, 13)]
    assert (months[0], months[4], months[11]) == ("3 января 2026 г.", "3 мая 2026 г.", "3 декабря 2026 г.")
    assert written_date(date(2026, 11, 22), Language.EN) == "22 November 2026"


@pytest.mark.parametrize("language", Language)
def test_a_letter_about_the_end_needs_one(language: Language) -> None:
    for kind in (LetterKind.EXPIRE, LetterKind.EXPIRED):
        with pytest.raises(LetterInvalidError, match="without an expire date"):
            letter(kind, language, expire_date=None)
    with pytest.raises(LetterInvalidError, match="ended already"):
        letter(LetterKind.EXPIRE, language, days_left=-1)
    written = letter(LetterKind.EXPIRE, language, days_left=None)
    assert written_date(date(2026, 11, 22), language) in written.subject


def test_a_client_without_a_title_is_called_by_its_host() -> None:
    assert letter(title="").subject == "Облако «hematology.example.org» готово к работе"


def test_a_folder_replaces_single_templates(tmp_path: Path) -> None:
    (tmp_path / "success.ru.subject.j2").write_text("\n  Добро пожаловать,\n  {{ title }}!\n")
    (tmp_path / "success.ru.html.j2").write_text(
        '{% extends "layout.html.j2" %}{% block body %}<i>{{ title }}</i>{% endblock %}'
    )
    written = render(LetterKind.SUCCESS, "ru", CONTEXT, templates=tmp_path)
    assert written.subject == "Добро пожаловать, Гематология!"
    assert "<i>Гематология</i>" in written.html
    assert written.text == letter().text
    assert render(LetterKind.SUCCESS, "en", CONTEXT, templates=tmp_path) == letter(locale="en")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("a\n{{ tittle }}", "success.ru.txt.j2, line 2: 'tittle' is undefined"),
        ("a\n\n{% if title %}", "success.ru.txt.j2, line 3: "),
        ("{{ title | nothing }}", "success.ru.txt.j2, line 1: No filter named 'nothing'"),
        ("a\n{{ 1 / 0 }}", "success.ru.txt.j2, line 2: division by zero"),
        ("\n{{ title + 1 }}", "success.ru.txt.j2, line 2: "),
        ("{{ {}[password] }}", "success.ru.txt.j2, line 1: "),
        ("{% include password %}", "success.ru.txt.j2, line 1: ***"),
        ("{{ expire_date.replace(month=13) }}", "success.ru.txt.j2, line 1: month must be in 1..12"),
        ("{% include 'success.ru.txt.j2' %}", "success.ru.txt.j2, line 1: maximum recursion"),
    ],
)
def test_a_broken_template_is_named_with_its_line(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "success.ru.txt.j2").write_text(source)
    with pytest.raises(LetterTemplateError) as caught:
        render(LetterKind.SUCCESS, "ru", CONTEXT, templates=tmp_path)
    assert said in caught.value.detail
    assert PASSWORD not in caught.value.detail
    assert str(tmp_path) not in caught.value.detail
    assert caught.value.__context__ is None


def test_a_template_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "success.ru.txt.j2").write_bytes(b"\xff\xfe")
    with pytest.raises(LetterTemplateError, match=r"success\.ru\.txt\.j2"):
        render(LetterKind.SUCCESS, "ru", CONTEXT, templates=tmp_path)
