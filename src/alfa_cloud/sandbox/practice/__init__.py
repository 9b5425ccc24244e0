"""The practice server: a real SSH server in a folder, with stand-ins for Docker, nginx, certbot and sudo."""

from __future__ import annotations

from alfa_cloud.sandbox.practice.api import PracticeServer
from alfa_cloud.sandbox.practice.faults import Action, Fault, Phase
from alfa_cloud.sandbox.practice.recorder import Recorded

__all__ = ["Action", "Fault", "Phase", "PracticeServer", "Recorded"]
