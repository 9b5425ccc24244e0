"""Reusable steps: each looks, applies, and can be taken back."""
