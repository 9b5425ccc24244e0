<!doctype html>
<html lang="{{ app()->getLocale() }}">
<meta charset="utf-8">
<title>{{ config('app.name') }}</title>
<h1>{{ config('app.name') }}</h1>
<p>Version {{ config('app.version') }}</p>
</html>
